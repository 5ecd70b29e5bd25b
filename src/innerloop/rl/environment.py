"""Tasks that are played: what is learned from does not lie there, it comes of
acting.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError


class Environment(TaskDistribution):
    """Tasks that are played, many side by side, on tensors.

    A task is a row of parameters (p,): the odds of a bandit's arms, a goal. `sample`
    gives such rows as the inputs of a task's support and query set; `rl.play` makes
    examples of them, whose x is what was seen and whose y is [action | reward | over]:
    the action, one-hot where it is discrete, the reward for it, and 1 where it ended an
    episode. `spec` says so: reals, x_shape, actions + 2.
    An episode has at most `horizon` steps, and a trial `episodes`: a learner that
    streams carries its state through a trial, not beyond it.
    """

    discrete: ClassVar[bool] = True

    def __init__(
        self, x_shape: tuple[int, ...], actions: int, horizon: int, episodes: int = 1
    ):
        if min(actions, horizon, episodes) < 1:
            raise InnerloopError(
                f"an environment needs at least one action, step and episode, got {actions}, {horizon} and {episodes}"
            )
        self.actions, self.horizon, self.episodes = actions, horizon, episodes
        self.spec = TaskSpec("reals", x_shape, actions + 2)

    @property
    def steps(self) -> int:
        """The steps of a trial."""
        return self.horizon * self.episodes

    def sample(self, n: int, generator: torch.Generator) -> Task:
        parameters = self.draw(n, generator)[:, None]  # (n, 1, p)
        examples = Examples(parameters, parameters[..., :0])
        return Task(examples, examples)

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """The parameters (n, p) of n tasks."""

    @abstractmethod
    def start(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Where episodes of tasks with parameters (n, p) begin: (n, w)."""

    @abstractmethod
    def look(self, parameters: Tensor, where: Tensor) -> Tensor:
        """What is seen at `where` (n, w): (n, *x_shape)."""

    @abstractmethod
    def step(
        self,
        parameters: Tensor,
        where: Tensor,
        action: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """After an action (n, actions): where it led to (n, w), the reward (n,), and
        whether the episode is over (n,), beside the horizon.
        """

    def expected(
        self, parameters: Tensor, where: Tensor, action: Tensor
    ) -> Tensor | None:
        """The mean (n,) of the reward that `step` draws for an action (n, actions),
        where it can be told.
        """
        return None

    def credit(
        self, parameters: Tensor, where: Tensor, action: Tensor
    ) -> Tensor | None:
        """What training may go by instead of the reward (n,) of an action (n, actions):
        it ranks ways of acting the same, with less chance in it. That is the mean of
        the reward, where it can be told, unless an environment knows better.
        """
        return self.expected(parameters, where, action)
