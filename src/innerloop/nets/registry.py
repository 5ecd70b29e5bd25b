"""Suitable networks for a task's shape, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.task import TaskSpec
from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError
from innerloop.nets.conv import Conv4, Conv6
from innerloop.nets.text import TextEncoder
from innerloop.nets.transformers import bert


class Headed(nn.Module):
    """An encoder and a linear head on its features: what a task-specific classifier or
    regressor is made of.
    """

    def __init__(self, encoder: nn.Module, features: int, out_dim: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(features, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


def mlp(spec: TaskSpec, width: int = 40, depth: int = 2) -> nn.Module:
    """Fully connected ReLU layers, as for the sinusoid of Finn et al. 2017 (section
    5.1): 40-40.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    size = spec.x_size
    for _ in range(depth):
        layers += [nn.Linear(size, width), nn.ReLU()]
        size = width
    return nn.Sequential(*layers)


ENCODERS: dict[str, Callable[[TaskSpec], nn.Module]] = {
    "conv4": lambda spec: Conv4(spec.x_shape),
    "conv6": lambda spec: Conv6(spec.x_shape),
    "mlp": mlp,
    "wide-mlp": lambda spec: mlp(spec, 256),
    "flatten": lambda spec: nn.Flatten(),
    "transformer": lambda spec: TextEncoder(spec.vocabulary, spec.x_size),
    "bert": bert,
}


def encoder(
    spec: TaskSpec,
    given: nn.Module | str | None = None,
    image: str = "conv4",
    vector: str = "mlp",
) -> nn.Module:
    """An encoder (n, *x_shape) to (n, features): the given module or the named one,
    else a transformer for tokens, `image` for images and `vector` for the rest.

    Raises ValueError for a name that does not exist or does not fit the shape.
    """
    if isinstance(given, nn.Module):
        return given
    name = given or (
        "transformer" if spec.vocabulary else image if spec.is_image else vector
    )
    if name not in ENCODERS:
        raise InnerloopError(
            f"there is no network {name!r}{did_you_mean(name, ENCODERS)}"
        )
    if name.startswith("conv") and not spec.is_image:
        raise InnerloopError(
            f"{name} reads images (channels, height, width), but the inputs have shape {spec.x_shape}: try mlp"
        )
    if (name in ("transformer", "bert")) != (spec.vocabulary > 0):
        raise InnerloopError(
            f"a transformer reads tokens, and nothing else does: {name} does not fit these inputs"
        )
    return ENCODERS[name](spec)


def flat_features(net: nn.Module, spec: TaskSpec) -> int:
    """How many features `net` gives for one input of `spec`."""
    like = next(net.parameters(), torch.empty(0))
    with torch.no_grad():
        modes = {module: module.training for module in net.modules()}
        features = (
            net.eval()(
                torch.zeros(1, *spec.x_shape, device=like.device, dtype=like.dtype)
            )
            .flatten(1)
            .shape[1]
        )
        for module, mode in modes.items():  # frozen parts stay frozen
            module.training = mode
    return features


def reading(
    spec: TaskSpec,
    out_dim: int,
    given: nn.Module | str | None = None,
    vector: str = "flatten",
) -> dict[str, Any]:
    """What a learner needs that reads features beside labels: an encoder, and the sizes
    of features, labels and answers.
    """
    body = encoder(spec, given, vector=vector)
    return {
        "encoder": body,
        "features": flat_features(body, spec),
        "y_dim": spec.y_dim,
        "out_dim": out_dim,
    }


def headed(
    spec: TaskSpec, out_dim: int, given: nn.Module | str | None = None
) -> nn.Module:
    """The default task network: Conv4 with 64 filters on images, an MLP 40-40 on
    vectors, each with a linear head; or the given module.
    """
    if isinstance(given, nn.Module):
        return given
    body = encoder(spec, given)
    return Headed(body, flat_features(body, spec), out_dim)
