"""Adapting a context, not the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from innerloop.core.descent import Descent, Weights
from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import CountOrZero
from innerloop.nets.decoder import perceptron
from innerloop.nets.registry import encoder, flat_features


class Contextual(nn.Module):
    """A network that reads features beside a context, which is zero at first: x (n,
    *x_shape) to outputs (n, out).
    """

    context: Tensor

    def __init__(
        self, encoder: nn.Module, features: int, size: int, out: int, width: int
    ):
        super().__init__()
        self.encoder, self.mixed = encoder, perceptron(features + size, out, width, 2)
        self.register_buffer("context", torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x).flatten(1)
        return self.mixed(
            torch.cat([z, self.context.to(z.dtype).expand(len(z), -1)], 1)
        )


class CAVIA(Descent):
    """CAVIA: a task is a few context parameters beside the input, found by gradient
    steps from zero; the network is the same for all tasks.

    context <- context - inner_lr * grad(support loss), from 0
    Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson 2019, "Fast context adaptation via
    meta-learning", arXiv:1810.03642, eq. (3)-(4), Algorithm 1 State: the context
    (contexts,) under its name, and the network's weights, which are not adapted.

    net: the network, with a buffer `context` that it reads; by default on vectors two
        layers that see input and context, on images two layers on convolutional
        features and the context. contexts: how many context parameters. width: units of
        a layer.
    inner_lr, inner_steps: the step size and the number of steps. first_order: leave out
    second derivatives.
    """

    net: nn.Module
    inner_lr: float = 1.0
    _: KW_ONLY
    inner_steps: CountOrZero = 2
    contexts: int = 100
    width: int = 100
    first_order: bool = False
    likelihood: Likelihood = Categorical()

    named_networks: ClassVar[tuple[str, ...]] = ()
    regression_defaults: ClassVar[dict[str, Any]] = {"contexts": 5, "width": 40}
    defaults = MetaTrainConfig(queries=5, batch=8, optimizer="Adam", lr=1e-3)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        contexts, width = (
            build_args.get(name, getattr(cls, name)) for name in ("contexts", "width")
        )
        body = encoder(spec, None, vector="flatten")
        return {
            "net": Contextual(body, flat_features(body, spec), contexts, out_dim, width)
        }

    def __post_init__(self) -> None:
        if "context" not in dict(self.net.named_buffers()):
            raise InnerloopError(
                "CAVIA adapts a buffer `context` of its net, and this net has none"
            )
        super().__post_init__()

    def init(self, support: Examples) -> Weights:
        return {**super().init(support), "context": self.net.get_buffer("context")}

    def step(self, weights: Weights, support: Examples) -> Weights:
        moving = {"context": weights["context"]}
        still = {name: w for name, w in weights.items() if name not in moving}
        grads = self.gradient(moving, support, still, self.first_order)
        return {
            **still,
            "context": moving["context"] - self.inner_lr * grads["context"],
        }
