"""The base class of meta-gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopTypeError
from innerloop.engine.norm_stats import Normalizer
from innerloop.engine.options import check_options
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.engine.workers import ALONE, Share, Workers

# Tasks are processed together up to this many numbers in their inputs, at least one.
CHUNK_NUMBERS = 2**20

Draw = Callable[[], Task]  # draws one batch of training tasks
Grads = dict[str, Tensor | None]


@dataclass(frozen=True)
class Gradient:
    """A meta-gradient by parameter name, for the optimizer; and training metrics."""

    grads: Grads
    metrics: Metrics


@dataclass(frozen=True)
class Move:
    """New meta-parameters by name, set without an optimizer; and training metrics."""

    theta: dict[str, Tensor]
    metrics: Metrics


Update = Gradient | Move


class MetaGradient(ABC):
    """The rule that updates the meta-parameters in a meta-step.

    A subclass is automatically a dataclass: annotate its options.

    `meta_train` calls `prepare` once and then the object itself at every meta-step,
    with a function that samples a batch of tasks. A meta-gradient that can use one
    batch several times calls it only when it needs new tasks.

    Class variables:
        requires: the learners that it can train, a class.
        plays: whether it acts in environments; the others need tasks with labels.
        uses_optimizer: False where it returns `Move`, so that optimizer, learning rate
            and clipping do not apply.
        defaults: how it trains best, or None to leave that to the learner.
        learner_defaults: values of the learner's fields that suit it.
    """

    requires: ClassVar[type[Learner]] = Learner
    plays: ClassVar[bool] = False
    uses_optimizer: ClassVar[bool] = True
    defaults: ClassVar[MetaTrainConfig | None] = None
    learner_defaults: ClassVar[dict[str, Any]] = {}
    prepared: bool = False
    workers: Workers = ALONE  # the processes that share a meta-step, see `distributed`
    own: Share | None = None  # the tasks of this process in the last batch
    together: int = 1  # how many of them are normalized together

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        dataclass(eq=False, repr=False)(cls)

    def __post_init__(self) -> None:
        check_options(self)

    @classmethod
    def supports(cls, learner: type[Learner], tasks: TaskDistribution) -> str | None:
        """Why this meta-gradient cannot train such a learner on such tasks, or None."""
        if not issubclass(learner, cls.requires):
            return f"it needs a {cls.requires.__name__}; got {learner.__name__}"
        if tasks.played and not cls.plays:
            return "it learns from labeled examples, but these tasks are environments"
        if cls.plays and not tasks.played:
            return "it learns from rewards, but these tasks are not environments"
        return None

    def likelihood(self, tasks: TaskDistribution) -> Likelihood | None:
        """How the learner's outputs must be read, or None for the learner's choice."""
        return None

    def check(self, learner: Learner, tasks: TaskDistribution) -> None:
        """Raises InnerloopTypeError if it cannot train this learner on these tasks."""
        reason = self.supports(type(learner), tasks)
        if reason is not None:
            raise InnerloopTypeError(
                f"{type(self).__name__} cannot train {type(learner).__name__}: {reason}"
            )

    def prepare(
        self, learner: Learner, tasks: TaskDistribution, generator: torch.Generator
    ) -> None:
        """Called once before training. `generator` is for all that it draws itself."""
        self.check(learner, tasks)
        self.prepared = True

    @abstractmethod
    def __call__(self, learner: Learner, draw: Draw) -> Update:
        """One meta-step."""

    def part(self, learner: Learner, draw: Draw) -> tuple[Update, float | None]:
        """What this process computes of a meta-step that several `workers` share, and
        its weight in the mean over them; None where the update is that of all already.

        By default, every process takes a share of the tasks, so that the update must be
        a mean over tasks.
        """

        def own() -> Task:
            tasks = draw()
            self.together = normalized_together(learner, tasks)
            self.own = self.workers.share(len(tasks.query.x), self.together)
            return Task(*(Examples(*map(self.own.of, part)) for part in tasks))

        with self.workers.own_noise():
            update = self(learner, own)
        assert self.own is not None
        return update, self.own.weight

    def agreed(self, progress: float) -> float:
        """The share of training that is done, by the clock of the first process."""
        return progress

    def on_progress(self, progress: float) -> None:  # noqa: B027
        """Called before every meta-step with the share of training done, 0 to 1."""

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors: all that the next meta-steps depend on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Continue from `state_dict`."""

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{entry.name}={getattr(self, entry.name)!r}"
            for entry in fields(self)  # pyright: ignore[reportArgumentType]
        )
        return f"{type(self).__name__}({shown})"


class Wrapper(MetaGradient):
    """Another way to compute the meta-gradient `rule`, with the same state."""

    rule: MetaGradient

    def check(self, learner: Learner, tasks: TaskDistribution) -> None:
        self.rule.check(learner, tasks)

    def prepare(
        self, learner: Learner, tasks: TaskDistribution, generator: torch.Generator
    ) -> None:
        self.rule.prepare(learner, tasks, generator)
        self.prepared = True

    def on_progress(self, progress: float) -> None:
        self.rule.on_progress(progress)

    def state_dict(self) -> dict[str, Any]:
        return self.rule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rule.load_state_dict(state)


def chunks(learner: Learner, tasks: Task) -> list[Task]:
    """A batch of tasks as those that are processed at once: one by one where the
    learner has `recompute` set.
    """
    return tasks.split(0 if learner.recompute else CHUNK_NUMBERS)


def normalized_together(learner: Learner, tasks: Task) -> int:
    """How many tasks of a batch share the statistics of normalization layers."""
    batched = (Normalizer, torch.nn.modules.batchnorm._BatchNorm)
    if not learner.encode_jointly or not any(
        isinstance(module, batched) and module.training for module in learner.modules()
    ):
        return 1
    return len(chunks(learner, tasks)[0].query.x)


GradientFunction = Callable[[Learner, Task], tuple[Grads, Metrics]]


class FunctionGradient(MetaGradient):
    """A meta-gradient from a function of a learner and a batch of tasks that returns
    gradients by parameter name, and metrics.
    """

    function: GradientFunction

    def __call__(self, learner: Learner, draw: Draw) -> Gradient:
        return Gradient(*self.function(learner, draw()))


def as_meta_gradient(how: MetaGradient | GradientFunction) -> MetaGradient:
    """`how` itself, or the function as a meta-gradient."""
    return how if isinstance(how, MetaGradient) else FunctionGradient(how)  # pyright: ignore[reportCallIssue]
