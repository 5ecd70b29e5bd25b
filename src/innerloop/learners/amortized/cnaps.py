"""Features and a classifier that networks adapt to the task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.functional import functional_call
from innerloop.engine.options import Range
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.metric.distances import class_means
from innerloop.nets.conv import Conv4
from innerloop.nets.decoder import perceptron
from innerloop.nets.norm import BatchNorm
from innerloop.nets.registry import encoder, flat_features

# scales and shifts of normalization layers by name, those of the features, weights
State = tuple[dict[str, Tensor], tuple[Tensor, ...], Tensor]


class CNAPs(Learner):
    """CNAPs: generates feature scales, shifts and a head for each task.

    t = mean of g over the support set; scale, shift of a layer = (1 + a(t)) scale',
    shift' + b(t), as in FiLM; w_k = h(c_k), c_k the mean of the adapted features of
    class k; outputs = w f(x; t)

    Reference: Requeima, Gordon, Bronskill, Nowozin and Turner 2019, "Fast and flexible
    multi-task classification using conditional neural adaptive processes",
    arXiv:1906.07697, section 2. FiLM: Perez, Strub, de Vries, Dumoulin and Courville
    2018, "FiLM: visual reasoning with a general conditioning layer", arXiv:1709.07871.
    In the paper f is trained before and frozen; here everything is trained together.

    State: scales and shifts of the normalization layers by name, those of the features
    (d,), and the weights (ways, d + 1) of the classes.

    Args:
        encoder: the network f, whose batch normalizations and features are adapted.
        set_encoder: the network g.
        film: the network from t to all scales and shifts.
        generator: the network h.
        width: size of t, and units of the layers of film and generator.
    """

    encoder: nn.Module
    set_encoder: nn.Module
    film: nn.Module
    generator: nn.Module
    _: KW_ONLY
    width: Annotated[int, Range(2)] = 64
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
        super().__post_init__()
        self.norms = [
            name
            for name, module in self.encoder.named_modules()
            if isinstance(module, BatchNorm)
        ]

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body = encoder(spec, build_args.get("encoder"))
        width = build_args.get("width", cls.width)
        features = flat_features(body, spec)
        norms = [module for module in body.modules() if isinstance(module, BatchNorm)]
        numbers = sum(norm.weight.numel() for norm in norms) + features
        if spec.is_image:
            set_encoder = Conv4(spec.x_shape, width // 2)
        else:
            set_encoder = encoder(spec)
        film = perceptron(flat_features(set_encoder, spec), 2 * numbers, width, 1)
        # at first, all tasks are nearly alike
        last = cast(nn.Linear, film[-1])
        last.weight.data *= 0.1
        last.bias.data.zero_()
        return {
            "encoder": body,
            "set_encoder": set_encoder,
            "film": film,
            "generator": perceptron(features, features + 1, 4 * width, 1),
        }

    def adapt(self, support: Examples) -> State:
        norms, last = self._conditions(self.set_encoder(support.x))
        z = self._features(norms, last, support.x)
        return norms, last, self._weights(z, support.y)

    def predict(self, state: State, x: Tensor) -> Tensor:
        norms, last, weights = state
        return self._outputs(weights, self._features(norms, last, x))

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        # support and query set are normalized together
        n = len(task.support.y)
        x = torch.cat([task.support.x, task.query.x])
        z = self._features(*self._conditions(self.set_encoder(x)[:n]), x)
        outputs = self._outputs(self._weights(z[:n], task.support.y), z[n:])
        nll = self.likelihood.nll(outputs, task.query.y)
        return nll, self.likelihood.metrics(outputs, task.query.y)

    def _conditions(self, z: Tensor) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Scales and shifts of the normalization layers by name, and those of the
        features (d,), from task features z (n, features).
        """
        numbers = widened(self.film(z.mean(0)))  # (numbers,)
        layers = [cast(BatchNorm, self.encoder.get_submodule(n)) for n in self.norms]
        sizes = [layer.weight.numel() for layer in layers for _ in range(2)]
        *parts, last = numbers.split([*sizes, len(numbers) - sum(sizes)])
        norms: dict[str, Tensor] = {}
        for i, (name, layer) in enumerate(zip(self.norms, layers, strict=True)):
            scale, shift = parts[2 * i : 2 * i + 2]
            norms[f"{name}.weight"] = layer.weight * (1 + scale)
            norms[f"{name}.bias"] = layer.bias + shift
        return norms, last.chunk(2)

    def _weights(self, z: Tensor, y: Tensor) -> Tensor:
        return widened(self.generator(class_means(z, y)))  # (ways, d + 1)

    def _outputs(self, weights: Tensor, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return z @ weights[:, :-1].T + weights[:, -1]  # (m, ways)

    def _features(
        self, norms: dict[str, Tensor], last: tuple[Tensor, ...], x: Tensor
    ) -> Tensor:
        """The adapted features (m, d) of x (m, *x_shape), divided by the square root of
        d.
        """
        z = widened(functional_call(self.encoder, norms, (x,)).flatten(1))
        scale, shift = last
        return (z * (1 + scale) + shift) / z.shape[1] ** 0.5
