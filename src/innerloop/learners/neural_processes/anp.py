"""Attentive neural processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Gaussian, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.learners.neural_processes.layers import Latent, PairEncoder
from innerloop.learners.neural_processes.process import LatentProcess
from innerloop.nets.attention import AttentionBlock, attention
from innerloop.nets.decoder import perceptron


class ANP(LatentProcess):
    """Attentive neural process: a query attends to the support examples that matter to
    it, instead of to their mean.

    p(y | x) = mean over z of g(x, r(x), z), r(x) = attention of x to the x_i over r_i,
    the self-attended h(x_i, y_i); z from q(z | support) Kim, Mnih, Schwarz, Garnelo,
    Eslami, Rosenbaum, Vinyals and Teh 2019, "Attentive neural processes",
    arXiv:1901.05761, eq. (2)-(3), section 3 Its objective is the evidence bound: the
    negative log-likelihood of support and query set under a z drawn from q(z | both),
    plus KL(q(z | both) || q(z | support)), both divided by the number of these
    examples.
    State: keys (n, width) and values (n, width) of the support examples, and draws of z
    (draws, latent).

    pairs: h. posterior: q. decoder: g. latent: the size of z. width: units of a layer.
        heads: of the attention. draws: of z in a prediction, always from the same
        noise; the answer is a Gaussian with the mean and the variance of their mixture.
    """

    keys: nn.Module
    _: KW_ONLY
    heads: int = 8
    likelihood: Likelihood = Gaussian(learned_scale=True)

    defaults = MetaTrainConfig(batch=16, optimizer="Adam", lr=5e-4)

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise InnerloopError(
                f"a width of {self.width} cannot be shared by {self.heads} heads"
            )
        self.among = AttentionBlock(self.width, self.heads)
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        width, latent = (
            build_args.get("width", cls.width),
            build_args.get("latent", cls.latent),
        )
        return {
            "pairs": PairEncoder(spec.x_size, spec.y_dim, width),
            "keys": perceptron(spec.x_size, width, width, 2),
            "posterior": Latent(spec.x_size, spec.y_dim, width, latent),
            "decoder": perceptron(spec.x_size + width + latent, out_dim, width, 3),
        }

    def told(self, support: Examples) -> tuple[Tensor, Tensor]:
        tokens = self.pairs(support)  # (n, width)
        visible = torch.ones(
            len(tokens), len(tokens), dtype=torch.bool, device=tokens.device
        )
        return self.keys(support.x.flatten(1)), self.among(tokens, visible)[0]

    def found(self, told: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        asked, keys, values = (
            t.unflatten(-1, (self.heads, -1)).transpose(0, 1)
            for t in (self.keys(x.flatten(1)), *told)
        )
        return attention(asked, keys, values).transpose(0, 1).flatten(1)  # (m, width)
