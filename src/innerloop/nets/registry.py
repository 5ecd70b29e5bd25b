"""Networks by name, suitable for the inputs of a task."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.task import TaskSpec
from innerloop.encoders import open_encoder, split_name, trained_part
from innerloop.encoders.frozen import feature_count
from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError
from innerloop.engine.user_file import from_file, is_in_file
from innerloop.nets.adapter import Adapter, adapter
from innerloop.nets.conv import Conv4, Conv4Concat, Conv6
from innerloop.nets.resnet import ResNet12
from innerloop.nets.text import TextEncoder
from innerloop.nets.transformers import bert


class Headed(nn.Module):
    """An encoder and a linear head on its features: the usual task network."""

    def __init__(self, encoder: nn.Module, features: int, out_dim: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(features, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


def mlp(
    spec: TaskSpec,
    width: int = 40,
    depth: int = 2,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Module:
    """Fully connected layers, 40-40 with ReLU by default as for the sinusoids of Finn,
    Abbeel and Levine 2017, arXiv:1703.03400, section 5.1.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    size = spec.x_size
    for _ in range(depth):
        layers += [nn.Linear(size, width), activation()]
        size = width
    return nn.Sequential(*layers)


def embedding(spec: TaskSpec, width: int = 32) -> nn.Module:
    """A linear layer: a learned vector for every item, which a one-hot row chooses,
    plus learned multiples of further features.
    """
    layer = nn.Linear(spec.x_size, width, bias=False)
    nn.init.normal_(layer.weight)
    return nn.Sequential(nn.Flatten(), layer)


class Beside(nn.Module):
    """Two networks side by side: `first` on the first numbers of an input, and `second`
    on the rest as an image; the outputs of each, scaled to equal lengths, together as
    long as those of an `Adapter`.
    """

    def __init__(self, first: nn.Module, second: nn.Module, image: TaskSpec):
        super().__init__()
        self.first, self.second, self.image = first, second, image

    def forward(self, x: Tensor) -> Tensor:
        split = x.shape[1] - self.image.x_size
        outputs = (
            self.first(x[:, :split]),
            self.second(x[:, split:].unflatten(1, self.image.x_shape)),
        )
        parts = [F.normalize(z.flatten(1), dim=-1) for z in outputs]
        return Adapter.length / len(parts) ** 0.5 * torch.cat(parts, 1)


IMAGE_ENCODERS: dict[str, Callable[[TaskSpec], nn.Module]] = {
    "conv4": lambda spec: Conv4(spec.x_shape),
    "conv4-strided": lambda spec: Conv4(spec.x_shape, strided=True),
    "conv4-concat": lambda spec: Conv4Concat(spec.x_shape),
    "conv6": lambda spec: Conv6(spec.x_shape),
    "resnet12": lambda spec: ResNet12(spec.x_shape),
    "resnet12-flat": lambda spec: ResNet12(spec.x_shape, flat=True),
    "resnet12-narrow": lambda spec: ResNet12(spec.x_shape, (64, 128, 256, 512)),
}
ENCODERS: dict[str, Callable[[TaskSpec], nn.Module]] = {
    **IMAGE_ENCODERS,
    "mlp": mlp,
    "wide-mlp": lambda spec: mlp(spec, 256),
    "sigmoid-mlp": lambda spec: mlp(spec, 20, activation=nn.Sigmoid),
    "embedding": embedding,
    "flatten": lambda spec: nn.Flatten(),
    "adapter": adapter,
    "transformer": lambda spec: TextEncoder(spec.vocabulary, spec.x_size),
    "bert": bert,
}


def encoder(
    spec: TaskSpec,
    network: nn.Module | str | None = None,
    image: str = "conv4",
    vector: str = "mlp",
) -> nn.Module:
    """An encoder (n, *x_shape) to (n, features): `network`, a module or a name; by
    default a transformer for tokens, an embedding for items, `image` for images and
    `vector` for other inputs.
    `file.py:name` names a function of your own from the `TaskSpec` to a module. For the
    vectors of a pretrained encoder, its name stands for an adapter on top of them;
    "minilm:all" is the pretrained network itself.

    Raises InnerloopError for a name that does not exist or does not fit the inputs.
    """
    if isinstance(network, nn.Module):
        return network
    usual = "embedding" if spec.items else image if spec.is_image else vector
    name = network or ("transformer" if spec.vocabulary else usual)
    if (part := trained_part(name)) is not None:
        pretrained = open_encoder(part)
        if not pretrained.takes(spec.x_shape, spec.vocabulary):
            raise InnerloopError(
                f"{name} needs {pretrained.what}s as its own reader makes them; got "
                f"inputs of shape {spec.x_shape} with {spec.vocabulary} tokens"
            )
        network = pretrained.network()
        network.pretrained = True  # pyright: ignore[reportArgumentType]
        return network
    frozen, learned = split_name(name)
    if frozen:
        if not learned:
            return ENCODERS["adapter"](spec)
        size = spec.x_size - feature_count(frozen)
        side = math.isqrt(max(size, 0) // 3)
        if size != 3 * side**2 or not side:
            raise InnerloopError(
                f"{name} needs vectors of {frozen} with pixels beside them; got inputs "
                f"of shape {spec.x_shape}"
            )
        pixels = TaskSpec(spec.kind, (3, side, side), spec.y_dim)
        features = TaskSpec(spec.kind, (feature_count(frozen),), spec.y_dim)
        return Beside(ENCODERS["adapter"](features), encoder(pixels, learned), pixels)
    if is_in_file(name):
        own = from_file(name)(spec)
        if not isinstance(own, nn.Module):
            raise InnerloopError(
                f"{name} must return a module for a TaskSpec; got {type(own).__name__}"
            )
        return own
    if name not in ENCODERS:
        raise InnerloopError(
            f"there is no network {name!r}{did_you_mean(name, ENCODERS)}"
        )
    if name in IMAGE_ENCODERS and not spec.is_image:
        raise InnerloopError(
            f"{name} needs images (channels, height, width); got inputs of shape "
            f"{spec.x_shape}: try mlp"
        )
    if (name in ("transformer", "bert")) != (spec.vocabulary > 0):
        raise InnerloopError(
            f"{name} does not fit these inputs: tokens need transformer or bert, and "
            "other inputs need another network"
        )
    return ENCODERS[name](spec)


def flat_features(net: nn.Module, spec: TaskSpec) -> int:
    """The number of features that `net` returns for one input of `spec`."""
    like = next(net.parameters(), torch.empty(0))
    x = torch.zeros(1, *spec.x_shape, device=like.device, dtype=like.dtype)
    modes = {module: module.training for module in net.modules()}
    with torch.no_grad():
        features = net.eval()(x).flatten(1).shape[1]
    for module, mode in modes.items():  # one by one: frozen parts stay frozen
        module.training = mode
    return features


def reading(
    spec: TaskSpec,
    out_dim: int,
    network: nn.Module | str | None = None,
    vector: str = "flatten",
) -> dict[str, Any]:
    """The arguments of a learner that reads features and labels: an encoder, and the
    sizes of features, labels and outputs.
    """
    body = encoder(spec, network, vector=vector)
    return {
        "encoder": body,
        "features": flat_features(body, spec),
        "y_dim": spec.y_dim,
        "out_dim": out_dim,
    }


def headed(
    spec: TaskSpec, out_dim: int, network: nn.Module | str | None = None
) -> nn.Module:
    """A task network: `network` if it is a module, else the encoder of that name with a
    linear head; by default Conv4 on images and an MLP 40-40 on vectors.
    """
    if isinstance(network, nn.Module):
        return network
    body = encoder(spec, network)
    return Headed(body, flat_features(body, spec), out_dim)
