"""Adaptation of a context instead of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from innerloop.core.descent import Descent, Weights
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, CountOrZero, NonNegative
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.nets.decoder import perceptron
from innerloop.nets.registry import encoder, flat_features


class ContextNet(nn.Module):
    """Outputs (n, out) from the features of x (n, *x_shape) and a context, initially
    zero.
    """

    context: Tensor

    def __init__(
        self, encoder: nn.Module, features: int, size: int, out: int, width: int
    ):
        super().__init__()
        self.encoder = encoder
        self.mixed = perceptron(features + size, out, width, 2)
        self.register_buffer("context", torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x).flatten(1)  # (n, features)
        context = self.context.to(z.dtype).expand(z.shape[0], -1)  # (n, size)
        return self.mixed(torch.cat([z, context], 1))


class CAVIA(Descent):
    """CAVIA: adapts a few context parameters, not the network.

    context <- context - inner_lr * grad(support loss), from 0

    Reference: Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson 2019, "Fast context
    adaptation via meta-learning", arXiv:1810.03642, eq. (3)-(4), Algorithm 1.

    A task is represented by the context parameters, additional inputs of the network,
    which is the same for all tasks. Differs from the paper: on images the context is
    concatenated to the features of a convolutional network; there it modulates the
    filters of a layer.

    State: the context (contexts,), under the name "context".

    Args:
        net: the task network, with a buffer `context` that it reads; by default two
            hidden layers on the context and the input, or convolutional features of it.
        inner_lr: step size of the inner steps.
        inner_steps: number of inner steps.
        contexts: number of context parameters.
        width: units of a hidden layer.
        first_order: leave out second derivatives.
    """

    net: nn.Module
    inner_lr: NonNegative = 1.0
    _: KW_ONLY
    inner_steps: CountOrZero = 2
    contexts: Count = 100
    width: Count = 100
    first_order: bool = False
    likelihood: Likelihood = Categorical()

    learned_initialization = False  # the context begins at zero
    named_networks: ClassVar[tuple[str, ...]] = ()
    regression_defaults: ClassVar[dict[str, Any]] = {"contexts": 5, "width": 40}
    home = "sinusoid"
    defaults = MetaTrainConfig(queries=5, batch=8, optimizer="Adam", lr=1e-3)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        contexts = build_args.get("contexts", cls.contexts)
        width = build_args.get("width", cls.width)
        body = encoder(spec, None, vector="flatten")
        net = ContextNet(body, flat_features(body, spec), contexts, out_dim, width)
        return {"net": net}

    def __post_init__(self) -> None:
        if "context" not in dict(self.net.named_buffers()):
            raise InnerloopError(
                "CAVIA adapts a buffer `context` of its net, and this net has none"
            )
        super().__post_init__()

    def init(self, support: Examples) -> Weights:
        return {"context": self.net.get_buffer("context")}

    def step(self, weights: Weights, support: Examples) -> Weights:
        grads = self.gradient(weights, support, first_order=self.first_order)
        return {"context": weights["context"] - self.inner_lr * grads["context"]}
