"""Baselines: agents that know the family of the tasks and need no meta-training."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.rl.rollout import Agent

if TYPE_CHECKING:
    from innerloop.rl.environment import Environment


class Baseline(Agent):
    """An agent for discrete actions that knows the family of the tasks, and of a task
    what it has observed.

    rng: draws its random choices.
    """

    def __init__(self, environment: Environment, rng: torch.Generator):
        self.environment, self.rng = environment, rng

    def begin(self, rows: int) -> None:
        pass

    @abstractmethod
    def choose(self, x: Tensor) -> Tensor:
        """The indices (n,) of the actions for observations x (n, *x_shape)."""

    def update(self, x: Tensor, action: Tensor, reward: Tensor, next_x: Tensor) -> None:
        """Learn from the indices of the actions (n,), the rewards (n,), and the
        observations before and after the step.
        """

    def act(self, x: Tensor) -> tuple[Tensor, Tensor]:
        action = F.one_hot(self.choose(x), self.environment.actions).to(x.dtype)
        return action, x.new_zeros(len(x), 0)

    def learn(self, x: Tensor, y: Tensor, next_x: Tensor) -> None:
        self.update(x, y[:, :-2].argmax(-1), y[:, -2], next_x)

    def gamma(self, shape: Tensor) -> Tensor:
        """Samples of gamma distributions with these shapes and a scale of 1; divided by
        their sum, they are samples of a beta or Dirichlet distribution.
        """
        return torch._standard_gamma(shape, generator=self.rng)  # pyright: ignore[reportPrivateImportUsage]

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.rng)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.rng)

    def argmax(self, value: Tensor) -> Tensor:
        """The best actions (n,) by values (n, actions); ties are broken at random."""
        best = value == value.max(-1, keepdim=True).values
        return torch.where(best, self.uniform(*value.shape), -1.0).argmax(-1)

    def explore(self, epsilon: float, action: Tensor) -> Tensor:
        """Actions (n,), each replaced by a random one with probability `epsilon`."""
        random = RandomActions(self.environment, self.rng).choose(action)
        return torch.where(self.uniform(*action.shape) < epsilon, random, action)


class RandomActions(Baseline):
    """Uniformly random actions; continuous ones are in -1..1."""

    def act(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.environment.discrete:
            return super().act(x)
        action = 2 * self.uniform(len(x), self.environment.actions) - 1
        return action.to(x), x.new_zeros(len(x), 0)

    def choose(self, x: Tensor) -> Tensor:
        return torch.randint(self.environment.actions, (len(x),), generator=self.rng)
