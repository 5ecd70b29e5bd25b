"""From a recorded graph to steps over memory: what is computed from what, and where."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

aten = torch.ops.aten
RANK = 6  # dimensions of a step, as in steps.c
OPERANDS = 4  # of a step, the result included
MANY = 4096  # matrices that the library multiplies at once


class Unsupported(Exception):
    """A graph that cannot be replayed by the C code."""


class Code(IntEnum):
    """What a step computes, as in steps.c."""

    ADD = 0
    SUBTRACT = 1
    MULTIPLY = 2
    DIVIDE = 3
    MULTIPLY_ADD = 4
    MULTIPLY_ADD_ROUNDED = 5
    NEGATE = 6
    COPY = 7
    ABOVE = 8
    RELU = 9
    RELU_SIGNED = 10
    PRODUCT = 32
    PRODUCT_ROUNDED = 33
    PRODUCT_BY_LIBRARY = 34
    PRODUCTS_BY_LIBRARY = 35
    SUM_ROWS = 36
    SUM_ADJACENT = 37


@dataclass(frozen=True)
class View:
    """Numbers of a buffer: where they begin, and how far apart they are."""

    buffer: int
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    def expanded(self, sizes: tuple[int, ...]) -> View:
        """Broadcast to `sizes`."""
        ahead = len(sizes) - len(self.sizes)
        strides = [
            0 if size == 1 else stride
            for size, stride in zip(self.sizes, self.strides, strict=True)
        ]
        return replace(self, sizes=sizes, strides=(0,) * ahead + tuple(strides))


@dataclass(frozen=True)
class Step:
    """One call of the C code; views are the result and what it is computed from, with
    the same number of dimensions. Where it is tiled, the parts of the first dimension
    are computed on their own.
    """

    code: Code
    views: tuple[View, ...]
    numbers: tuple[int, ...] = ()
    tiled: bool = False

    @property
    def is_product(self) -> bool:
        return Code.PRODUCT <= self.code <= Code.PRODUCTS_BY_LIBRARY


@dataclass(frozen=True)
class Operation:
    """A node of the graph: what it is computed from, its result, and the ways to
    compute it.
    """

    node: fx.Node
    operands: dict[fx.Node, View]
    out: View
    candidates: tuple[tuple[Step, ...], ...]


@dataclass
class Plan:
    """Buffers and operations of a graph. The first buffers are its inputs."""

    tiles: int
    inputs: list[View] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # numbers in each buffer
    constants: dict[float, View] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    outputs: list[View | None] = field(default_factory=list)

    def fresh(self, sizes: Sequence[int], strides: Sequence[int] | None = None) -> View:
        """A buffer for a new tensor, contiguous unless `strides` are given."""
        if strides is None:
            strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
        reach = [(n - 1) * s for n, s in zip(sizes, strides, strict=True)]
        self.sizes.append(1 + sum(reach))
        return View(len(self.sizes) - 1, 0, tuple(sizes), tuple(strides))

    def constant(self, value: float) -> View:
        if value not in self.constants:
            self.constants[value] = self.fresh(())
        return self.constants[value]


def planned(graph: fx.Graph) -> Plan:
    """The plan of a graph that was recorded with fake tensors.

    Raises Unsupported for operations, types and devices that the C code does not know.
    """
    firsts = Counter(
        value.shape[0]
        for node in graph.nodes
        if node.op == "call_function" and (value := _value(node)).ndim > 1
    )
    plan = Plan(tiles=firsts.most_common(1)[0][0] if firsts else 1)
    views: dict[fx.Node, View] = {}
    for node in graph.nodes:
        if node.op == "output":
            plan.outputs = [None if n is None else views[n] for n in node.args[0]]
        elif node.op == "placeholder":
            views[node] = plan.fresh(_value(node).shape, _value(node).stride())
            plan.inputs.append(views[node])
        elif node.op == "call_function":
            views[node] = _called(plan, node, views)
        else:
            raise Unsupported(node.op)
    return plan


def _called(plan: Plan, node: fx.Node, views: dict[fx.Node, View]) -> View:
    """The result of an operation: a view of another tensor, or a new one."""
    value = _value(node)
    if node.target._schema.is_mutable or not value.numel():  # pyright: ignore
        raise Unsupported(str(node.target))
    for other in node.all_input_nodes:
        base = _value(other)
        if base.untyped_storage()._cdata == value.untyped_storage()._cdata:
            offset = value.storage_offset() - base.storage_offset()
            where = views[other]
            return View(
                where.buffer,
                where.offset + int(offset),
                tuple(value.shape),
                tuple(value.stride()),
            )
    write = OPERATIONS.get(node.target)
    if write is None:
        raise Unsupported(str(node.target))
    out = plan.fresh(value.shape, value.stride())
    arguments: Any = map_arg(node.args, views.__getitem__)  # pyright: ignore[reportArgumentType]
    candidates = tuple(map(tuple, write(plan, out, *arguments, **node.kwargs)))
    operands = {n: views[n] for n in node.all_input_nodes}
    plan.operations.append(Operation(node, operands, out, candidates))
    return out


def _value(node: fx.Node) -> Tensor:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        raise Unsupported(f"{node.target} returns {type(value).__name__}")
    if value.dtype != torch.float32 or value.device.type != "cpu":
        raise Unsupported(f"{node.target} returns {value.dtype} on {value.device}")
    return value


# -- numbers

Operand = View | float
Writer = Callable[..., Iterator[Sequence[Step]]]  # of the candidates of an operation


def elementwise(plan: Plan, code: Code, out: View, *operands: Operand) -> Step:
    """Every number of `out` from those of the operands, tensors or Python numbers."""
    given = [x if isinstance(x, View) else plan.constant(x) for x in operands]
    views = [out, *(x.expanded(out.sizes) for x in given)]
    dims = [(n, *(view.strides[i] for view in views)) for i, n in enumerate(out.sizes)]
    tiled = bool(dims) and dims[0][0] % plan.tiles == 0
    ahead = []
    if tiled:
        n, *strides = dims.pop(0)
        inner = n // plan.tiles
        ahead = [(plan.tiles, *(s * inner for s in strides))]
        dims = [(inner, *strides), *dims]
    dims = _joined(sorted(dims, key=lambda dim: -dim[1]))
    return Step(code, _views(views, [*ahead, *dims]), tiled=tiled)


def _views(views: Sequence[View], dims: Sequence[tuple[int, ...]]) -> tuple[View, ...]:
    """The views with other dimensions: (size, stride in each view)."""
    if len(dims) > RANK:
        raise Unsupported("too many dimensions")
    sizes = tuple(n for n, *_ in dims)
    return tuple(
        replace(view, sizes=sizes, strides=tuple(dim[i + 1] for dim in dims))
        for i, view in enumerate(views)
    )


def _joined(dims: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Dimensions without those of size 1, and with neighbors joined that can be."""
    found: list[tuple[int, ...]] = []
    for n, *strides in dims:
        if n == 1:
            continue
        if found and list(found[-1][1:]) == [n * s for s in strides]:
            found[-1] = (found[-1][0] * n, *strides)
        else:
            found.append((n, *strides))
    return found


def numbers(*codes: Code) -> Writer:
    def write(
        plan: Plan, out: View, *operands: Operand, **options: Any
    ) -> Iterator[Sequence[Step]]:
        for code in codes:
            yield [elementwise(plan, code, out, *operands)]

    return write


def add(
    plan: Plan, out: View, a: Operand, b: Operand, alpha: float = 1
) -> Iterator[Sequence[Step]]:
    if alpha == 1:
        yield [elementwise(plan, Code.ADD, out, a, b)]
        return
    for code in (Code.MULTIPLY_ADD, Code.MULTIPLY_ADD_ROUNDED):
        yield [elementwise(plan, code, out, a, b, alpha)]


def subtract(
    plan: Plan, out: View, a: Operand, b: Operand, alpha: float = 1
) -> Iterator[Sequence[Step]]:
    if alpha == 1:
        yield [elementwise(plan, Code.SUBTRACT, out, a, b)]
    else:
        yield from add(plan, out, a, b, -alpha)


def power(plan: Plan, out: View, x: View, exponent: float) -> Iterator[Sequence[Step]]:
    if exponent == 0:
        yield [elementwise(plan, Code.COPY, out, 1.0)]
    elif exponent == 1:
        yield [elementwise(plan, Code.COPY, out, x)]
    elif exponent == 2:
        yield [elementwise(plan, Code.MULTIPLY, out, x, x)]
    else:
        raise Unsupported(f"a power of {exponent}")


def filled(value: float) -> Writer:
    def write(
        plan: Plan, out: View, *_: Any, **options: Any
    ) -> Iterator[Sequence[Step]]:
        yield [elementwise(plan, Code.COPY, out, value)]

    return write


def full_like(
    plan: Plan, out: View, _: View, value: float, **options: Any
) -> Iterator[Sequence[Step]]:
    yield [elementwise(plan, Code.COPY, out, value)]


# -- products


def product(plan: Plan, out: View, a: View, b: View) -> Iterator[Sequence[Step]]:
    """mm and bmm."""
    if out.strides[-1] != 1 and out.sizes[-1] != 1:
        raise Unsupported("a matrix product whose result is transposed")
    pack, adjacent = [], b
    if b.strides[-1] != 1 and b.sizes[-1] != 1:
        adjacent = plan.fresh(b.sizes)
        pack = [elementwise(plan, Code.COPY, adjacent, b)]
    for code in (Code.PRODUCT, Code.PRODUCT_ROUNDED):
        yield [*pack, _product(plan, code, out, a, adjacent)]
    if 1 in a.strides[-2:] and 1 in b.strides[-2:]:
        yield [_product(plan, Code.PRODUCT_BY_LIBRARY, out, a, b)]
        if len(out.sizes) == 3 and out.sizes[0] <= MANY:
            # not tiled: the library is called once
            step = _product(plan, Code.PRODUCTS_BY_LIBRARY, out, a, b)
            yield [replace(step, tiled=False)]


def _product(plan: Plan, code: Code, out: View, a: View, b: View) -> Step:
    m, k = a.sizes[-2:]
    n = b.sizes[-1]
    batch = out.sizes[0] if len(out.sizes) == 3 else 1
    apart = [v.strides[0] if len(v.sizes) == 3 else 0 for v in (out, a, b)]
    if batch == 1 and m % plan.tiles == 0 and code < Code.PRODUCT_BY_LIBRARY:
        # rows are independent of each other
        batch, m = plan.tiles, m // plan.tiles
        apart = [m * out.strides[-2], m * a.strides[-2], 0]
    strides = [
        (first, *v.strides[-2:]) for first, v in zip(apart, (out, a, b), strict=True)
    ]
    sizes = ((batch, m, n), (batch, m, k), (batch, k, n))
    views = [
        View(v.buffer, v.offset, size, stride)
        for v, size, stride in zip((out, a, b), sizes, strides, strict=True)
    ]
    return Step(code, tuple(views), (m, n, k), tiled=batch == plan.tiles)


# -- sums


def total(
    plan: Plan,
    out: View,
    x: View,
    dims: Sequence[int] | None = None,
    keepdim: bool = False,
    dtype: Any = None,
) -> Iterator[Sequence[Step]]:
    """Sums over dimensions in the orders of PyTorch: reduced dimensions are innermost,
    then those with small strides.
    """
    rank = len(x.sizes)
    gone = {d % rank for d in dims} if dims else set(range(rank))
    strides = iter(s for i, s in enumerate(out.strides) if not keepdim or i not in gone)
    into = [0 if d in gone else next(strides) for d in range(rank)]
    every = list(zip(x.sizes, into, x.strides, strict=True))
    lost = [dim for d, dim in enumerate(every) if d in gone]
    kept = [dim for d, dim in enumerate(every) if d not in gone]
    lost = _joined(sorted(lost, key=lambda dim: -dim[2]))
    rows, _, row = lost.pop() if lost else (1, 0, 0)
    start = elementwise(plan, Code.COPY, out, 0.0)
    tiled = bool(kept) and 0 not in gone and kept[0][0] % plan.tiles == 0
    ahead = []
    if tiled:
        n, *apart = kept.pop(0)
        inner = n // plan.tiles
        ahead = [(plan.tiles, *(s * inner for s in apart))]
        kept = [(inner, *apart), *kept]
    kept = _joined(sorted(kept, key=lambda dim: -dim[1]))
    columns = kept.pop() if kept else (1, 0, 0)
    views = _views((out, x), [*ahead, *kept, *lost, columns, (rows, 0, row)])
    groups = [columns[0] - columns[0] % wide for wide in (64, 32, 4)] + [0]
    for straight in dict.fromkeys(groups):
        yield [start, Step(Code.SUM_ROWS, views, (straight,), tiled)]
    if row == 1:
        for width in (16, 8):
            yield [start, Step(Code.SUM_ADJACENT, views, (width,), tiled)]


def mean(
    plan: Plan,
    out: View,
    x: View,
    dims: Sequence[int] | None = None,
    keepdim: bool = False,
    dtype: Any = None,
) -> Iterator[Sequence[Step]]:
    gone = {d % len(x.sizes) for d in dims or range(len(x.sizes))}
    count = math.prod(x.sizes[d] for d in gone)
    divide = elementwise(plan, Code.DIVIDE, out, out, float(count))
    for steps in total(plan, out, x, dims, keepdim):
        yield [*steps, divide]


OPERATIONS: dict[Any, Writer] = {
    aten.mm.default: product,
    aten.bmm.default: product,
    aten.add.Tensor: add,
    aten.sub.Tensor: subtract,
    aten.mul.Tensor: numbers(Code.MULTIPLY),
    aten.mul.Scalar: numbers(Code.MULTIPLY),
    aten.div.Tensor: numbers(Code.DIVIDE),
    aten.div.Scalar: numbers(Code.DIVIDE),
    aten.neg.default: numbers(Code.NEGATE),
    aten.relu.default: numbers(Code.RELU, Code.RELU_SIGNED),
    aten.threshold_backward.default: numbers(Code.ABOVE),
    aten.pow.Tensor_Scalar: power,
    aten.sum.dim_IntList: total,
    aten.sum.default: total,
    aten.mean.dim: mean,
    aten.mean.default: mean,
    aten.ones_like.default: filled(1.0),
    aten.zeros_like.default: filled(0.0),
    aten.full_like.default: full_like,
    aten.clone.default: numbers(Code.COPY),
}
