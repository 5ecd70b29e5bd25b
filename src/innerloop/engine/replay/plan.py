"""From a recorded graph to steps over memory: what is computed from what, and where."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, ClassVar

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
    SIGMOID_BACK = 11
    TANH_BACK = 12
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
    def outs(self) -> tuple[View, ...]:
        return self.views[:1]

    @property
    def is_product(self) -> bool:
        return Code.PRODUCT <= self.code <= Code.PRODUCTS_BY_LIBRARY


@dataclass(frozen=True)
class Call:
    """An operation that PyTorch computes, into buffers."""

    node: fx.Node
    outs: tuple[View, ...]
    views: tuple[View, ...]  # the results, then what they are computed from
    tiled: ClassVar[bool] = False


@dataclass(frozen=True)
class Operation:
    """A node of the graph as a call of PyTorch, and the ways to compute it in C."""

    call: Call
    operands: dict[fx.Node, View]
    candidates: tuple[tuple[Step, ...], ...]


@dataclass
class Plan:
    """Buffers and operations of a graph. The first buffers are its inputs."""

    tiles: int
    inputs: list[View] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # numbers in each buffer
    dtypes: list[torch.dtype] = field(default_factory=list)  # of each buffer
    constants: dict[float, View] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    outputs: list[View | None] = field(default_factory=list)

    def fresh(
        self,
        sizes: Sequence[int],
        strides: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> View:
        """A buffer for a new tensor, contiguous unless `strides` are given."""
        if strides is None:
            strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
        reach = [(n - 1) * s for n, s in zip(sizes, strides, strict=True)]
        self.sizes.append(1 + sum(reach) if math.prod(sizes) else 0)
        self.dtypes.append(dtype)
        return View(len(self.sizes) - 1, 0, tuple(sizes), tuple(strides))

    def kind(self, operation: Operation) -> Hashable:
        """What two operations have in common when the same code computes both: all but
        the buffers that they use.
        """
        names = dict[int, int]()

        def apart(view: View) -> View:
            return replace(view, buffer=names.setdefault(view.buffer, len(names)))

        call, operands = operation.call, operation.operands
        arguments: Any = (call.node.args, call.node.kwargs)
        nodes = {node: apart(view) for node, view in operands.items()}
        given = map_arg(arguments, nodes.__getitem__)  # pyright: ignore[reportArgumentType]
        outs = tuple(map(apart, call.outs))
        candidates = tuple(
            tuple(replace(step, views=tuple(map(apart, step.views))) for step in steps)
            for steps in operation.candidates
        )
        dtypes = tuple(self.dtypes[buffer] for buffer in names)
        return call.node.target, repr(given), outs, candidates, dtypes

    def like(self, value: Tensor) -> View:
        return self.fresh(value.shape, value.stride(), value.dtype)

    def constant(self, value: float) -> View:
        if value not in self.constants:
            self.constants[value] = self.fresh(())
        return self.constants[value]


Values = Mapping[fx.Node, Any]  # what the nodes of a graph return


def planned(graph: fx.Graph, values: Values) -> Plan:
    """The plan of a graph, from what its nodes return. The fake tensors of a recording
    would do, but for the strides of dimensions of size 1, which can differ from those
    of real tensors, and by which PyTorch chooses how to multiply.

    Raises Unsupported where it writes to its tensors, or where they are on a GPU.
    """
    firsts = Counter(
        value.shape[0]
        for node in graph.nodes
        if isinstance(value := values.get(node), Tensor) and value.ndim > 1
    )
    plan = Plan(tiles=firsts.most_common(1)[0][0] if firsts else 1)
    views: dict[fx.Node, View] = {}
    parts: dict[fx.Node, tuple[View, ...]] = {}  # of results that are several tensors
    for node in graph.nodes:
        if node.op == "output":
            plan.outputs = [None if n is None else views[n] for n in node.args[0]]
        elif node.op == "placeholder":
            views[node] = plan.like(_tensors(node, values)[0])
            plan.inputs.append(views[node])
        elif node.op != "call_function":
            raise Unsupported(node.op)
        elif node.target is operator.getitem and node.args[0] in parts:
            views[node] = parts[node.args[0]][node.args[1]]
        elif (view := _viewed(node, values, views)) is not None:
            views[node] = view
        elif not _only_views(node, values):
            parts[node] = _operation(plan, node, values, views)
            if isinstance(values.get(node), Tensor):
                views[node] = parts[node][0]
    return plan


def _viewed(node: fx.Node, values: Values, views: dict[fx.Node, View]) -> View | None:
    """The result of a node that is a view of another tensor."""
    value = values.get(node)
    if not isinstance(value, Tensor) or not value.numel():
        return None
    for base in _bases(node, values):
        other = values[base]
        if base in views and _shared(other, value):
            where, ahead = views[base], value.storage_offset() - other.storage_offset()
            return View(
                where.buffer,
                where.offset + int(ahead),
                tuple(value.shape),
                tuple(value.stride()),
            )
    return None


def _only_views(node: fx.Node, values: Values) -> bool:
    """Whether a node is a list of views, such as those of a split."""
    parts = values.get(node)
    return isinstance(parts, list | tuple) and all(
        any(_shared(values[base], part) for base in _bases(node, values))
        for part in parts
    )


def _bases(node: fx.Node, values: Values) -> list[fx.Node]:
    """The tensors that a node reads, also those that it reads a view of in a list."""
    found = []
    for other in node.all_input_nodes:
        if isinstance(values.get(other), Tensor):
            found.append(other)
        else:
            found += _bases(other, values)
    return found


def _shared(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage()._cdata == b.untyped_storage()._cdata


def _operation(
    plan: Plan, node: fx.Node, values: Values, views: dict[fx.Node, View]
) -> tuple[View, ...]:
    """The results of an operation, which is added to the plan."""
    if node.target._schema.is_mutable:  # pyright: ignore
        raise Unsupported(str(node.target))
    results, before = _tensors(node, values), len(plan.sizes)
    outs = tuple(map(plan.like, results))
    if not all(n in views for n in node.all_input_nodes):
        raise Unsupported(f"{node.target} of a list")
    operands = {n: views[n] for n in node.all_input_nodes}
    candidates = ()
    write = OPERATIONS.get(node.target)
    reals = [*results, *(values[n] for n in operands)]
    if write and all(v.dtype == torch.float32 and v.numel() for v in reals):
        arguments: Any = map_arg(node.args, operands.__getitem__)  # pyright: ignore[reportArgumentType]
        try:
            candidates = tuple(
                map(tuple, write(plan, *outs, *arguments, **node.kwargs))
            )
        except Unsupported:
            del plan.sizes[before + len(outs) :], plan.dtypes[before + len(outs) :]
    call = Call(node, outs, (*outs, *operands.values()))
    plan.operations.append(Operation(call, operands, candidates))
    return outs


def _tensors(node: fx.Node, values: Values) -> list[Tensor]:
    """The tensors that a node returns."""
    value = values.get(node)
    if value is None:
        return []
    results: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    for result in results:
        if not isinstance(result, Tensor) or result.device.type != "cpu":
            raise Unsupported(f"{node.target} returns {result}")
    return results


# -- numbers

Operand = View | float
Writer = Callable[..., Iterator[Sequence[Step]]]  # of the candidates of an operation


def elementwise(plan: Plan, code: Code, out: View, *operands: Operand) -> Step:
    """Every number of `out` from those of the operands, tensors or Python numbers."""
    given = [x if isinstance(x, View) else plan.constant(x) for x in operands]
    views = [out, *(x.expanded(out.sizes) for x in given)]
    dims = [(n, *(view.strides[i] for view in views)) for i, n in enumerate(out.sizes)]
    ahead, dims = _tiles(plan, dims)
    dims = _joined(sorted(dims, key=lambda dim: -dim[1]))
    return Step(code, _views(views, [*ahead, *dims]), tiled=bool(ahead))


def _tiles(
    plan: Plan, dims: list[tuple[int, ...]]
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The dimension of the tiles, where the first one can be cut into them, and the
    dimensions of a tile.
    """
    if not dims or dims[0][0] % plan.tiles:
        return [], dims
    n, *strides = dims[0]
    inner = n // plan.tiles
    ahead = (plan.tiles, *(inner * stride for stride in strides))
    return [ahead], [(inner, *strides), *dims[1:]]


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


def reversed_subtract(
    plan: Plan, out: View, a: View, b: float, alpha: float = 1
) -> Iterator[Sequence[Step]]:
    if alpha != 1:
        raise Unsupported("rsub with a factor")
    yield [elementwise(plan, Code.SUBTRACT, out, b, a)]


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


# -- copies


def cat(
    plan: Plan, out: View, parts: Sequence[View], dim: int = 0
) -> Iterator[Sequence[Step]]:
    dim %= len(out.sizes)
    steps, start = [], 0
    for part in parts:
        own = _slice(out, dim, start, part.sizes[dim])
        steps.append(elementwise(plan, Code.COPY, own, part))
        start += part.sizes[dim]
    yield steps


def stack(
    plan: Plan, out: View, parts: Sequence[View], dim: int = 0
) -> Iterator[Sequence[Step]]:
    dim %= len(out.sizes)
    yield [
        elementwise(plan, Code.COPY, _select(out, dim, i), part)
        for i, part in enumerate(parts)
    ]


def slice_backward(
    plan: Plan, out: View, g: View, _: Any, dim: int, start: int, end: int, step: int
) -> Iterator[Sequence[Step]]:
    dim %= len(out.sizes)
    start += out.sizes[dim] * (start < 0)
    into = _slice(out, dim, start, g.sizes[dim], step)
    yield [
        elementwise(plan, Code.COPY, out, 0.0),
        elementwise(plan, Code.COPY, into, g),
    ]


def select_backward(
    plan: Plan, out: View, g: View, _: Any, dim: int, index: int
) -> Iterator[Sequence[Step]]:
    dim %= len(out.sizes)
    yield [
        elementwise(plan, Code.COPY, out, 0.0),
        elementwise(plan, Code.COPY, _select(out, dim, index % out.sizes[dim]), g),
    ]


def _slice(view: View, dim: int, start: int, size: int, step: int = 1) -> View:
    sizes, strides = list(view.sizes), list(view.strides)
    offset = view.offset + start * strides[dim]
    sizes[dim], strides[dim] = size, strides[dim] * step
    return View(view.buffer, offset, tuple(sizes), tuple(strides))


def _select(view: View, dim: int, index: int) -> View:
    sizes, strides = list(view.sizes), list(view.strides)
    offset = view.offset + index * strides.pop(dim)
    del sizes[dim]
    return View(view.buffer, offset, tuple(sizes), tuple(strides))


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


def product_plus(
    plan: Plan,
    out: View,
    start: View,
    a: View,
    b: View,
    beta: float = 1,
    alpha: float = 1,
) -> Iterator[Sequence[Step]]:
    """addmm."""
    if alpha != 1 or beta != 1:
        raise Unsupported("addmm with factors")
    alone = plan.fresh(out.sizes)
    for steps in product(plan, alone, a, b):
        yield [*steps, elementwise(plan, Code.ADD, out, alone, start)]


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
    ahead, kept = ([], kept) if 0 in gone else _tiles(plan, kept)
    tiled = bool(ahead)
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
    *given: Any,
    **options: Any,
) -> Iterator[Sequence[Step]]:
    gone = {d % len(x.sizes) for d in dims or range(len(x.sizes))}
    count = math.prod(x.sizes[d] for d in gone)
    divide = elementwise(plan, Code.DIVIDE, out, out, float(count))
    for steps in total(plan, out, x, dims, *given, **options):
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
    aten.sigmoid_backward.default: numbers(Code.SIGMOID_BACK),
    aten.tanh_backward.default: numbers(Code.TANH_BACK),
    aten.rsub.Scalar: reversed_subtract,
    aten.cat.default: cat,
    aten.stack.default: stack,
    aten.slice_backward.default: slice_backward,
    aten.select_backward.default: select_backward,
    aten.addmm.default: product_plus,
    aten.new_zeros.default: filled(0.0),
    aten.sum.dim_IntList: total,
    aten.sum.default: total,
    aten.mean.dim: mean,
    aten.mean.default: mean,
    aten.ones_like.default: filled(1.0),
    aten.zeros_like.default: filled(0.0),
    aten.full_like.default: full_like,
    aten.clone.default: numbers(Code.COPY),
}
