"""From a code back to an input."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.task import TaskSpec
from innerloop.nets.conv import ConvBlock


def perceptron(into: int, out: int, width: int, depth: int) -> nn.Sequential:
    """`depth` hidden layers of `width` ReLU units, and a linear one."""
    sizes = [into, *[width] * depth]
    hidden = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], out))


class ImageDecoder(nn.Module):
    """Codes (n, into) to images (n, channels, height, width), unbounded: three convolution blocks, each at twice the size of the one before."""

    def __init__(self, into: int, x_shape: tuple[int, ...], filters: int = 64):
        super().__init__()
        self.x_shape, self.filters = x_shape, filters
        self.side = tuple(-(-size // 4) for size in x_shape[1:])
        self.start = nn.Linear(into, filters * self.side[0] * self.side[1])
        self.blocks = nn.ModuleList(ConvBlock(a, b) for a, b in ((filters, filters), (filters, filters // 2), (filters // 2, filters // 4)))
        self.end = nn.Linear(filters // 4, x_shape[0])

    def forward(self, code: Tensor) -> Tensor:
        h = F.relu(self.start(code)).unflatten(-1, (self.filters, *self.side))
        for i, block in enumerate(self.blocks):
            h = block(h if i == 0 else h.repeat_interleave(2, -1).repeat_interleave(2, -2))
        return self.end(h.movedim(-3, -1)).movedim(-1, -3)[..., : self.x_shape[1], : self.x_shape[2]]


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
    return ImageDecoder(into, spec.x_shape) if spec.is_image else VectorDecoder(into, spec.x_shape)
