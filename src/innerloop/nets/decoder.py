"""Networks from a code back to an input."""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn

from innerloop.core.task import TaskSpec
from innerloop.nets.norm import BatchNorm


def perceptron(into: int, out: int, width: int, depth: int) -> nn.Sequential:
    """`depth` hidden layers of `width` ReLU units, and a linear output layer."""
    sizes = [into, *[width] * depth]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], out))


class ImageDecoder(nn.Module):
    """Codes (n, into) to images (n, channels, height, width), without bounds: a
    perceptron to maps of a quarter of the size, and two transposed convolutions, each
    of which doubles it. Radford, Metz and Chintala 2016, "Unsupervised representation
    learning with deep convolutional generative adversarial networks",
    arXiv:1511.06434, section 3.
    """

    def __init__(
        self, into: int, x_shape: tuple[int, ...], filters: int = 64, width: int = 512
    ):
        super().__init__()
        channels, self.height, self.width = x_shape
        sides = math.ceil(self.height / 4), math.ceil(self.width / 4)
        self.net = nn.Sequential(
            perceptron(into, filters * sides[0] * sides[1], width, 1),
            nn.ReLU(),
            nn.Unflatten(-1, (filters, *sides)),
            nn.ConvTranspose2d(filters, filters // 2, 4, 2, 1, bias=False),
            BatchNorm(filters // 2),
            nn.ReLU(),
            nn.ConvTranspose2d(filters // 2, channels, 4, 2, 1),
        )

    def forward(self, code: Tensor) -> Tensor:
        return self.net(code)[..., : self.height, : self.width]


class VectorDecoder(nn.Module):
    """Codes (n, into) to inputs (n, *x_shape), without bounds, by a perceptron."""

    def __init__(self, into: int, x_shape: tuple[int, ...], width: int = 128):
        super().__init__()
        self.x_shape = x_shape
        self.net = perceptron(into, math.prod(x_shape), width, 2)

    def forward(self, code: Tensor) -> Tensor:
        return self.net(code).unflatten(-1, self.x_shape)


def decoder(
    spec: TaskSpec, into: int, filters: int = 64, width: int = 512
) -> nn.Module:
    """A suitable decoder for the inputs of `spec`; `filters` and `width` are those of
    an `ImageDecoder`.
    """
    if spec.is_image:
        return ImageDecoder(into, spec.x_shape, filters, width)
    return VectorDecoder(into, spec.x_shape)
