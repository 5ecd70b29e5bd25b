"""Bandits: slot machines with several arms, of which one is the best, and nobody knows
which.
"""

from __future__ import annotations

import torch
from torch import Tensor

from innerloop.engine.errors import InnerloopError
from innerloop.rl.environment import Environment
from innerloop.tasks.splits import check_split


class Bandits(Environment):
    """k arms, n pulls. A task is the means (k,) of the arms; nothing is seen but the
    last arm and what it gave.

    rewards: "bernoulli": 1 with a probability that is uniform in 0..1, else 0 (Duan et
    al. 2016, arXiv:1611.02779, section 3.1); "gaussian": normal with a deviation of 1
    around a mean that is itself standard normal.
    """

    def __init__(self, arms: int = 5, pulls: int = 100, rewards: str = "bernoulli"):
        if rewards not in ("bernoulli", "gaussian"):
            raise InnerloopError(
                f'rewards are "bernoulli" or "gaussian", not {rewards!r}'
            )
        super().__init__((1,), arms, horizon=pulls)
        self.rewards = rewards

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return (torch.rand if self.rewards == "bernoulli" else torch.randn)(
            n, self.actions, generator=generator
        )

    def start(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        return parameters.new_zeros(len(parameters), 1)

    def look(self, parameters: Tensor, where: Tensor) -> Tensor:
        return where

    def step(
        self,
        parameters: Tensor,
        where: Tensor,
        action: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = (parameters * action).sum(-1)  # (n,)
        draw = torch.rand if self.rewards == "bernoulli" else torch.randn
        luck = draw(mean.shape, generator=generator, device=generator.device).to(mean)
        reward = (
            (luck < mean).to(mean.dtype) if self.rewards == "bernoulli" else mean + luck
        )
        return where, reward, torch.zeros_like(mean, dtype=torch.bool)

    def expected(self, parameters: Tensor, where: Tensor, action: Tensor) -> Tensor:
        return (parameters * action).sum(-1)


def bandits(
    split: str = "train", *, arms: int = 5, pulls: int = 100, rewards: str = "bernoulli"
) -> Bandits:
    """Bandits of `arms` arms and `pulls` pulls; every split draws from the same
    continuum, in which no task comes twice.
    """
    check_split(split)
    return Bandits(arms, pulls, rewards)
