"""A learning algorithm: how one task is learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Self, dataclass_transform

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from innerloop.core.likelihood import (
    Bernoulli,
    Categorical,
    Gaussian,
    Likelihood,
    Metrics,
)
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.memory import keep_memory
from innerloop.engine.names import instead
from innerloop.engine.statistics import Normaliser, measured

State = Any  # any pytree of tensors: weights, prototypes, a memory


@dataclass(frozen=True)
class Recipe:
    """How a learner is meta-trained where nothing else is said: the episodes and the
    outer loop.

    ways, shots, queries: the episodes trained on; alphabets: how many groups their
    classes come from (0: any), where the data has groups. batch: tasks in a meta-step.
    optimizer: a name in torch.optim. lr: its rate, after `warmup` steps and under
    cosine decay, or constant. clip: the largest norm of the meta-gradient. supervised:
    all classes at once, with labels that never change, `batch` examples at a time.
    """

    ways: int = 5
    shots: int = 1
    queries: int = 15
    alphabets: int = 0
    batch: int = 16
    optimizer: str = "AdamW"
    lr: float = 1e-3
    weight_decay: float = 0.0
    warmup: int = 100
    decay: bool = True
    clip: float = 10.0
    meta_gradient: str = "backprop"
    supervised: bool = False


@dataclass_transform(eq_default=False, field_specifiers=(field,))
class Learner(nn.Module, ABC):
    """A learning algorithm; its parameters are the meta-parameters theta. Written for
    ONE task, without side effects.

    A subclass is a dataclass by itself: annotate its networks and hyperparameters. A
    new learner is in evaluation mode;
    `meta_train` switches to training mode while it trains.
    """

    kinds: ClassVar[tuple[str, ...]] = ("classes", "reals")
    recipe: ClassVar[Recipe] = Recipe()
    likelihood: Likelihood
    spec: ClassVar[TaskSpec | None] = None  # what `build` was told
    given: ClassVar[dict[str, Any]] = {}
    # the networks that may be chosen by name
    by_name: ClassVar[tuple[str, ...]] = ("encoder", "net")
    # defaults of `build` where targets are reals
    for_reals: ClassVar[dict[str, Any]] = {}
    sequences: ClassVar[bool] = False  # whether it can answer queries in order
    # whether `forward` encodes all tasks at once, so that they are normalised together
    together: ClassVar[bool] = False
    or_zero: ClassVar[tuple[str, ...]] = ("inner_steps",)  # whole numbers that may be 0

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        dataclass(eq=False, repr=False)(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        nn.Module.__init__(self)
        return self

    def __post_init__(self) -> None:
        self.eval()

    @abstractmethod
    def adapt(self, support: Examples) -> State:
        """Learn from support x (n, *x_shape), y (n, y_dim); the state is data: any
        pytree of tensors.
        """

    @abstractmethod
    def predict(self, state: State, x: Tensor) -> Tensor:
        """Outputs (m, out_dim) for x (m, *x_shape), to be read by `self.likelihood`."""

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        """What meta-training lowers: the negative log-likelihood of the query set after
        adapting, a scalar, and its metrics.
        """
        outputs = self.predict(self.adapt(task.support), task.query.x)
        return self.likelihood.nll(outputs, task.query.y), self.likelihood.metrics(
            outputs, task.query.y
        )

    def at(self, progress: float) -> None:
        """Told before every meta-step how far meta-training is, from 0 to 1, and 1 at
        its end: for what changes on the way.
        """

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        """Mean loss and mean metrics over a batch of tasks."""
        losses, metrics = self.mapped(self.loss, tasks)
        return losses.mean(), {name: values.mean() for name, values in metrics.items()}

    def mapped(self, function: Callable[..., Any], *trees: Any) -> Any:
        """`function` over the leading axis of `trees`, results stacked: by vmap, or by
        a loop where that is faster.

        Weights that differ from task to task turn torch's convolutions into grouped
        ones, which a CPU runs at half the speed of a loop.
        """
        keep_memory()
        first = tree_leaves(trees)[0]
        looped = len(first) == 1 or (
            first.device.type == "cpu"
            and any(type(m) is nn.Conv2d for m in self.modules())
        )
        if not looped:
            return torch.vmap(function, randomness="different")(*trees)
        results = [
            function(*tree_map(lambda leaf: leaf[i], trees))
            for i in range(len(first))  # noqa: B023
        ]
        return tree_map(lambda *leaves: torch.stack(leaves), *results)

    @torch.no_grad()
    def calibrate(self, tasks: Task) -> None:
        """Re-estimate the statistics of normalisation layers on training tasks, exactly
        instead of by a moving average.

        Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576,
        section 3. Called by `meta_train`.
        """
        if any(isinstance(module, Normaliser) for module in self.modules()):
            with measured(self) as notes:
                for part in [tasks] if self.together else tasks.split(0):
                    self(part)
            buffers = dict(self.named_buffers())
            for name, value in notes.moments().items():
                buffers[name].copy_(value)

    @classmethod
    def fields(cls) -> tuple[Field[Any], ...]:
        """The learner's networks and hyperparameters as dataclass fields."""
        return fields(cls)  # pyright: ignore[reportArgumentType]

    @classmethod
    def networks(
        cls, spec: TaskSpec, given: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        """Suitable networks for `spec`, by field; `given` holds the fields that were
        set, networks as modules or by name.
        """
        return {}

    @classmethod
    def any_ways(cls, given: Mapping[str, Any]) -> bool:
        """Whether, with these fields, it answers for any number of ways, not only for
        the one it was built for: labels are mere symbols to it.
        """
        return True

    @classmethod
    def build(cls, spec: TaskSpec, **given: Any) -> Self:
        """This learner with suitable networks for `spec`; `given` sets fields, networks
        too, by module or by name ("conv4").

        Raises TypeError for a field that does not exist and ValueError for a kind of
        task that this learner cannot answer for.
        """
        known = [entry.name for entry in cls.fields()]
        for name in given:
            if name not in known:
                raise TypeError(
                    f"{cls.__name__} has no field {name!r}{instead(name, known, 'it has')}"
                )
        if spec.kind not in cls.kinds:
            raise ValueError(
                f"{cls.__name__} answers for {' and '.join(cls.kinds)}, but the targets of these tasks are {spec.kind}"
            )
        if spec.ordered and not cls.sequences:
            raise ValueError(
                f"{cls.__name__} answers every query by itself, and these tasks are sequences: try NTM, MANN or LSTM"
            )
        for name, value in given.items():
            if (
                isinstance(value, int)
                and not isinstance(value, bool)
                and value < (0 if name in cls.or_zero else 1)
            ):
                raise ValueError(
                    f"{name} must be at least {0 if name in cls.or_zero else 1}, not {value}"
                )
        given = {**(cls.for_reals if spec.kind == "reals" else {}), **given}
        for entry in cls.fields():
            if (
                isinstance(given.get(entry.name), str)
                and "Module" in str(entry.type)
                and entry.name not in cls.by_name
            ):
                raise ValueError(
                    f"{cls.__name__} takes {entry.name} as a module, not by name"
                )
        likelihood = given.setdefault(
            "likelihood",
            {"classes": Categorical(), "bits": Bernoulli()}.get(spec.kind, Gaussian()),
        )
        told = {name: value for name, value in given.items() if name != "likelihood"}
        wired = cls.networks(spec, given, likelihood.out_dim(spec.y_dim))
        learner = cls(
            **{
                **given,
                **{
                    name: value
                    for name, value in wired.items()
                    if not isinstance(given.get(name), nn.Module)
                },
            }
        )
        learner.spec, learner.given = spec, told  # pyright: ignore[reportAttributeAccessIssue]
        return learner


class Streaming(Learner):
    """A learner that takes one example at a time: `adapt` is the fold of `observe` over
    the support set.

    Its objective is the loss of everything that it can be asked: of every support
    example before its label is shown, and of the query set. Where support and query are
    one sequence, it is that of the query set.
    """

    @abstractmethod
    def init(self) -> State:
        """The state before any example."""

    @abstractmethod
    def observe(self, state: State, x: Tensor, y: Tensor) -> State:
        """The state after one more example x (*x_shape), y (y_dim,)."""

    def follow(self, examples: Examples) -> tuple[State, Tensor]:
        """The state after the examples, and the outputs (n, out_dim) for each of them,
        given before its label was shown.
        """
        state, outputs = self.init(), []
        for x, y in zip(*examples, strict=True):
            outputs.append(self.predict(state, x[None])[0])
            state = self.observe(state, x, y)
        return state, torch.stack(outputs)

    def adapt(self, support: Examples) -> State:
        state = self.init()
        for x, y in zip(*support, strict=True):
            state = self.observe(state, x, y)
        return state

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        if self.spec is not None and self.spec.ordered:
            return super().loss(task)
        state, before = self.follow(task.support)
        after = self.predict(state, task.query.x)
        nll = self.likelihood.nll(
            torch.cat([before, after]), torch.cat([task.support.y, task.query.y])
        )
        return nll, self.likelihood.metrics(after, task.query.y)
