"""Features that a network conditions on the task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.functional import functional_call
from innerloop.engine.precision import widened
from innerloop.learners.metric.distances import class_means
from innerloop.nets.conv import Conv4
from innerloop.nets.decoder import perceptron
from innerloop.nets.norm import BatchNorm
from innerloop.nets.registry import encoder, flat_features

State = tuple[dict[str, Tensor], tuple[Tensor, ...], Tensor]


class CNAPs(Learner):
    """CNAPs: networks write, from the support set, how the features are scaled and
    shifted in every layer, and the weights of every class.

    t = mean of g over the support set; scale, shift of a layer = (1 + a(t)) scale',
    shift' + b(t), as FiLM; w_k = h(c_k), c_k the mean of the conditioned features of
    class k; outputs = w f(x; t)
    Requeima, Gordon, Bronskill, Nowozin and Turner 2019, "Fast and flexible multi-task
    classification using conditional neural adaptive processes", arXiv:1906.07697,
    section 2; FiLM: Perez et al. 2018, arXiv:1709.07871. There f is trained before and
    frozen; here all is trained together. State: scales and shifts of the normalisation
    layers by name, those of the features (d,), and the weights (ways, d + 1) of the
    classes.

    encoder: f, whose batch normalizations are conditioned, and its features.
    set_encoder: g.
    film: from t to all scales and shifts. writer: h. width: of t, and units of the
    layers of film and writer.
    """

    encoder: nn.Module
    set_encoder: nn.Module
    film: nn.Module
    writer: nn.Module
    _: KW_ONLY
    width: int = 64
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = MetaTrainConfig(
        ways=20,
        shots=1,
        queries=5,
        batch=1,
        optimizer="AdamW",
        lr=1e-3,
        weight_decay=0.01,
    )

    def __post_init__(self) -> None:
        self.norms = [
            name
            for name, module in self.encoder.named_modules()
            if isinstance(module, BatchNorm)
        ]
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body, width = (
            encoder(spec, build_args.get("encoder")),
            build_args.get("width", cls.width),
        )
        features = flat_features(body, spec)
        told = (
            sum(
                module.weight.numel()
                for module in body.modules()
                if isinstance(module, BatchNorm)
            )
            + features
        )
        set_encoder = (
            Conv4(spec.x_shape, width // 2) if spec.is_image else encoder(spec)
        )
        film = perceptron(flat_features(set_encoder, spec), 2 * told, width, 1)
        film[-1].weight.data *= 0.1  # pyright: ignore[reportOperatorIssue]  # tasks begin nearly alike
        film[-1].bias.data.zero_()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        return {
            "encoder": body,
            "set_encoder": set_encoder,
            "film": film,
            "writer": perceptron(features, features + 1, 4 * width, 1),
        }

    def adapt(self, support: Examples) -> State:
        norms, ends = self._conditions(self.set_encoder(support.x))
        return (
            norms,
            ends,
            self._written(self._features(norms, ends, support.x), support.y),
        )

    def predict(self, state: State, x: Tensor) -> Tensor:
        return self._answers(state[2], self._features(state[0], state[1], x))

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        # normalised together
        shots, x = len(task.support.y), torch.cat([task.support.x, task.query.x])
        z = self._features(*self._conditions(self.set_encoder(x)[:shots]), x)
        outputs = self._answers(self._written(z[:shots], task.support.y), z[shots:])
        return self.likelihood.nll(outputs, task.query.y), self.likelihood.metrics(
            outputs, task.query.y
        )

    def _conditions(self, read: Tensor) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Scales and shifts of the normalisation layers by name, and those of the
        features (d,), from what was read (n, features).
        """
        told = widened(self.film(read.mean(0)))  # (numbers,)
        layers = [self.encoder.get_submodule(name) for name in self.norms]
        sizes = [layer.weight.numel() for layer in layers for _ in range(2)]  # pyright: ignore[reportCallIssue]
        *parts, rest = told.split([*sizes, len(told) - sum(sizes)])
        norms: dict[str, Tensor] = {}
        for name, layer, scale, shift in zip(
            self.norms, layers, parts[::2], parts[1::2], strict=True
        ):
            norms |= {
                f"{name}.weight": layer.weight * (1 + scale),
                f"{name}.bias": layer.bias + shift,
            }  # pyright: ignore
        return norms, rest.chunk(2)

    def _written(self, z: Tensor, y: Tensor) -> Tensor:
        return widened(self.writer(class_means(z, y)))  # (ways, d + 1)

    def _answers(self, weights: Tensor, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return z @ weights[:, :-1].T + weights[:, -1]  # (m, ways)

    def _features(
        self, norms: dict[str, Tensor], ends: tuple[Tensor, ...], x: Tensor
    ) -> Tensor:
        """The conditioned features (m, d) of x (m, *x_shape), divided by the root of
        d.
        """
        z = widened(functional_call(self.encoder, norms, (x,)).flatten(1))
        return (z * (1 + ends[0]) + ends[1]) / z.shape[1] ** 0.5
