"""Baselines for tabular MDPs, and planning."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from innerloop.rl.baselines import Baseline

if TYPE_CHECKING:
    from innerloop.rl.mdps import MDPs


def optimal_q(R: Tensor, P: Tensor, horizon: int) -> Tensor:
    """The action values Q (horizon, ..., S, A) of the optimal policy at every step of
    an episode, by value iteration (Bellman 1957), from rewards R (..., S, A) and
    transitions P (..., S, A, S).
    """
    Q, rows = R, [R]
    for _ in range(horizon - 1):
        Q = R + torch.einsum("...sat,...t->...sa", P, Q.amax(-1))
        rows.append(Q)
    return torch.stack(rows[::-1])


class ModelBaseline(Baseline):
    """Follows, in every episode, the optimal policy of one model, computed from the
    posterior of rewards and transitions.

    prior: the prior mean of the mean rewards. Their true mean is 1; the published
    results use 0, which explores less.
    """

    environment: MDPs
    prior = 1.0

    def begin(self, rows: int) -> None:
        shape = rows, self.environment.states, self.environment.actions
        self.pulls, self.sums = torch.zeros(shape), torch.zeros(shape)
        self.alpha = torch.ones(*shape, self.environment.states)  # of the Dirichlet
        self.rows = torch.arange(rows)
        self.step, self.plan = 0, torch.empty(0)

    @abstractmethod
    def model(self) -> tuple[Tensor, Tensor]:
        """Rewards (n, S, A) and transitions (n, S, A, S) to plan with."""

    def choose(self, x: Tensor) -> Tensor:
        if self.step == 0:
            # (horizon, n, S, A)
            self.plan = optimal_q(*self.model(), self.environment.horizon)
        return self.argmax(self.plan[self.step, self.rows, x.argmax(-1)])

    def update(self, x: Tensor, action: Tensor, reward: Tensor, next_x: Tensor) -> None:
        s = x.argmax(-1)
        self.pulls[self.rows, s, action] += 1
        self.sums[self.rows, s, action] += reward
        self.alpha[self.rows, s, action, next_x.argmax(-1)] += 1
        self.step = (self.step + 1) % self.environment.horizon

    def mean_model(self) -> tuple[Tensor, Tensor]:
        """The posterior means of rewards (prior and noise with standard deviation 1)
        and of transitions (Dirichlet).
        """
        rewards = (self.prior + self.sums) / (1 + self.pulls)
        return rewards, self.alpha / self.alpha.sum(-1, keepdim=True)

    def sampled_model(self) -> tuple[Tensor, Tensor]:
        """A sample from the posterior."""
        noise = self.normal(*self.pulls.shape) / (1 + self.pulls).sqrt()
        share = self.gamma(self.alpha)
        return self.mean_model()[0] + noise, share / share.sum(-1, keepdim=True)


class PSRL(ModelBaseline):
    """Posterior sampling: every episode follows the optimal policy of an MDP that is
    sampled from the posterior.

    Strens 2000, "A Bayesian framework for reinforcement learning"; Osband, Russo and
    Van Roy 2013, "(More) efficient reinforcement learning via posterior sampling",
    arXiv:1306.0940, Algorithm 1.
    """

    def model(self) -> tuple[Tensor, Tensor]:
        return self.sampled_model()


class PSRLPrior0(PSRL):
    """PSRL with a prior mean of 0."""

    prior = 0.0


class GreedyModel(ModelBaseline):
    """Every episode follows the optimal policy of the posterior mean MDP."""

    def model(self) -> tuple[Tensor, Tensor]:
        return self.mean_model()


class GreedyModelPrior0(GreedyModel):
    """The same with a prior mean of 0."""

    prior = 0.0


class EpsilonGreedyModel(GreedyModel):
    """The same, with random actions sometimes."""

    epsilon = 0.1

    def choose(self, x: Tensor) -> Tensor:
        return self.explore(self.epsilon, super().choose(x))
