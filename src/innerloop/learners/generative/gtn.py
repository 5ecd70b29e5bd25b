"""Training data that is made by gradient descent through learning from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from innerloop.core.descent import Descent, Weights
from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.functional import trainable_names
from innerloop.engine.norm_stats import use_stored as settled
from innerloop.engine.options import CountOrZero
from innerloop.learners.generative.example_generator import Features, normal
from innerloop.learners.metric.distances import class_means
from innerloop.nets.decoder import decoder
from innerloop.nets.registry import encoder, flat_features, headed


class GTN(Descent):
    """Generative teaching network: a generator adds examples to the support set, such
    that a network trained on them does well on the query set.

    x_jk = G(noise_j, class k), j = 1..count; weights <- weights - inner_lr * grad(loss
    of support and made examples), from weights that are not learned; the generator
    moves by the gradient of the query loss through all of these steps
    Such, Rawal, Lehman, Stanley and Clune 2020, "Generative teaching networks",
    arXiv:1912.07768, section 2; made examples as meta-parameters: Wang, Zhu, Torralba
    and Efros 2018, "Dataset distillation", arXiv:1811.10959, section 3
    State: the trained weights of `net`, a dict name -> tensor; nothing of `net` is
    meta-learned.

    net: the network that is taught; two layers of 256 units. (With batch normalisation
    its training is chaotic, and so is the gradient.) taught: "all" of it, from random
    weights, or a new linear "head" on an encoder that stays as it is: that of a trained
    FineTune, say. encoder: that encoder. features: of a support example, for the
    generator. generator: from these and noise to an input, added to the mean of the
    class. count: examples made for each class; with 0, the network learns from the
    support set alone. noise: random numbers of each. width: features, and units of a
    layer. inner_lr, inner_steps: how the network learns.
    """

    net: nn.Module
    encoder: nn.Module
    features: nn.Module
    generator: nn.Module
    inner_lr: float = 0.1
    _: KW_ONLY
    taught: Literal["all", "head"] = "all"
    count: CountOrZero = 2
    noise: int = 16
    width: int = 128
    inner_steps: CountOrZero = 20
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    encode_jointly: ClassVar[bool] = True
    defaults = MetaTrainConfig(queries=5, batch=8, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        moving = trainable_names(self.net)
        self.moving = moving  # pyright: ignore[reportAttributeAccessIssue]
        self.net.requires_grad_(False)
        self.encoder.requires_grad_(False)
        # nothing is made, so there is nothing to learn for making it
        if not self.count:
            self.requires_grad_(False)
        self.register_buffer(
            "noises",
            torch.randn(64, self.noise, generator=torch.Generator().manual_seed(0)),
        )
        if not 0 <= self.count <= len(self.get_buffer("noises")):
            raise InnerloopError(
                f"a class gets 0 to {len(self.get_buffer('noises'))} made examples, not {self.count}"
            )
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        width = build_args.get("width", cls.width)
        parts = {
            "features": Features(spec, width),
            "generator": decoder(spec, width + build_args.get("noise", cls.noise)),
        }
        if build_args.get("taught") == "head":
            body = encoder(spec, build_args.get("encoder"))
            head = nn.Linear(flat_features(body, spec), out_dim)
            for p in head.parameters():
                p.data.zero_()  # as a fine-tuned head begins
            return {"net": head, "encoder": body, **parts}
        return {
            "net": headed(spec, out_dim, build_args.get("net") or "wide-mlp"),
            "encoder": nn.Identity(),
            **parts,
        }

    def step(self, weights: Weights, support: Examples) -> Weights:
        grads = self.gradient(weights, support)
        return {name: w - self.inner_lr * grads[name] for name, w in weights.items()}

    def adapt(self, support: Examples) -> Weights:
        return super().adapt(self._seen(self.enriched(support)))

    def trajectory(self, support: Examples, steps: int) -> Iterator[Weights]:
        return super().trajectory(self._seen(self.enriched(support)), steps)

    def predict(self, state: Weights, x: Tensor) -> Tensor:
        with settled():
            return super().predict(state, self.encoder(x))

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        """Mean loss and metrics over tasks; examples are made for all of them at once,
        so that the generator's layers are normalised together.
        """

        def outcome(support: Examples, query: Examples) -> tuple[Tensor, Metrics]:
            outputs = self.predict(super(GTN, self).adapt(self._seen(support)), query.x)
            return self.likelihood.nll(outputs, query.y), self.likelihood.metrics(
                outputs, query.y
            )

        losses, metrics = self.mapped(
            outcome, self._enriched(tasks.support), tasks.query
        )
        return losses.mean(), {name: values.mean() for name, values in metrics.items()}

    def enriched(self, support: Examples) -> Examples:
        """The support set, and the examples made for it."""
        return Examples(
            *(
                part[0]
                for part in self._enriched(Examples(support.x[None], support.y[None]))
            )
        )

    def imagine(
        self, support: Examples, count: int, generator: torch.Generator
    ) -> Tensor:
        noise = normal(
            generator, 1, support.y.shape[1], count, self.noise, like=support.y
        )
        return self._made(Examples(support.x[None], support.y[None]), noise)[0]

    def _seen(self, examples: Examples) -> Examples:
        """Examples as the network sees them that is taught."""
        with settled():
            return Examples(self.encoder(examples.x), examples.y)

    def _enriched(self, support: Examples) -> Examples:
        """Support sets x (tasks, n, *x_shape), y (tasks, n, ways), and the examples
        made for them.
        """
        if not self.count:
            return support
        tasks, _, ways = support.y.shape
        made = self._made(
            support, self.get_buffer("noises")[: self.count].expand(tasks, ways, -1, -1)
        )
        labels = (
            torch.eye(ways, device=support.y.device, dtype=support.y.dtype)
            .repeat_interleave(self.count, 0)
            .expand(tasks, -1, -1)
        )
        return Examples(
            torch.cat([support.x, made.flatten(1, 2)], 1),
            torch.cat([support.y, labels], 1),
        )

    def _made(self, support: Examples, noise: Tensor) -> Tensor:
        """New inputs (tasks, ways, count, *x_shape) from noise (tasks, ways, count,
        noise).
        """
        z = self.features(support.x.flatten(0, 1)).unflatten(0, support.x.shape[:2])
        means = torch.vmap(class_means)(z, support.y)  # (tasks, ways, width)
        # (tasks, ways, *x_shape)
        mean = torch.vmap(class_means)(support.x.flatten(2), support.y).unflatten(
            -1, support.x.shape[2:]
        )
        code = torch.cat(
            [
                means[:, :, None].expand(-1, -1, noise.shape[2], -1),
                noise.to(means.dtype),
            ],
            -1,
        )
        change = (
            self.generator(code.flatten(0, 2))
            .to(support.x.dtype)
            .unflatten(0, code.shape[:3])
        )
        if support.x.dim() < 5:
            return mean[:, :, None] + change
        return (torch.logit(mean.clamp(0.05, 0.95))[:, :, None] + change).sigmoid()
