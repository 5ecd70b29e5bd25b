"""Multi-armed bandits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor

from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Range
from innerloop.rl.bandit_baselines import (
    UCB1,
    EpsilonGreedy,
    Gittins,
    Greedy,
    OptimisticThompson,
    Thompson,
)
from innerloop.rl.baselines import Baseline
from innerloop.rl.environment import Environment
from innerloop.tasks.splits import task_source

Rewards = Literal["bernoulli", "gaussian"]


class Bandits(Environment):
    """Bandits with k arms and n pulls, see `bandits`.

    A task is the means (k,) of the arms. The observation is always zero; a learner sees
    its last action and reward.
    """

    def __init__(
        self,
        arms: int = 5,
        pulls: int = 100,
        rewards: Rewards = "bernoulli",
        split: str = "train",
    ):
        if rewards not in ("bernoulli", "gaussian"):
            raise InnerloopError(
                f'rewards must be "bernoulli" or "gaussian"; got {rewards!r}'
            )
        super().__init__((1,), arms, horizon=pulls, split=split)
        self.rewards: Rewards = rewards
        self.title = f"{rewards.capitalize()} bandits with {arms} arms"

    def sample_params(self, n: int, generator: torch.Generator) -> Tensor:
        draw = torch.rand if self.rewards == "bernoulli" else torch.randn
        return draw(n, self.actions, generator=generator)

    def start(self, params: Tensor, rng: torch.Generator) -> Tensor:
        return params.new_zeros(len(params), 1)

    def observe(self, params: Tensor, state: Tensor) -> Tensor:
        return state

    def step(
        self, params: Tensor, state: Tensor, action: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = self.expected_reward(params, state, action)
        draw = torch.rand if self.rewards == "bernoulli" else torch.randn
        noise = draw(mean.shape, generator=rng, device=rng.device).to(mean)
        bernoulli = self.rewards == "bernoulli"
        reward = (noise < mean).to(mean.dtype) if bernoulli else mean + noise
        return state, reward, torch.zeros_like(mean, dtype=torch.bool)

    def expected_reward(self, params: Tensor, state: Tensor, action: Tensor) -> Tensor:
        return (params * action).sum(-1)

    def baselines(self) -> dict[str, Callable[..., Baseline]]:
        known: dict[str, Callable[..., Baseline]] = super().baselines()
        if self.rewards == "bernoulli":
            known["Gittins index"] = Gittins
        return known | {
            "Thompson": Thompson,
            "optimistic Thompson": OptimisticThompson,
            "UCB1": UCB1,
            "epsilon-greedy": EpsilonGreedy,
            "greedy": Greedy,
        }


@task_source
def bandits(
    split: str = "train",
    *,
    arms: Annotated[int, Range(2)] = 5,
    pulls: Count = 100,
    rewards: Rewards = "bernoulli",
) -> Bandits:
    """Bandits: find the best of several arms by pulling them.

    Reference: Duan, Schulman, Chen, Bartlett, Sutskever and Abbeel 2016, "RL^2:
    fast reinforcement learning via slow reinforcement learning", arXiv:1611.02779,
    section 3.1.

    Bernoulli arms give a reward of 1 with a probability that is uniform in 0..1.
    Gaussian arms give normal rewards of standard deviation 1, around means that are
    standard normal. All splits draw from the same continuum, from different seeds.

    Args:
        arms: number of arms.
        pulls: number of pulls in a trial.
        rewards: distribution of the rewards.
    """
    return Bandits(arms, pulls, rewards, split)
