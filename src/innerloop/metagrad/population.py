"""Meta-gradients that evolve a population of meta-parameters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from innerloop.core.learner import Learner, Streaming
from innerloop.core.likelihood import Likelihood, Metrics
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.population import evaluated
from innerloop.engine.rows import rows_of
from innerloop.metagrad.base import Draw, MetaGradient, Move, Update


class Objective(Protocol):
    """What the members of a population minimize. `rng` is for all that it draws."""

    def __call__(
        self, learner: Learner, tasks: Task, rng: torch.Generator
    ) -> tuple[Tensor, Metrics]:
        """The loss of a learner on a batch of tasks, and metrics."""
        ...

    def of_members(
        self,
        learner: Learner,
        members: dict[str, Tensor],
        tasks: Task,
        rng: torch.Generator,
    ) -> Tensor:
        """The losses (members,) of the learner with other parameters, by name, each
        (members, *shape). Torch's global generator is left where it was.
        """
        ...


class MeanLoss:
    """The learner's own loss, on the same tasks and random draws for every member."""

    def __call__(
        self, learner: Learner, tasks: Task, rng: torch.Generator
    ) -> tuple[Tensor, Metrics]:
        return learner(tasks)

    def of_members(
        self,
        learner: Learner,
        members: dict[str, Tensor],
        tasks: Task,
        rng: torch.Generator,
    ) -> Tensor:
        return evaluated(learner, lambda tasks: learner(tasks)[0], members, tasks)


Losses = Callable[[Learner, Task], Tensor]


class Population(MetaGradient):
    """A meta-gradient from the losses of a population of meta-parameters.

    Every meta-step evaluates the members of one generation, all on the same tasks and
    random draws.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.objective: Objective = MeanLoss()
        self.generator = torch.Generator().manual_seed(0)

    def prepare(
        self, learner: Learner, tasks: TaskDistribution, generator: torch.Generator
    ) -> None:
        super().prepare(learner, tasks, generator)
        self.generator = generator
        self.objective = tasks.objective() or MeanLoss()

    @abstractmethod
    def generation(self, learner: Learner) -> dict[str, Tensor]:
        """The members of the next generation: parameters by name, each (members,
        *shape). They depend on the learner and on this object's state alone.
        """

    @abstractmethod
    def step(self, learner: Learner, tasks: Task, losses: Losses) -> Update:
        """One meta-step, in which `losses(learner, tasks)` draws the next generation
        and returns the losses (members,) of its members.
        """

    def __call__(self, learner: Learner, draw: Draw) -> Update:
        return self.step(learner, draw(), self.losses)

    @torch.no_grad()
    def losses(self, learner: Learner, tasks: Task) -> Tensor:
        """The losses (members,) of the next generation, of which every process computes
        a share.
        """
        members = self.generation(learner)
        share = self.workers.share(len(next(iter(members.values()))), what="members")
        own = {name: share.of(tensor) for name, tensor in members.items()}
        with rows_of(share):
            losses = self.objective.of_members(learner, own, tasks, self.generator)
        return self.workers.gather(losses, share)

    def part(self, learner: Learner, draw: Draw) -> tuple[Update, float | None]:
        return self(learner, draw), None  # the members are shared, not the tasks

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"].cpu())


class EvolutionStrategy(Population):
    """A population of meta-parameters that moves by the losses of its members alone:
    `ask` for members, `tell` their losses.

    Every meta-step evaluates one generation and moves the learner to the parameters
    that `tell` returns. In environments, the objective is the reward.
    """

    uses_optimizer: ClassVar[bool] = False

    @classmethod
    def supports(cls, learner: type[Learner], tasks: TaskDistribution) -> str | None:
        if not issubclass(learner, cls.requires):
            return f"it needs a {cls.requires.__name__}; got {learner.__name__}"
        if tasks.played and not issubclass(learner, Streaming):
            return (
                "to act in an environment it needs a learner that streams, such as RL2 "
                f"or NEAT, and {learner.__name__} does not"
            )
        return None

    def likelihood(self, tasks: TaskDistribution) -> Likelihood | None:
        return tasks.likelihood()

    def prepare(
        self, learner: Learner, tasks: TaskDistribution, generator: torch.Generator
    ) -> None:
        super().prepare(learner, tasks, generator)
        self.start(learner)

    @abstractmethod
    def start(self, learner: Learner) -> None:
        """Create the first generation around the learner's parameters; `generator` is
        for all that the strategy draws.
        """

    @abstractmethod
    def ask(self) -> dict[str, Tensor]:
        """The members of the next generation: parameters by name, each (members,
        *shape).
        """

    @abstractmethod
    def tell(self, losses: Tensor) -> dict[str, Tensor]:
        """Learn from the losses (members,) of the members of `ask`; returns the
        parameters to continue with, each (*shape).
        """

    def generation(self, learner: Learner) -> dict[str, Tensor]:
        return _like_parameters(learner, self.ask())

    @torch.no_grad()
    def step(self, learner: Learner, tasks: Task, losses: Losses) -> Move:
        loss, metrics = self.objective(learner, tasks, self.generator)
        found = losses(learner, tasks).cpu().double().nan_to_num(nan=torch.inf)
        moved = _like_parameters(learner, self.tell(found))
        return Move(moved, {"loss": loss, **metrics})


def _like_parameters(learner: Learner, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the name of a parameter, of its type and on its device."""
    theta = dict(learner.named_parameters())
    return {name: tensor.to(theta[name]) for name, tensor in tensors.items()}
