"""From a code back to an input."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from innerloop.core.task import TaskSpec
from innerloop.nets.norm import BatchNorm


def perceptron(into: int, out: int, width: int, depth: int) -> nn.Sequential:
    """`depth` hidden layers of `width` ReLU units, and a linear one."""
    sizes = [into, *[width] * depth]
    hidden = [
        layer
        for a, b in itertools.pairwise(sizes)
        for layer in (nn.Linear(a, b), nn.ReLU())
    ]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], out))


class ImageDecoder(nn.Module):
    """Codes (n, into) to images (n, channels, height, width), unbounded: a perceptron
    to maps of a quarter of the size, and two transposed convolutions, each of which
    doubles it, as in Radford et al. 2016, arXiv:1511.06434, section 3.
    """

    def __init__(
        self, into: int, x_shape: tuple[int, ...], filters: int = 64, width: int = 512
    ):
        super().__init__()
        channels, self.height, self.width = x_shape
        sides = -(-self.height // 4), -(-self.width // 4)
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
    """Codes (n, into) to inputs (n, *x_shape), unbounded, by a perceptron."""

    def __init__(self, into: int, x_shape: tuple[int, ...], width: int = 128):
        super().__init__()
        self.x_shape = x_shape
        self.net = perceptron(into, TaskSpec("reals", x_shape, 1).x_size, width, 2)

    def forward(self, code: Tensor) -> Tensor:
        return self.net(code).unflatten(-1, self.x_shape)


def decoder(spec: TaskSpec, into: int) -> nn.Module:
    """A suitable decoder for the inputs of `spec`."""
    return (
        ImageDecoder(into, spec.x_shape)
        if spec.is_image
        else VectorDecoder(into, spec.x_shape)
    )
