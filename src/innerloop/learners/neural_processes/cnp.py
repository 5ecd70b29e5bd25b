"""Conditional neural processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Gaussian, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.options import Count
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.neural_processes.layers import PairEncoder
from innerloop.nets.decoder import perceptron


class CNP(Learner):
    """Conditional neural process: a decoder conditioned on the mean of the encoded
    examples.

    r = mean of h(x_i, y_i) over the support set; outputs = g(x, r): the mean and the
    scale of a Gaussian

    Reference: Garnelo, Rosenbaum, Maddison, Ramalho, Saxton, Shanahan, Teh, Rezende and
    Eslami 2018, "Conditional neural processes", arXiv:1807.01613, eq. (1)-(3).

    State: r (width,).

    Args:
        pairs: the encoder h of an example.
        decoder: the network g.
        width: units of the layers, and size of r.
    """

    pairs: nn.Module
    decoder: nn.Module
    _: KW_ONLY
    width: Count = 128
    likelihood: Likelihood = Gaussian(learned_scale=True)

    home = "gp-curves"
    kinds = ("reals", "bits")
    regression_defaults: ClassVar[dict[str, Any]] = {
        "likelihood": Gaussian(learned_scale=True)
    }
    defaults = MetaTrainConfig(batch=16, optimizer="Adam", lr=1e-3)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        width = build_args.get("width", cls.width)
        return {
            "pairs": PairEncoder(spec.x_size, spec.y_dim, width),
            "decoder": perceptron(spec.x_size + width, out_dim, width, 3),
        }

    def adapt(self, support: Examples) -> Tensor:
        return self.pairs(support).mean(0)  # (width,)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return self.decoder(torch.cat([x.flatten(1), state.expand(x.shape[0], -1)], -1))
