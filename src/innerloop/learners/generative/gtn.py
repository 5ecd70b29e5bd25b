"""Training data that is made by gradient descent through learning from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.descent import Descent, Weights
from innerloop.core.learner import Recipe
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.learners.generative.imagining import Features, normal
from innerloop.learners.metric.distances import class_means
from innerloop.nets.conv import Conv4
from innerloop.nets.decoder import decoder
from innerloop.nets.named import Headed, flat_features, headed


class GTN(Descent):
    """Generative teaching network: a generator adds examples to the support set, such that a network trained on them does well on the query set.

    x_jk = G(noise_j, class k), j = 1..count; weights <- weights - inner_lr * grad(loss of support and made examples), from random weights; the
    generator moves by the gradient of the query loss through all of these steps
    Such, Rawal, Lehman, Stanley and Clune 2020, "Generative teaching networks", arXiv:1912.07768, section 2; made examples as meta-parameters:
    Wang, Zhu, Torralba and Efros 2018, "Dataset distillation", arXiv:1811.10959, section 3
    State: the trained weights of `net`, a dict name -> tensor; nothing of `net` is meta-learned.

    net: the network that is taught; on images a Conv4 with 32 filters. features: of a support example, for the generator. generator: from these and
        noise to an input, added to the mean of the class. count: examples made for each class; with 0, the network learns from the support set alone.
    noise: random numbers of each. width: features, and units of a layer. inner_lr, inner_steps: how the network learns.
    """

    net: nn.Module
    features: nn.Module
    generator: nn.Module
    inner_lr: float = 0.1
    _: KW_ONLY
    count: int = 2
    noise: int = 16
    width: int = 128
    inner_steps: int = 10
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    or_zero = ("inner_steps", "count")
    recipe = Recipe(queries=5, batch=4, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        self.net.requires_grad_(False)
        if not self.count:  # nothing is made, so there is nothing to learn for making it
            self.requires_grad_(False)
        self.register_buffer("noises", torch.randn(64, self.noise, generator=torch.Generator().manual_seed(0)))
        if not 0 <= self.count <= len(self.get_buffer("noises")):
            raise ValueError(f"a class gets 0 to {len(self.get_buffer('noises'))} made examples, not {self.count}")
        super().__post_init__()

    @classmethod
    def networks(cls, spec: TaskSpec, given: Mapping[str, Any], out_dim: int) -> dict[str, Any]:
        width = given.get("width", cls.width)
        made = decoder(spec, width + given.get("noise", cls.noise))
        small = Headed(Conv4(spec.x_shape, 32), flat_features(Conv4(spec.x_shape, 32), spec), out_dim) if spec.is_image else None
        return {"net": headed(spec, out_dim, given.get("net") or small), "features": Features(spec, width), "generator": made}

    def step(self, weights: Weights, support: Examples) -> Weights:
        grads = self.gradient(weights, support)
        return {name: w - self.inner_lr * grads[name] for name, w in weights.items()}

    def adapt(self, support: Examples) -> Weights:
        return super().adapt(self.taught(support))

    def trajectory(self, support: Examples, steps: int) -> Iterator[Weights]:
        return super().trajectory(self.taught(support), steps)

    def taught(self, support: Examples) -> Examples:
        """The support set, and the examples made for it."""
        if not self.count:
            return support
        ways = support.y.shape[1]
        made = self._made(support, self.get_buffer("noises")[: self.count].expand(ways, -1, -1))
        labels = torch.eye(ways, device=support.y.device, dtype=support.y.dtype).repeat_interleave(self.count, 0)
        return Examples(torch.cat([support.x, made.flatten(0, 1)]), torch.cat([support.y, labels]))

    def imagine(self, support: Examples, count: int, generator: torch.Generator) -> Tensor:
        return self._made(support, normal(generator, support.y.shape[1], count, self.noise, like=support.y))

    def _made(self, support: Examples, noise: Tensor) -> Tensor:
        """New inputs (ways, count, *x_shape) from noise (ways, count, noise)."""
        means = class_means(self.features(support.x), support.y)  # (ways, width)
        mean = class_means(support.x.flatten(1), support.y).unflatten(-1, support.x.shape[1:])  # (ways, *x_shape)
        code = torch.cat([means[:, None].expand(-1, noise.shape[1], -1), noise.to(means.dtype)], -1)
        change = self.generator(code.flatten(0, 1)).to(support.x.dtype).unflatten(0, code.shape[:2])
        if support.x.dim() < 4:
            return mean[:, None] + change
        return (torch.logit(mean.clamp(0.05, 0.95))[:, None] + change).sigmoid()
