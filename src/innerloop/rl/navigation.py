"""Walking to a goal in the plane."""

from __future__ import annotations

import torch
from torch import Tensor

from innerloop.rl.environment import Environment
from innerloop.tasks.splits import check_split

STEP = 0.1  # the longest, along each axis
NEAR = 0.01  # an episode is over so near to the goal


class Navigation(Environment):
    """A point walks in the plane, sees where it is, and is rewarded for being near to a
    goal that it does not see.

    Finn, Abbeel and Levine 2017, "Model-agnostic meta-learning for fast adaptation of
    deep networks", arXiv:1703.03400, section 5.3: goals anywhere in the unit square
    around the start, the reward is minus the squared distance to the goal, an episode
    is over within 0.01 of it or after 100 steps, and 20 episodes are played before a
    step is taken. An action (2,) is clipped to 1, and 1 is a step of 0.1.
    """

    discrete = False

    def __init__(self, horizon: int = 100, episodes: int = 20):
        super().__init__((2,), 2, horizon, episodes)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, 2, generator=generator) - 0.5

    def start(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        return torch.zeros_like(parameters)

    def look(self, parameters: Tensor, where: Tensor) -> Tensor:
        return where

    def step(
        self,
        parameters: Tensor,
        where: Tensor,
        action: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        where = where + STEP * action.clamp(-1, 1)  # (n, 2)
        squared = (where - parameters).square().sum(-1)  # (n,)
        return where, -squared, squared < NEAR**2


def navigation(
    split: str = "train", *, horizon: int = 100, episodes: int = 20
) -> Navigation:
    """Walking to unseen goals in the plane, Finn et al. 2017, arXiv:1703.03400; every
    split draws goals from the same square, none comes twice.
    """
    check_split(split)
    return Navigation(horizon, episodes)
