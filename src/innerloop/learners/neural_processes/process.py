"""The base class of neural processes with a latent variable."""

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
from innerloop.engine.options import Count
from innerloop.learners.neural_processes.layers import divergence, moment_matched

Representation = Any  # the deterministic part of the state: a pytree of tensors
State = tuple[Representation, Tensor]


class LatentProcess(Learner):
    """A learner that predicts from a deterministic representation of the support set
    and from a latent variable z.

    In training mode `loss` draws one z from torch's global generator; otherwise it uses
    a fixed sample. Predictions always use the same `samples` of noise.

    State: the representation, and samples of z (samples, latent).
    """

    pairs: nn.Module
    posterior: nn.Module
    decoder: nn.Module
    _: KW_ONLY
    latent: Count = 128
    width: Count = 128
    samples: Count = 32
    likelihood: Likelihood = Gaussian(learned_scale=True)

    kinds = ("reals",)
    regression_defaults: ClassVar[dict[str, Any]] = {
        "likelihood": Gaussian(learned_scale=True)
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.likelihood != Gaussian(learned_scale=True):
            raise InnerloopError(
                f"{type(self).__name__} predicts a mean and a scale: likelihood must "
                f"be Gaussian(learned_scale=True); got {self.likelihood}"
            )
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(self.samples, self.latent, generator=generator)
        self.register_buffer("noise", noise)

    @abstractmethod
    def represent(self, support: Examples) -> Representation:
        """The deterministic representation of the support set."""

    @abstractmethod
    def context(self, representation: Representation, x: Tensor) -> Tensor:
        """The part of the representation for each x (m, *x_shape): r (m, width)."""

    def adapt(self, support: Examples) -> State:
        mean, scale = self.posterior(support)
        return self.represent(support), mean + scale * self.get_buffer("noise")

    def predict(self, state: State, x: Tensor) -> Tensor:
        representation, z = state
        r = self.context(representation, x)
        return moment_matched(torch.vmap(lambda one: self._decode(x, r, one))(z))

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        n = len(task.support.y)
        both = Examples(*(torch.cat(pair) for pair in zip(*task, strict=True)))
        q, prior = self.posterior(both), self.posterior(task.support)
        noise = torch.randn_like(q[0]) if self.training else self.get_buffer("noise")[0]
        r = self.context(self.represent(task.support), both.x)
        outputs = self._decode(both.x, r, q[0] + q[1] * noise)
        kl = divergence(q, prior) / len(both.y)
        metrics = self.likelihood.metrics(outputs[n:], task.query.y)
        return self.likelihood.nll(outputs, both.y) + kl, {**metrics, "kl": kl.detach()}

    def _decode(self, x: Tensor, r: Tensor, z: Tensor) -> Tensor:
        return self.decoder(torch.cat([x.flatten(1), r, z.expand(x.shape[0], -1)], -1))
