"""Meta-gradients that evolve a population of meta-parameters."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Likelihood, Metrics
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.population import evaluated
from innerloop.metagrad.base import Draw, MetaGradient, Move


class Objective(Protocol):
    """What the members of a population are judged by."""

    def __call__(self, learner: Learner, tasks: Task) -> tuple[Tensor, Metrics]:
        """The loss of a learner on a batch of tasks, and metrics."""
        ...

    def of_members(
        self, learner: Learner, members: dict[str, Tensor], tasks: Task
    ) -> Tensor:
        """The losses (members,) of the learner with other parameters, by name, each
        (members, *shape).
        """
        ...


class MeanLoss:
    """The learner's own loss, on the same tasks and random draws for every member."""

    def __call__(self, learner: Learner, tasks: Task) -> tuple[Tensor, Metrics]:
        return learner(tasks)

    def of_members(
        self, learner: Learner, members: dict[str, Tensor], tasks: Task
    ) -> Tensor:
        return evaluated(learner, lambda tasks: learner(tasks)[0], members, tasks)


class EvolutionStrategy(MetaGradient):
    """A population of meta-parameters that moves by the losses of its members alone:
    `ask` for members, `tell` their losses.

    Every meta-step evaluates one generation and moves the learner to the parameters
    that `tell` returns. Where tasks are played, members are judged by their reward.
    """

    uses_optimizer: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.objective: Objective = MeanLoss()

    @classmethod
    def supports(cls, learner: type[Learner], tasks: TaskDistribution) -> str | None:
        if not issubclass(learner, cls.requires):
            return f"it needs a {cls.requires.__name__}, and {learner.__name__} is none"
        return None

    def likelihood(self, tasks: TaskDistribution) -> Likelihood | None:
        return tasks.likelihood()

    def prepare(
        self, learner: Learner, tasks: TaskDistribution, generator: torch.Generator
    ) -> None:
        super().prepare(learner, tasks, generator)
        self.objective = tasks.objective() or MeanLoss()
        self.start(learner, generator.initial_seed())

    @abstractmethod
    def start(self, learner: Learner, seed: int) -> None:
        """Create the first generation around the learner's parameters."""

    @abstractmethod
    def ask(self) -> dict[str, Tensor]:
        """The members of the next generation: parameters by name, each (members,
        *shape).
        """

    @abstractmethod
    def tell(self, losses: Tensor) -> dict[str, Tensor]:
        """Learn from the losses (members,) of the members of `ask`; returns the
        parameters to go on with, each (*shape).
        """

    @torch.no_grad()
    def __call__(self, learner: Learner, draw: Draw) -> Move:
        tasks = draw()
        theta = {n: p for n, p in learner.named_parameters() if p.requires_grad}
        loss, metrics = self.objective(learner, tasks)
        members = {name: tensor.to(theta[name]) for name, tensor in self.ask().items()}
        losses = self.objective.of_members(learner, members, tasks)  # (members,)
        best = self.tell(losses.double().nan_to_num(nan=torch.inf).cpu())
        moved = {name: tensor.to(theta[name]) for name, tensor in best.items()}
        return Move(moved, {"loss": loss, **metrics})
