"""ResNet-12, the residual encoder of the few-shot papers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.nets.conv import normalized
from innerloop.nets.norm import BatchNorm

SLOPE = 0.1  # of the leaky ReLU
DROPPED = 0.1  # share of the outputs of a block that are dropped in training


class NormConv(nn.Module):
    """A convolution with `size` x `size` filters and batch normalization."""

    def __init__(self, channels_in: int, channels_out: int, size: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, size, bias=False)
        self.norm = BatchNorm(channels_out)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        return normalized(x, self.conv.weight, self.norm)


class DropBlock(nn.Module):
    """In training mode, sets squares of `size` x `size` places of a channel to zero,
    each place with a probability of about `rate`, and scales the rest up. Ghiasi, Lin
    and Le 2018, "DropBlock: a regularization method for convolutional networks",
    arXiv:1810.12890, Algorithm 1.

    Squares lie within the map; a smaller map is dropped as a whole.
    """

    def __init__(self, size: int, rate: float = DROPPED):
        super().__init__()
        self.size, self.rate = size, rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        height, width = x.shape[2:]
        sizes = min(self.size, height), min(self.size, width)
        corners = height - sizes[0] + 1, width - sizes[1] + 1
        area, places = sizes[0] * sizes[1], corners[0] * corners[1]
        probability = self.rate / area * height * width / places  # Ghiasi, eq. (1)
        drawn = torch.rand(*x.shape[:2], *corners, device=x.device) < probability
        pads = [side - 1 for side in reversed(sizes) for _ in range(2)]
        padded = F.pad(drawn.to(x.dtype), pads)
        kept = 1 - F.max_pool2d(padded, sizes, stride=1)
        scale = kept.numel() / kept.float().sum().clamp(min=1)
        return x * (kept * scale.to(x.dtype))


class ResidualBlock(nn.Module):
    """Three 3x3 convolutions, added to a 1x1 convolution of the input, 2x2 max-pooling
    and leaky ReLU; then `drop`.
    """

    def __init__(
        self, channels_in: int, channels_out: int, pool: bool, drop: nn.Module
    ):
        super().__init__()
        self.convs = nn.ModuleList(
            NormConv(c, channels_out) for c in (channels_in, channels_out, channels_out)
        )
        self.shortcut = NormConv(channels_in, channels_out, 1)
        self.pool, self.drop = pool, drop

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.convs
        z = F.leaky_relu(first(x), SLOPE)
        z = F.leaky_relu(second(z), SLOPE)
        z = third(z) + self.shortcut(x)
        # before the leaky ReLU, which is the same and cheaper
        z = F.max_pool2d(z, 2) if self.pool else z
        return self.drop(F.leaky_relu(z, SLOPE))


class ResNet12(nn.Sequential):
    """A residual encoder of four blocks of three 3x3 convolutions with batch
    normalization and leaky ReLU. Oreshkin, Rodríguez López and Lacoste 2018, "TADAM:
    task dependent adaptive metric for improved few-shot learning", arXiv:1805.10123,
    section 4; with the widths, dropout and DropBlock of Lee, Maji, Ravichandran and
    Soatto 2019, "Meta-learning with differentiable convex optimization",
    arXiv:1904.03758, section 4.1.

    (n, channels, height, width) to (n, filters of the last block): the mean over places
    as in Oreshkin 2018; with `flat`, all places as in Lee 2019, 4 times as many for
    32x32 images. In training mode, a tenth of the outputs of a block is dropped from
    the start; Lee 2019 raises this share during training.
    """

    def __init__(
        self,
        x_shape: tuple[int, ...],
        filters: Sequence[int] = (64, 160, 320, 640),
        flat: bool = False,
    ):
        side = min(x_shape[1:])
        square = 5 if side > 64 else 2  # of DropBlock
        layers: list[nn.Module] = []
        for i, (c, d) in enumerate(itertools.pairwise([x_shape[0], *filters])):
            drop = nn.Dropout(DROPPED) if i < 2 else DropBlock(square)
            layers.append(ResidualBlock(c, d, side >> i > 1, drop))
        mean = [] if flat else [nn.AdaptiveAvgPool2d(1)]
        super().__init__(*layers, *mean, nn.Flatten())
