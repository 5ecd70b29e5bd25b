"""A learner's `adapt` and `predict` as two graphs of tensor operations.

Gradients that a learner takes are part of the graph of `adapt`, as the operations that
compute them. Numbers of examples and classes are free where the learner allows any.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.nets.fused_conv import native

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Leaf:
    """A tensor of the state that depends on the support set.

    Args:
        name: its place in the state, such as "state.head.weight".
        shape: with None for numbers that depend on the support set.
    """

    name: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Programs:
    """The graphs of a learner.

    Args:
        adapt: of x (n, *x_shape) and y (n, y_dim), to the tensors of the state.
        predict: of these tensors and x (m, *x_shape), to what is predicted.
        state: the tensors of the state.
        outputs: what is predicted: `mean`, the probabilities of the classes or the
            predicted reals; `std` where the learner predicts a standard deviation; and
            `outputs`, what the learner returned.
        any_ways: whether the number of classes is free.
    """

    adapt: ExportedProgram
    predict: ExportedProgram
    state: tuple[Leaf, ...]
    outputs: tuple[str, ...]
    any_ways: bool


class Traceable:
    """A learner as two functions of tensors alone. What does not depend on the support
    set, such as frozen weights, is no part of the state.
    """

    def __init__(self, learner: Learner, spec: TaskSpec):
        self.learner, self.spec = learner, spec
        self.any_ways = spec.kind == "classes" and not learner.fixed_ways
        self.sizes = _primes(learner, spec)
        own = {id(t) for t in (*learner.parameters(), *learner.buffers())}
        examples = self.support(*self.sizes[:2])
        paths, self.form = tree_flatten_with_path(learner.adapt(examples))
        self.leaves = [leaf for _, leaf in paths]
        self.names = [_name(path) for path, _ in paths]
        self.kept = [i for i, leaf in enumerate(self.leaves) if id(leaf) not in own]

    def support(self, n: int, ways: int) -> Examples:
        """Random examples, of so many classes where their number is free."""
        ways = ways if self.any_ways else self.spec.y_dim
        generator = torch.Generator().manual_seed(n)
        x, spec = self.inputs(n, generator), self.spec
        if spec.kind == "classes":
            y = torch.eye(ways)[torch.arange(n) % ways]
        else:
            y = torch.rand(n, spec.y_dim, generator=generator)
            y = y.round() if spec.kind == "bits" else y
        return Examples(x, y.to(self.learner.dtype))

    def inputs(self, n: int, generator: torch.Generator) -> Tensor:
        shape, dtype = (n, *self.spec.x_shape), self.learner.dtype
        if self.spec.vocabulary:
            tokens = torch.randint(self.spec.vocabulary, shape, generator=generator)
            return tokens.to(dtype)
        # as bright as each other they would be too much alike
        bright = torch.rand(n, *[1] * len(self.spec.x_shape), generator=generator)
        return (bright * torch.rand(shape, generator=generator)).to(dtype)

    def adapt(self, x: Tensor, y: Tensor) -> Tensors:
        paths, form = tree_flatten_with_path(self.learner.adapt(Examples(x, y)))
        if form != self.form:
            raise InnerloopError(
                f"the state of {type(self.learner).__name__} has another structure for "
                "another support set"
            )
        return tuple(paths[i][1].contiguous() for i in self.kept)

    def predict(self, state: Sequence[Tensor], x: Tensor) -> Tensors:
        leaves = list(self.leaves)
        for i, leaf in zip(self.kept, state, strict=True):
            leaves[i] = leaf
        outputs = self.learner.predict(tree_unflatten(leaves, self.form), x)
        likelihood = self.learner.likelihood
        std = likelihood.std(outputs)
        return (likelihood.mean(outputs), *([] if std is None else [std]), outputs)


def traced(learner: Learner, spec: TaskSpec) -> tuple[Traceable, Programs]:
    """The graphs of a learner in evaluation mode, and the functions that they compute.

    Raises InnerloopError where the learner says that it has none, or tracing fails.
    """
    name = type(learner).__name__
    if learner.export_problem:
        raise InnerloopError(f"{name} cannot be exported: {learner.export_problem}")
    with torch.no_grad():
        functions = Traceable(learner, spec)
        n, ways, m, other_n, other_ways = functions.sizes
        support = functions.support(n, ways)
        state = functions.adapt(*support)
        other = functions.adapt(*functions.support(other_n, other_ways))
        free = [
            tuple(i for i in range(s.dim()) if s.shape[i] != t.shape[i])
            for s, t in zip(state, other, strict=True)
        ]
        x = functions.inputs(m, torch.Generator().manual_seed(m))
        targets = (0, 1) if functions.any_ways else (0,)
        adapt = _exported(functions.adapt, tuple(support), ((0,), targets), name)
        predict = _exported(
            lambda *inputs: functions.predict(inputs[:-1], inputs[-1]),
            (*state, x),
            (*free, (0,)),
            name,
        )
    leaves = tuple(
        Leaf(
            functions.names[at],
            tuple(None if i in dims else int(s) for i, s in enumerate(tensor.shape)),
        )
        for at, tensor, dims in zip(functions.kept, state, free, strict=True)
    )
    has_std = learner.likelihood.std(torch.zeros(1, 2 * spec.y_dim)) is not None
    outputs = ("mean", "std", "outputs") if has_std else ("mean", "outputs")
    programs = Programs(adapt, predict, leaves, outputs, functions.any_ways)
    return functions, programs


def _name(path: tuple[Any, ...]) -> str:
    """Where a tensor is in the state, such as "state.head.weight"."""
    keys = keystr(path).strip("[]").replace("][", ".").replace("'", "")
    return f"state.{keys}" if keys else "state"


def _primes(learner: Learner, spec: TaskSpec) -> list[int]:
    """Five small numbers that no size of the learner equals, so that a free size is
    never taken for a fixed one.
    """
    used = {size for tensor in learner.state_dict().values() for size in tensor.shape}
    used |= {*spec.x_shape, spec.y_dim}
    primes = (p for p in itertools.count(3) if all(p % q for q in range(2, p)))
    ways, m, other_ways, n, other_n, *_ = itertools.islice(
        (p for p in primes if p not in used), 5
    )
    return [n, ways, m, other_n, other_ways]


def _exported(
    function: Callable[..., Tensors],
    arguments: Tensors,
    free: Sequence[tuple[int, ...]],
    name: str,
) -> ExportedProgram:
    """The graph of a function.

    Args:
        free: the axes of every argument that may have any length.
    """
    shapes = tuple({axis: Dim.DYNAMIC for axis in axes} for axes in free)
    try:
        with (
            quiet(),
            native.switched_off(),
            torch.autocast("cpu", enabled=False),
            sdpa_kernel(SDPBackend.MATH),
        ):
            graph = make_fx(
                lambda *inputs: function(*inputs),
                tracing_mode="symbolic",
                _allow_non_fake_inputs=True,
            )(*arguments)
            for at, weight in list(graph.named_parameters()):
                delattr(graph, at)  # a program has nothing to train
                graph.register_buffer(at, weight.detach())
            return torch.export.export(graph, arguments, dynamic_shapes=shapes)
    except InnerloopError:
        raise
    except Exception as error:  # of torch or of a learner: of any type
        text = " ".join(str(error).split())
        reason = (
            "its operations are for one number of examples"
            if "Constraints violated" in text
            else f"torch cannot trace its operations: {text:.120}"
        )
        raise InnerloopError(f"{name} cannot be exported: {reason}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without torch's messages for its own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
