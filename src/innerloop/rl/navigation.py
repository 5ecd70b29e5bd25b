"""Navigation to a goal in the plane."""

from __future__ import annotations

import torch
from torch import Tensor

from innerloop.engine.options import Count
from innerloop.rl.environment import Environment
from innerloop.tasks.splits import task_source

STEP = 0.1  # the longest step along each axis
NEAR = 0.01  # the distance to the goal at which an episode ends


class Navigation(Environment):
    """A point moves in the plane toward a goal, see `navigation`.

    A task is the goal (2,). The observation is the position. An action (2,) is clipped
    to -1..1 and moves the point by 0.1 times it.
    """

    discrete = False

    def __init__(self, horizon: int = 100, episodes: int = 20, split: str = "train"):
        super().__init__((2,), 2, horizon, episodes, split)

    def sample_params(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, 2, generator=generator) - 0.5

    def start(self, params: Tensor, rng: torch.Generator) -> Tensor:
        return torch.zeros_like(params)

    def observe(self, params: Tensor, state: Tensor) -> Tensor:
        return state

    def step(
        self, params: Tensor, state: Tensor, action: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        state = state + STEP * action.clamp(-1, 1)  # (n, 2)
        squared = (state - params).square().sum(-1)  # (n,)
        return state, -squared, squared < NEAR**2


@task_source
def navigation(
    split: str = "train", *, horizon: Count = 100, episodes: Count = 20
) -> Navigation:
    """Navigation: move a point in the plane to an unobserved goal.

    Reference: Finn, Abbeel and Levine 2017, "Model-agnostic meta-learning for fast
    adaptation of deep networks", arXiv:1703.03400, section 5.3.

    Goals are uniform in the unit square around the start, the reward is the negative
    squared distance to the goal, and an episode ends within 0.01 of it. All splits draw
    from the same square, from different seeds.

    Args:
        horizon: most steps in an episode.
        episodes: episodes before an update, and in a trial.
    """
    return Navigation(horizon, episodes, split)
