"""Attentive neural processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.likelihood import Gaussian, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.neural_processes.layers import Latent, PairEncoder
from innerloop.learners.neural_processes.process import LatentProcess
from innerloop.nets.attention import AttentionBlock, attention
from innerloop.nets.decoder import perceptron


class ANP(LatentProcess):
    """Attentive neural process: a neural process whose queries attend to the support
    set.

    p(y | x) = mean over z of g(x, r(x), z), r(x) = attention of x to the x_i over r_i,
    the self-attended h(x_i, y_i); z from q(z | support)

    Reference: Kim, Mnih, Schwarz, Garnelo, Eslami, Rosenbaum, Vinyals and Teh 2019,
    "Attentive neural processes", arXiv:1901.05761, eq. (2)-(3), section 3.

    Objective: the negative evidence lower bound: the negative log-likelihood of support
    and query set under a z drawn from q(z | both), plus KL(q(z | both) || q(z |
    support)), both divided by the number of examples. In training, z is drawn from
    torch's global generator.

    State: keys (n, width) and values (n, width) of the support examples, and samples of
    z (samples, latent).

    Args:
        pairs: the encoder h of an example.
        posterior: the network q.
        decoder: the network g.
        keys: the network from x to keys and queries of the attention.
        latent: size of z.
        width: units of the layers.
        samples: samples of z in a prediction, always from the same noise; the
            prediction is a Gaussian with the mean and the variance of their mixture.
        heads: heads of the attention.
    """

    keys: nn.Module
    _: KW_ONLY
    heads: Count = 8
    likelihood: Likelihood = Gaussian(learned_scale=True)

    home = "gp-curves"
    defaults = MetaTrainConfig(batch=16, optimizer="Adam", lr=5e-4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise InnerloopError(
                f"width must be a multiple of heads; got {self.width} and {self.heads}"
            )
        self.self_attention = AttentionBlock(self.width, self.heads)
        self.eval()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        width = build_args.get("width", cls.width)
        latent = build_args.get("latent", cls.latent)
        return {
            "pairs": PairEncoder(spec.x_size, spec.y_dim, width),
            "keys": perceptron(spec.x_size, width, width, 2),
            "posterior": Latent(spec.x_size, spec.y_dim, width, latent),
            "decoder": perceptron(spec.x_size + width + latent, out_dim, width, 3),
        }

    def represent(self, support: Examples) -> tuple[Tensor, Tensor]:
        tokens = self.pairs(support)  # (n, width)
        n = len(tokens)
        visible = torch.ones(n, n, dtype=torch.bool, device=tokens.device)
        values, _ = self.self_attention(tokens, visible)
        return self.keys(support.x.flatten(1)), values

    def context(self, representation: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(0, 1)
            for part in (self.keys(x.flatten(1)), *representation)
        )  # (heads, n, width / heads)
        return attention(queries, keys, values).transpose(0, 1).flatten(1)  # (m, width)
