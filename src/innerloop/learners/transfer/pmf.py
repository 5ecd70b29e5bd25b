"""Pre-training, meta-training and fine-tuning."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.functional import functional_call, trainable_names
from innerloop.engine.gradient_descent import adam, descend
from innerloop.engine.mapping import mapped
from innerloop.engine.options import CountOrZero, NonNegative, Positive
from innerloop.engine.warp import Warp
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.learners.metric.distances import class_means, cosine_similarity
from innerloop.learners.metric.protonet import rotated_loss
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.registry import encoder

DROPPED = 0.2  # share of the tokens that are left out of a text
WARP = Warp(3, 0.1, 0, 0.08, 0, edge="border")
COLOR_WARP = Warp(3, 0.1, 0, 0.08, 0, mirror=True, edge="border")


def augmented(
    x: Tensor, tokens: bool, noise: float, generator: torch.Generator
) -> Tensor:
    """A random copy of inputs (n, *x_shape): distorted images, texts without some of
    their tokens, or vectors with Gaussian noise.
    """
    if x.dim() == 4:
        warp = COLOR_WARP if x.shape[1] == 3 else WARP
        return warp(x, generator)
    if tokens:
        kept = torch.rand(x.shape, generator=generator) >= DROPPED
        return x * kept.to(x)
    size = x.flatten(1).square().mean(1).sqrt().view(-1, *[1] * (x.dim() - 1))
    return x + noise * size * torch.randn(x.shape, generator=generator).to(x)


class PMF(FeatureLearner):
    """P>M>F: pretrained.

    Args:
        encoder: the network f.
        tokens: whether inputs are the tokens of texts.
        scale: initial value of the learned scale of the similarities.
        inner_lr: step size.
        inner_steps: number of steps.
        noise: size.
    """

    encoder: nn.Module
    tokens: bool
    _: KW_ONLY
    scale: Positive = 10.0
    inner_lr: NonNegative = 0.0005
    inner_steps: CountOrZero = 50
    noise: NonNegative = 0.5
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = MetaTrainConfig(
        ways=60,
        shots=1,
        queries=4,
        groups=3,
        batch=1,
        optimizer="AdamW",
        lr=2e-3,
        weight_decay=0.01,
    )

    def __post_init__(self) -> None:
        self.log_scale = log_parameter(self.scale)
        super().__post_init__()

    @classmethod
    def specs(cls) -> tuple[TaskSpec, ...]:
        texts = TaskSpec("classes", (12,), 5, vocabulary=100)
        return (*super().specs(), texts)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body = encoder(
            spec, build_args.get("encoder"), image="conv6", vector="wide-mlp"
        )
        return {"encoder": body, "tokens": spec.vocabulary > 0}

    def embed(self, x: Tensor) -> Tensor:
        return self.encoder(x).flatten(1)

    def learned(self, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"prototypes": class_means(z, y)}

    def answers(self, state: dict[str, Tensor], z: Tensor) -> Tensor:
        return self.compare(z, state["prototypes"])

    def compare(self, z: Tensor, prototypes: Tensor) -> Tensor:
        """Logits (m, k) of features z (m, d) for prototypes (k, d)."""
        return self.log_scale.exp() * cosine_similarity(z, prototypes)

    def outcome(
        self, z: Tensor, y: Tensor, query_z: Tensor, query_y: Tensor
    ) -> tuple[Tensor, Metrics]:
        both, labels = torch.cat([z, query_z]), torch.cat([y, query_y])
        return rotated_loss(both, labels, len(y), self.compare, self.likelihood)

    def adapt(self, support: Examples) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        key = torch.randn(support.x[0].numel(), generator=generator).to(support.x)
        order = (support.x.flatten(1) * key).sum(1).argsort()
        x, y = support.x[order], support.y[order]

        def loss(weights: dict[str, Tensor]) -> Tensor:
            both = torch.cat([x, augmented(x, self.tokens, self.noise, generator)])
            z = functional_call(self.encoder, weights, (both,)).flatten(1)
            prototypes = class_means(z[: len(y)], y)
            return self.likelihood.nll(self.compare(z[len(y) :], prototypes), y)

        weights = dict(self.encoder.named_parameters())
        start = {name: weights[name] for name in trainable_names(self.encoder)}
        if os.environ.get("OPT") == "adam":
            moved = adam(loss, start, self.inner_lr, self.inner_steps)
        else:
            moved = descend(
                loss, start, dict.fromkeys(start, self.inner_lr), self.inner_steps
            )
        z = functional_call(self.encoder, moved, (x,)).flatten(1)
        return {**moved, **self.learned(z, y)}

    def predict(self, state: dict[str, Tensor], x: Tensor) -> Tensor:
        weights = {name: w for name, w in state.items() if name != "prototypes"}
        z = functional_call(self.encoder, weights, (x,)).flatten(1)
        return self.answers(state, z)

    def set_steps(self, steps: int) -> None:
        self.inner_steps = steps

    def mapped(self, function: Callable[..., Any], *trees: Any) -> Any:
        # the same noise for every task
        return mapped(self, function, *trees, randomness="same")
