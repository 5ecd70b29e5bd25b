"""What outer loops have in common that evolve a population."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.meta_train import Precision, Step, meta_train
from innerloop.core.metagrad import Grads
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.population import evaluated


class Objective(Protocol):
    """What a population is judged by."""

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


class Strategy(ABC):
    """A population of meta-parameters that moves by the losses of its members alone:
    `ask` for members, `tell` their losses.

    It is a meta-gradient too: called, it evaluates a generation on the tasks, and gives
    the way from where the population has come to back to where the learner is, so that
    one step of plain gradient descent at a rate of 1 goes there. Its loss and metrics
    are those of the learner as it is. objective: what members are judged by, the
    learner's loss where nothing is said; or, say, what they gain by playing.
    """

    def __init__(self, objective: Objective | None = None):
        self.objective: Objective = objective or MeanLoss()

    @abstractmethod
    def ask(self) -> dict[str, Tensor]:
        """The members of the next generation: parameters by name, each (members,
        *shape).
        """

    @abstractmethod
    def tell(self, losses: Tensor) -> dict[str, Tensor]:
        """Learn from the losses (members,) of those asked for; gives the parameters to
        go on with, each (*shape).
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that the next generations depend on: plain data and tensors."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""

    def __call__(self, learner: Learner, tasks: Task) -> tuple[Grads, Metrics]:
        with torch.no_grad():
            theta = {
                name: p for name, p in learner.named_parameters() if p.requires_grad
            }
            loss, metrics = self.objective(learner, tasks)
            members = {
                name: tensor.to(theta[name]) for name, tensor in self.ask().items()
            }
            losses = self.objective.of_members(learner, members, tasks)  # (members,)
            best = self.tell(losses.double().nan_to_num(nan=torch.inf).cpu())
        return {
            name: theta[name] - tensor.to(theta[name]) for name, tensor in best.items()
        }, {"loss": loss, **metrics}


def evolve(
    learner: Learner,
    tasks: TaskDistribution,
    strategy: Strategy,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    batch: int = 32,
    precision: Precision = "float32",
    generator: torch.Generator | None = None,
    start: int = 0,
    elapsed: float = 0.0,
) -> Iterator[Step]:
    """Meta-train `learner` by a strategy: every `next` is one generation, evaluated on
    one batch of tasks. Otherwise as `meta_train`.
    """
    descent = torch.optim.SGD(
        [p for p in learner.parameters() if p.requires_grad], lr=1.0
    )
    return meta_train(
        learner,
        tasks,
        steps=steps,
        seconds=seconds,
        batch=batch,
        meta_gradient=strategy,
        optimizer=descent,
        precision=precision,
        generator=generator,
        start=start,
        elapsed=elapsed,
    )
