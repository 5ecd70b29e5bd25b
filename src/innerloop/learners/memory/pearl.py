"""PEARL: the task as a latent context, inferred from transitions in any order."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples
from innerloop.engine.options import Count, CountOrZero
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.memory.recurrent import Memory, Recurrent

SMALLEST = 1e-3  # variance of a factor


class Posterior(NamedTuple):
    """A product of Gaussians, and what the next factor needs."""

    precision: Tensor  # (..., latent)  sum of 1 / sigma^2
    weighted: Tensor  # (..., latent)  sum of mu / sigma^2
    last: Tensor  # (..., features + 1)  the last observation, and 1; 0 before it


class PEARL(Recurrent):
    """PEARL: a latent context, inferred as a product of Gaussian factors.

    q(z | c) = N(0, 1) prod_n N(z; mu(c_n), sigma^2(c_n)), c_n = [x_n, a_n, r_n, d_n,
    x_(n+1)]; policy and value are networks of [x, E z, std z]

    Reference: Rakelly, Zhou, Quillen, Finn and Levine 2019, "Efficient off-policy
    meta-reinforcement learning via probabilistic context variables", arXiv:1903.08254,
    section 4.1 (the factors of the posterior).

    Every transition contributes a factor, so that their order does not matter. The
    paper trains off-policy: soft actor-critic from a replay buffer, contexts that are
    sampled from recent data, and a KL term that keeps q near its prior. Here the
    learner is trained on its own trials, as RL2 is, through the policy and the value.
    The policy reads the mean and the standard deviation of q after every step instead
    of a sample for an episode, as in Zintgraf, Shiarlis, Igl, Schulze, Gal, Hofmann and
    Whiteson 2020, "VariBAD: a very good method for Bayes-adaptive deep RL via
    meta-learning", arXiv:1910.08348; so there is no KL term, and the prior is a factor
    itself.

    Objective: the reward of whole trials, maximized by the meta-gradient `ppo`.

    State: the sums of 1 / sigma^2 and mu / sigma^2, the last observation, and the last
    action, its reward and whether it ended an episode, as one row.

    Args:
        encoder: the network that encodes an observation.
        normal: the normalization of features.
        features: size of the features.
        y_dim: size of a target.
        out_dim: number of outputs.
        hidden: size of the two hidden layers of each network.
        latent: size of z; without it, a policy for all tasks that does not adapt.
    """

    _: KW_ONLY
    hidden: Count = 128
    latent: CountOrZero = 5
    likelihood: Likelihood = Categorical()

    home = "bandits"
    kinds = ("reals",)
    batched_step = True
    defaults = MetaTrainConfig(
        batch=512, optimizer="Adam", lr=1e-3, warmup=0.01, clip=0.5, meta_gradient="ppo"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        transition = 2 * self.features + self.y_dim
        self.factor = _mlp(transition, self.hidden, 2 * self.latent)
        self.actor = _mlp(self.features + 2 * self.latent, self.hidden, self.out_dim)
        self.eval()

    def start(self) -> Memory:
        p = next(self.actor.parameters())
        one = p.new_ones(self.latent)
        return Posterior(one, torch.zeros_like(one), p.new_zeros(self.features + 1))

    def step(self, memory: Memory, inputs: Tensor) -> tuple[Tensor, Memory]:
        x, y = inputs.split([self.features, self.y_dim], -1)
        before, seen = memory.last[..., :-1], memory.last[..., -1:]
        precision, weighted = self.natural(torch.cat([before, y, x], -1))
        precision = memory.precision + seen * precision  # (..., latent)
        weighted = memory.weighted + seen * weighted
        last = torch.cat([x, torch.ones_like(seen)], -1)
        return self.act(x, precision, weighted), Posterior(precision, weighted, last)

    def natural(self, transition: Tensor) -> tuple[Tensor, Tensor]:
        """1 / sigma^2 and mu / sigma^2 (..., latent) of the factors of transitions."""
        if not self.latent:
            empty = transition[..., :0]
            return empty, empty
        mu, raw = self.factor(transition).chunk(2, -1)
        precision = 1 / (SMALLEST + F.softplus(raw))
        return precision, precision * mu

    def act(self, x: Tensor, precision: Tensor, weighted: Tensor) -> Tensor:
        """The outputs (..., out_dim) for features (..., features)."""
        return self.actor(torch.cat([x, weighted / precision, precision.rsqrt()], -1))

    def scan_batch(self, examples: Examples) -> Tensor:
        # (n, steps, features)
        x = self.embed(examples.x.flatten(0, 1)).unflatten(0, examples.x.shape[:2])
        y = examples.y[:, :-1]
        precision, weighted = self.natural(torch.cat([x[:, :-1], y, x[:, 1:]], -1))
        first = precision.new_zeros(len(x), 1, self.latent)
        precision = 1 + torch.cat([first, precision], 1).cumsum(1)
        weighted = torch.cat([first, weighted], 1).cumsum(1)
        return self.act(x, precision, weighted)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Module:
    if not outputs:
        return nn.Identity()
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.Tanh(),
        nn.Linear(hidden, hidden),
        nn.Tanh(),
        nn.Linear(hidden, outputs),
    )
