"""Outputs as a policy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.likelihood import Likelihood, Metrics
from innerloop.engine.precision import widened


@dataclass(frozen=True)
class Policy(Likelihood):
    """Outputs are logits of actions, or means and raw scales of continuous ones; with
    `value` the last output is the value of what is seen.

    Targets are played: y (m, actions + 2) is [action | weight | over], and the weight
    of an action, its advantage, say, multiplies its log probability: the negative
    log-likelihood is the loss of REINFORCE.
    Williams 1992, "Simple statistical gradient-following algorithms for connectionist
    reinforcement learning", section 4
    """

    discrete: bool = True
    value: bool = False
    score = "reward"
    higher_is_better = True

    def out_dim(self, y_dim: int) -> int:
        return (y_dim - 2) * (1 if self.discrete else 2) + self.value

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the policy reads (..., actions or twice as many), and the value
        (...,).
        """
        outputs = widened(outputs)
        return (outputs[..., :-1], outputs[..., -1]) if self.value else (outputs, None)

    def moments(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (..., actions) of continuous actions."""
        mean, raw = read.chunk(2, -1)
        return mean, 0.05 + F.softplus(raw)

    def draw(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """An action (..., actions) for every row of outputs: one-hot, or reals."""
        read = self.split(outputs.detach())[0]
        if self.discrete:
            noise = torch.rand(
                read.shape,
                generator=generator,
                device=generator.device if generator else read.device,
            ).to(read)
            # Gumbel's way
            best = (read - (-noise.clamp(1e-12, 1 - 1e-7).log()).log()).argmax(-1)
            return F.one_hot(best, read.shape[-1]).to(read.dtype)
        mean, scale = self.moments(read)
        return mean + scale * torch.randn(
            mean.shape,
            generator=generator,
            device=generator.device if generator else mean.device,
        ).to(mean)

    def log_prob(self, outputs: Tensor, action: Tensor) -> Tensor:
        """The log probability (...,) of actions (..., actions)."""
        read = self.split(outputs)[0]
        if self.discrete:
            return (action * F.log_softmax(read, -1)).sum(-1)
        mean, scale = self.moments(read)
        return (
            -0.5 * ((action - mean) / scale).square()
            - scale.log()
            - 0.5 * math.log(2 * math.pi)
        ).sum(-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        """In nats (...,)."""
        read = self.split(outputs)[0]
        if self.discrete:
            log_p = F.log_softmax(read, -1)
            return -(log_p.exp() * log_p).sum(-1)
        return (self.moments(read)[1].log() + 0.5 * math.log(2 * math.pi * math.e)).sum(
            -1
        )

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        return -(self.log_prob(outputs, y[..., :-2]) * y[..., -2]).mean()

    def metrics(self, outputs: Tensor, y: Tensor) -> Metrics:
        return {
            "reward": y[..., -2].mean(),
            "entropy": self.entropy(outputs.detach()).mean(),
        }

    def mean(self, outputs: Tensor) -> Tensor:
        """The probabilities of actions, or their means (m, actions)."""
        read = self.split(outputs)[0]
        return read.softmax(-1) if self.discrete else read.chunk(2, -1)[0]
