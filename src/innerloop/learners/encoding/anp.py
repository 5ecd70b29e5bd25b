"""Attentive neural processes."""

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
from innerloop.nets.attention import AttentionBlock, attention
from innerloop.nets.decoder import perceptron

State = tuple[Tensor, Tensor, Tensor]


class ANP(Learner):
    """Attentive neural process: a query attends to the support examples that matter to it, instead of to their mean.

    p(y | x) = mean over z of g(x, r(x), z), r(x) = attention of x to the x_i over r_i, the self-attended h(x_i, y_i); z from q(z | support)
    Kim, Mnih, Schwarz, Garnelo, Eslami, Rosenbaum, Vinyals and Teh 2019, "Attentive neural processes", arXiv:1901.05761, eq. (2)-(3), section 3
    Its objective is the evidence bound: the negative log-likelihood of support and query set under a z drawn from q(z | both), plus
    KL(q(z | both) || q(z | support)), both divided by the number of these examples.
    State: keys (n, width) and values (n, width) of the support examples, and draws of z (draws, latent).

    pairs: h. posterior: q. decoder: g. latent: the size of z. width: units of a layer. heads: of the attention. draws: of z in a prediction, always
        from the same noise; the answer is a Gaussian with the mean and the variance of their mixture.
    """

    pairs: nn.Module
    keys: nn.Module
    posterior: nn.Module
    decoder: nn.Module
    _: KW_ONLY
    latent: int = 128
    width: int = 128
    heads: int = 8
    draws: int = 32
    likelihood: Likelihood = Gaussian(learned_scale=True)

    kinds = ("reals",)
    for_reals: ClassVar[dict[str, Any]] = {"likelihood": Gaussian(learned_scale=True)}
    recipe = Recipe(batch=16, optimizer="Adam", lr=5e-4)

    def __post_init__(self) -> None:
        if self.likelihood != Gaussian(learned_scale=True):
            raise ValueError(f"a mixture over z has a mean and a scale, which {self.likelihood} does not read")
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} cannot be shared by {self.heads} heads")
        self.among = AttentionBlock(self.width, self.heads)
        self.register_buffer("noise", torch.randn(self.draws, self.latent, generator=torch.Generator().manual_seed(0)))
        super().__post_init__()

    @classmethod
    def networks(cls, spec: TaskSpec, given: Mapping[str, Any], out_dim: int) -> dict[str, nn.Module]:
        width, latent = given.get("width", cls.width), given.get("latent", cls.latent)
        return {
            "pairs": Pairs(spec.x_size, spec.y_dim, width), "keys": perceptron(spec.x_size, width, width, 2),
            "posterior": Latent(spec.x_size, spec.y_dim, width, latent), "decoder": perceptron(spec.x_size + width + latent, out_dim, width, 3),
        }  # fmt: skip

    def adapt(self, support: Examples) -> State:
        mean, scale = self.posterior(support)
        return *self._told(support), mean + scale * self.noise

    def predict(self, state: State, x: Tensor) -> Tensor:
        keys, values, z = state
        r = self._attended(x, keys, values)
        return mixed(torch.vmap(lambda one: self._decode(x, r, one))(z))

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        both = Examples(*(torch.cat(pair) for pair in zip(*task, strict=True)))
        q, prior = self.posterior(both), self.posterior(task.support)
        noise = torch.randn_like(q[0]) if self.training else self.get_buffer("noise")[0]
        outputs = self._decode(both.x, self._attended(both.x, *self._told(task.support)), q[0] + q[1] * noise)
        spread = divergence(q, prior) / len(both.y)
        metrics = {**self.likelihood.metrics(outputs[len(task.support.y) :], task.query.y), "kl": spread.detach()}
        return self.likelihood.nll(outputs, both.y) + spread, metrics

    def _told(self, support: Examples) -> tuple[Tensor, Tensor]:
        tokens = self.pairs(support)  # (n, width)
        nothing = tokens.new_zeros(0, self.width)
        visible = torch.ones(len(tokens), len(tokens), dtype=torch.bool, device=tokens.device)
        return self.keys(support.x.flatten(1)), self.among(tokens, (nothing, nothing), visible)[0]

    def _attended(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        asked, keys, values = (t.unflatten(-1, (self.heads, -1)).transpose(0, 1) for t in (self.keys(x.flatten(1)), keys, values))
        return attention(asked, keys, values).transpose(0, 1).flatten(1)  # (m, width)

    def _decode(self, x: Tensor, r: Tensor, z: Tensor) -> Tensor:
        return self.decoder(torch.cat([x.flatten(1), r, z.expand(len(x), -1)], -1))
