"""What neural processes with a latent variable share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Gaussian, Likelihood, Metrics
from innerloop.core.task import Examples, Task
from innerloop.engine.errors import InnerloopError
from innerloop.learners.neural_processes.layers import divergence, mixed

Told = Any  # what the support set says without chance: a pytree of tensors


class LatentProcess(Learner):
    """A learner that answers from what the support set says, and from a random z for
    what it leaves open; trained by its evidence bound.

    State: what the support set says, and draws of z (draws, latent).
    """

    pairs: nn.Module
    posterior: nn.Module
    decoder: nn.Module
    _: KW_ONLY
    latent: int = 128
    width: int = 128
    draws: int = 32
    likelihood: Likelihood = Gaussian(learned_scale=True)

    kinds = ("reals",)
    regression_defaults: ClassVar[dict[str, Any]] = {
        "likelihood": Gaussian(learned_scale=True)
    }

    def __post_init__(self) -> None:
        if self.likelihood != Gaussian(learned_scale=True):
            raise InnerloopError(
                f"a mixture over z has a mean and a scale, which {self.likelihood} does not read"
            )
        self.register_buffer(
            "noise",
            torch.randn(
                self.draws, self.latent, generator=torch.Generator().manual_seed(0)
            ),
        )
        super().__post_init__()

    @abstractmethod
    def told(self, support: Examples) -> Told:
        """What the support set says."""

    @abstractmethod
    def found(self, told: Told, x: Tensor) -> Tensor:
        """What of it matters to x (m, *x_shape): r (m, width)."""

    def adapt(self, support: Examples) -> tuple[Told, Tensor]:
        mean, scale = self.posterior(support)
        return self.told(support), mean + scale * self.noise

    def predict(self, state: tuple[Told, Tensor], x: Tensor) -> Tensor:
        told, z = state
        r = self.found(told, x)
        return mixed(torch.vmap(lambda one: self._decode(x, r, one))(z))

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        both = Examples(*(torch.cat(pair) for pair in zip(*task, strict=True)))
        q, prior = self.posterior(both), self.posterior(task.support)
        noise = torch.randn_like(q[0]) if self.training else self.get_buffer("noise")[0]
        outputs = self._decode(
            both.x, self.found(self.told(task.support), both.x), q[0] + q[1] * noise
        )
        spread = divergence(q, prior) / len(both.y)
        metrics = {
            **self.likelihood.metrics(outputs[len(task.support.y) :], task.query.y),
            "kl": spread.detach(),
        }
        return self.likelihood.nll(outputs, both.y) + spread, metrics

    def _decode(self, x: Tensor, r: Tensor, z: Tensor) -> Tensor:
        return self.decoder(torch.cat([x.flatten(1), r, z.expand(len(x), -1)], -1))
