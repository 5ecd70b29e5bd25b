"""Training examples that are generated to be learned from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from innerloop.core.descent import Descent, Weights
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.functional import trainable_names
from innerloop.engine.norm_stats import use_stored
from innerloop.engine.options import Count, Positive, Range
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.generative.features import Features, normal
from innerloop.learners.metric.distances import class_means
from innerloop.nets.decoder import decoder
from innerloop.nets.registry import encoder, flat_features, headed

MOST = 64  # generated examples of a class


class GTN(Descent):
    """Generative teaching network: generates support examples to train a network on.

    x_jk = G(noise_j, class k), j = 1..count; weights <- weights - inner_lr * grad(loss
    of support and generated examples), from weights that are not meta-learned; the
    generator is trained by the gradient of the query loss through all of these steps

    Reference: Such, Rawal, Lehman, Stanley and Clune 2020, "Generative teaching
    networks: accelerating neural architecture search by learning to generate synthetic
    training data", arXiv:1912.07768, section 2. Examples as meta-parameters: Wang, Zhu,
    Torralba and Efros 2018, "Dataset distillation", arXiv:1811.10959, section 3.

    State: the trained weights of `net`, a dict name -> tensor.

    Args:
        net: the network that is trained on a task; by default two layers of 256 units.
            With batch normalization its training is chaotic, and so is the gradient.
        encoder: a fixed encoder in front of `net`; by default none for "all".
        features: the network from a support example to features for the generator.
        generator: the network from these and noise to an input, which is added to the
            mean of the class.
        inner_lr: step size of the inner steps.
        inner_steps: number of inner steps.
        taught: what is trained on a task: the whole network ("all"), from random
            weights; or a new linear "head" on a fixed encoder, such as that of a
            trained FineTune.
        count: generated examples of each class; with 0, the network learns from the
            support set alone.
        noise: size of the noise for an example.
        width: size of the features, and units of a layer.
        transductive: normalize the query set by its own statistics.
        recompute: recompute inner steps in the backward pass to save memory.
    """

    net: nn.Module
    encoder: nn.Module
    features: nn.Module
    generator: nn.Module
    inner_lr: Positive = 0.1
    _: KW_ONLY
    taught: Literal["all", "head"] = "all"
    count: Annotated[int, Range(0, MOST)] = 2
    noise: Count = 16
    width: Count = 128
    inner_steps: Count = 20
    likelihood: Likelihood = Categorical()

    learned_initialization = False  # steps are on generated examples

    kinds = ("classes",)
    encode_jointly = True
    defaults = MetaTrainConfig(queries=5, batch=8, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        super().__post_init__()
        moving = trainable_names(self.net)
        self.moving = moving  # pyright: ignore[reportAttributeAccessIssue]
        self.net.requires_grad_(False)
        self.encoder.requires_grad_(False)
        if not self.count:  # the generator is not used
            self.requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        noises = torch.randn(MOST, self.noise, generator=generator)
        self.register_buffer("noises", noises)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        width = build_args.get("width", cls.width)
        noise = build_args.get("noise", cls.noise)
        parts = {
            "features": Features(spec, width),
            "generator": decoder(spec, width + noise),
        }
        given, taught = build_args.get("encoder"), build_args.get("taught")
        body: nn.Module = nn.Identity()
        if given is not None or taught == "head":
            body = encoder(spec, given)
            spec = replace(spec, x_shape=(flat_features(body, spec),), vocabulary=0)
        if taught == "head":
            if isinstance(build_args.get("net"), str):
                raise InnerloopError('with taught="head", net is a linear layer')
            net = nn.Linear(spec.x_size, out_dim)
            for p in net.parameters():
                p.data.zero_()  # as in fine-tuning
        else:
            net = headed(spec, out_dim, build_args.get("net") or "wide-mlp")
        return {"net": net, "encoder": body, **parts}

    def step(self, weights: Weights, support: Examples) -> Weights:
        grads = self.gradient(weights, support)
        return {name: w - self.inner_lr * grads[name] for name, w in weights.items()}

    def adapt(self, support: Examples) -> Weights:
        return super().adapt(self._encoded(self.enlarged(support)))

    def trajectory(self, support: Examples, steps: int) -> Iterator[Weights]:
        return super().trajectory(self._encoded(self.enlarged(support)), steps)

    def predict(self, state: Weights, x: Tensor) -> Tensor:
        with use_stored():
            return super().predict(state, self.encoder(x))

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        """Mean loss and metrics over tasks. Examples are generated for all tasks at
        once, so that the generator's layers are normalized over all of them.
        """
        adapt = super().adapt

        def outcome(support: Examples, query: Examples) -> tuple[Tensor, Metrics]:
            outputs = self.predict(adapt(self._encoded(support)), query.x)
            nll = self.likelihood.nll(outputs, query.y)
            return nll, self.likelihood.metrics(outputs, query.y)

        enlarged = self._enlarged(tasks.support)
        losses, metrics = self.mapped(outcome, enlarged, tasks.query)
        return losses.mean(), {name: values.mean() for name, values in metrics.items()}

    def enlarged(self, support: Examples) -> Examples:
        """The support set with the examples generated for it."""
        batch = self._enlarged(Examples(support.x[None], support.y[None]))
        return Examples(batch.x[0], batch.y[0])

    def generate(
        self, support: Examples, count: int, generator: torch.Generator
    ) -> Tensor:
        ways = support.y.shape[1]
        noise = normal(generator, 1, ways, count, self.noise, like=support.y)
        return self._generated(Examples(support.x[None], support.y[None]), noise)[0]

    def _encoded(self, examples: Examples) -> Examples:
        """Examples as the inputs of `net`."""
        with use_stored():
            return Examples(self.encoder(examples.x), examples.y)

    def _enlarged(self, support: Examples) -> Examples:
        """Support sets x (tasks, n, *x_shape), y (tasks, n, ways) with the examples
        generated for them.
        """
        if not self.count:
            return support
        tasks, _, ways = support.y.shape
        noise = self.get_buffer("noises")[: self.count].expand(tasks, ways, -1, -1)
        generated = self._generated(support, noise).flatten(1, 2)
        classes = torch.eye(ways, device=support.y.device, dtype=support.y.dtype)
        labels = classes.repeat_interleave(self.count, 0).expand(tasks, -1, -1)
        x = torch.cat([support.x, generated], 1)
        return Examples(x, torch.cat([support.y, labels], 1))

    def _generated(self, support: Examples, noise: Tensor) -> Tensor:
        """New inputs (tasks, ways, count, *x_shape) from noise (tasks, ways, count,
        noise).
        """
        x, y = support
        z = self.features(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        class_z = torch.vmap(class_means)(z, y)  # (tasks, ways, width)
        class_x = torch.vmap(class_means)(x.flatten(2), y)
        class_x = class_x.unflatten(-1, x.shape[2:])[:, :, None]
        each = class_z[:, :, None].expand(-1, -1, noise.shape[2], -1)
        code = torch.cat([each, noise.to(z.dtype)], -1)  # (tasks, ways, count, code)
        change = self.generator(code.flatten(0, 2)).to(x.dtype)
        change = change.unflatten(0, code.shape[:3])
        if x.dim() < 5:  # vectors
            return class_x + change
        return (torch.logit(class_x.clamp(0.05, 0.95)) + change).sigmoid()
