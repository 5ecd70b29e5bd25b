"""Convolutional encoders for small images."""

from __future__ import annotations

import itertools
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.nets.norm import BatchNorm

Net = TypeVar("Net", bound=nn.Module)


class ConvBlock(nn.Module):
    """3x3 convolution, batch normalisation, ReLU and, if asked, 2x2 max-pooling (before the ReLU, which is the same and cheaper)."""

    def __init__(self, channels_in: int, channels_out: int, pool: bool):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)  # the normalisation has a bias of its own
        self.norm, self.pool = BatchNorm(channels_out), pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return F.relu(F.max_pool2d(x, 2) if self.pool else x)


class Conv4(nn.Sequential):
    """The encoder of the few-shot papers: four blocks of `filters` 3x3 filters, each pooled. Vinyals et al. 2016, arXiv:1606.04080, section 4.1.

    (n, channels, height, width) to (n, features): 64 for 28x28 images, 1,600 for 84x84. `pooled` blocks are pooled, the first ones; without `flat`
    the outputs are maps (n, filters, height, width).
    """

    def __init__(self, x_shape: tuple[int, ...], filters: int = 64, blocks: int = 4, pooled: int = 4, flat: bool = True):
        channels = [x_shape[0], *[filters] * blocks]
        layers: list[nn.Module] = []
        height, width = x_shape[1:]
        for i, (c, d) in enumerate(itertools.pairwise(channels)):
            pool = i < pooled and min(height, width) > 1
            layers.append(ConvBlock(c, d, pool))
            height, width = (height // 2, width // 2) if pool else (height, width)
        super().__init__(*layers, *([nn.Flatten()] if flat else []))


class Conv6(nn.Sequential):
    """A stronger and still small encoder: five blocks of 48, 96, 96, 128 and 128 filters, then a 1x1 convolution to 64 channels.

    Pooled after the first, third and fifth block (images over 32 pixels also after the second and fourth), so that 28x28 images keep 3x3 places:
    (n, channels, height, width) to (n, 576).
    """

    def __init__(self, x_shape: tuple[int, ...]):
        channels = [x_shape[0], 48, 96, 96, 128, 128]
        size = min(x_shape[1:])
        pooled = {0, 2, 4} if size <= 32 else {0, 1, 2, 4} if size <= 64 else {0, 1, 2, 3, 4}
        blocks = [ConvBlock(c, d, i in pooled and size >> sorted(pooled).index(i) > 1) for i, (c, d) in enumerate(itertools.pairwise(channels))]
        super().__init__(*blocks, nn.Conv2d(channels[-1], 64, 1), nn.Flatten())


def channels_last(net: Net) -> Net:
    """The same net with convolution weights laid out for channels-last images, the faster layout on CPUs and tensor cores."""
    return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
