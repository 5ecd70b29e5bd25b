"""Baselines for bandits."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from innerloop.rl.baselines import Baseline

if TYPE_CHECKING:
    from innerloop.rl.bandits import Bandits


class ArmBaseline(Baseline):
    """Pulls the arm with the highest index, computed from the number of pulls (n, k) of
    every arm and the sum of its rewards (n, k).
    """

    environment: Bandits

    def begin(self, rows: int) -> None:
        self.pulls = torch.zeros(rows, self.environment.actions)
        self.sums = torch.zeros(rows, self.environment.actions)
        self.time = 0

    def update(self, x: Tensor, action: Tensor, reward: Tensor, next_x: Tensor) -> None:
        self.pulls.scatter_add_(1, action[:, None], torch.ones(len(action), 1))
        self.sums.scatter_add_(1, action[:, None], reward[:, None])
        self.time += 1

    def choose(self, x: Tensor) -> Tensor:
        return self.argmax(self.index())

    @abstractmethod
    def index(self) -> Tensor:
        """The index (n, k) of every arm."""

    def mean(self) -> Tensor:
        """The posterior mean (n, k) of every arm, from a prior Beta(1, 1), or a
        standard normal prior.
        """
        if self.environment.rewards == "bernoulli":
            return (1 + self.sums) / (2 + self.pulls)
        return self.sums / (1 + self.pulls)

    def posterior_sample(self) -> Tensor:
        """A sample (n, k) from the posterior of every arm."""
        if self.environment.rewards == "bernoulli":
            a, b = (
                self.gamma(1 + count) for count in (self.sums, self.pulls - self.sums)
            )
            return a / (a + b)
        return self.mean() + self.normal(*self.pulls.shape) / (1 + self.pulls).sqrt()


class Greedy(ArmBaseline):
    """The arm with the best posterior mean."""

    def index(self) -> Tensor:
        return self.mean()


class EpsilonGreedy(Greedy):
    """The arm with the best posterior mean, or sometimes a random one."""

    epsilon = 0.02

    def choose(self, x: Tensor) -> Tensor:
        return self.explore(self.epsilon, super().choose(x))


class UCB1(ArmBaseline):
    """The arm with the highest upper confidence bound, mean + c sqrt(2 log t / pulls),
    with one success and one failure counted before the first pull.

    Auer, Cesa-Bianchi and Fischer 2002, "Finite-time analysis of the multiarmed bandit
    problem", figure 1, where c = 1; a smaller c is far better for few pulls (Duan et
    al. 2016, arXiv:1611.02779, appendix).
    """

    c = 0.2

    def index(self) -> Tensor:
        width = (2 * math.log(1 + self.time) / (2 + self.pulls)).sqrt()
        return self.mean() + self.c * width


class Thompson(ArmBaseline):
    """The arm that is best in a sample from the posterior.

    Thompson 1933, "On the likelihood that one unknown probability exceeds another in
    view of the evidence of two samples".
    """

    def index(self) -> Tensor:
        return self.posterior_sample()


class OptimisticThompson(ArmBaseline):
    """Thompson sampling with samples that are never below the posterior mean.

    May, Korda, Lee and Leslie 2012, "Optimistic Bayesian sampling in contextual-bandit
    problems".
    """

    def index(self) -> Tensor:
        return torch.maximum(self.posterior_sample(), self.mean())


class Gittins(ArmBaseline):
    """The arm with the highest finite-horizon Gittins index for Bernoulli arms, by
    dynamic programming.

    Gittins 1979, "Bandit processes and dynamic allocation indices". The index is
    optimal for infinitely many discounted pulls, and nearly so for a finite number:
    Lattimore 2016, "Regret analysis of the finite-horizon Gittins index strategy for
    multi-armed bandits", arXiv:1511.06014.
    """

    def index(self) -> Tensor:
        left = self.environment.horizon - self.time
        successes = self.sums.long()
        table = gittins(self.environment.horizon)[left]
        return table[successes, self.pulls.long() - successes]


@cache
def gittins(pulls: int, grid: int = 512) -> dict[int, Tensor]:
    """Finite-horizon Gittins indices of a Bernoulli arm with prior Beta(1, 1): for
    every number m of remaining pulls, a table by (successes, failures).

    The index is the constant reward w at which pulling the arm first, and taking w for
    all remaining pulls whenever that is better, is worth as much as taking w m times.
    V_m = max(m w, p (1 + V_(m-1) after a success) + (1 - p) V_(m-1) after a failure)
    with p the posterior mean, solved on a grid of w, with linear interpolation.
    """
    w = torch.linspace(0, 1, grid, dtype=torch.float64)
    # (successes, failures, grid)
    value = torch.zeros(pulls + 2, pulls + 2, grid, dtype=torch.float64)
    tables = {}
    for m in range(1, pulls + 1):
        size = pulls - m + 1  # the counts so far are 0 to pulls - m
        count = torch.arange(size, dtype=torch.float64)
        # (size, size, 1)
        p = ((1 + count[:, None]) / (2 + count[:, None] + count))[..., None]
        success, failure = value[1 : size + 1, :size], value[:size, 1 : size + 1]
        pull = p * (1 + success) + (1 - p) * failure
        gain = pull - m * w  # (size, size, grid) decreasing in w
        # the last grid point at which pulling is better
        last = (gain > 0).sum(-1, keepdim=True).clamp(1, grid - 1) - 1
        low, high = gain.gather(-1, last), gain.gather(-1, last + 1)
        index = w[last] + (w[1] - w[0]) * low / (low - high)
        tables[m] = index[..., 0].float()
        value = torch.maximum(pull, (m * w).expand_as(pull))
    return tables
