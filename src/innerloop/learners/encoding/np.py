"""Neural processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner, Recipe
from innerloop.core.likelihood import Gaussian, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.learners.encoding.layers import Latent, Pairs, divergence, mixed
from innerloop.nets.decoder import perceptron


class NP(Learner):
    """Neural process: beside a mean of encoded examples, a random variable stands for what the support set leaves open about the whole task.

    p(y | x) = mean over z of g(x, r, z), z from q(z | support), r = mean of h(x_i, y_i)
    Garnelo, Schwarz, Rosenbaum, Viola, Rezende, Eslami and Teh 2018, "Neural processes", arXiv:1807.01622, eq. (8); with r beside z, as in Kim et
    al. 2019, arXiv:1901.05761, eq. (2)-(3)
    Its objective is the evidence bound: the negative log-likelihood of support and query set under a z drawn from q(z | both), plus
    KL(q(z | both) || q(z | support)), both divided by the number of these examples.
    State: r (width,), and draws of z (draws, latent).

    pairs: h. posterior: q. decoder: g. latent: the size of z. width: units of a layer. draws: of z in a prediction, always from the same noise; the
        answer is a Gaussian with the mean and the variance of their mixture.
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
    for_reals: ClassVar[dict[str, Any]] = {"likelihood": Gaussian(learned_scale=True)}
    recipe = Recipe(batch=16, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        if self.likelihood != Gaussian(learned_scale=True):
            raise ValueError(f"a mixture over z has a mean and a scale, which {self.likelihood} does not read")
        self.register_buffer("noise", torch.randn(self.draws, self.latent, generator=torch.Generator().manual_seed(0)))
        super().__post_init__()

    @classmethod
    def networks(cls, spec: TaskSpec, given: Mapping[str, Any], out_dim: int) -> dict[str, nn.Module]:
        width, latent = given.get("width", cls.width), given.get("latent", cls.latent)
        return {
            "pairs": Pairs(spec.x_size, spec.y_dim, width), "posterior": Latent(spec.x_size, spec.y_dim, width, latent),
            "decoder": perceptron(spec.x_size + width + latent, out_dim, width, 3),
        }  # fmt: skip

    def adapt(self, support: Examples) -> tuple[Tensor, Tensor]:
        mean, scale = self.posterior(support)
        return self.pairs(support).mean(0), mean + scale * self.noise  # (width,), (draws, latent)

    def predict(self, state: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        r, z = state
        return mixed(torch.vmap(lambda one: self._decode(x, r, one))(z))

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        both = Examples(*(torch.cat(pair) for pair in zip(*task, strict=True)))
        q, prior = self.posterior(both), self.posterior(task.support)
        noise = torch.randn_like(q[0]) if self.training else self.get_buffer("noise")[0]
        outputs = self._decode(both.x, self.pairs(task.support).mean(0), q[0] + q[1] * noise)
        spread = divergence(q, prior) / len(both.y)
        metrics = {**self.likelihood.metrics(outputs[len(task.support.y) :], task.query.y), "kl": spread.detach()}
        return self.likelihood.nll(outputs, both.y) + spread, metrics

    def _decode(self, x: Tensor, r: Tensor, z: Tensor) -> Tensor:
        return self.decoder(torch.cat([x.flatten(1), torch.cat([r, z]).expand(len(x), -1)], -1))
