"""Convolutional encoders for small images."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.engine.mapping import loops_on_cpu
from innerloop.nets.fused_conv import native
from innerloop.nets.fused_conv.autograd import block
from innerloop.nets.norm import BatchNorm


class Conv3x3(nn.Conv2d):
    """The convolution of a `ConvBlock`, which runs it together with what follows."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1):
        # the normalization has a bias of its own
        super().__init__(channels_in, channels_out, 3, stride, padding=1, bias=False)


@loops_on_cpu.register
def _(convolution: Conv3x3) -> bool:
    # the compiled code takes a batch of tasks with filters of their own
    return native.library() is None


def normalized(x: Tensor, weight: Tensor, norm: BatchNorm, stride: int = 1) -> Tensor:
    """The normalized convolution of x (n, in, height, width) with weight (out, in, k,
    k), k odd, to the height and width divided by `stride`; by torch, in channels-last
    layout.

    With settled statistics, the normalization is part of the filters and the bias.
    """
    padding = weight.shape[-1] // 2
    weight = weight.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    if norm.uses_batch():
        return norm(F.conv2d(x, weight, None, stride, padding))
    scale, shift = norm.affine(norm.mean, norm.var)
    return F.conv2d(x, weight * scale.view(-1, 1, 1, 1), shift, stride, padding)


class ConvBlock(nn.Module):
    """3x3 convolution, batch normalization, ReLU and, with `pool`, 2x2 max-pooling
    (before the ReLU, which is the same and cheaper).

    On a CPU it is one compiled operation. With settled statistics, normalizing is an
    affine map of every channel, which the convolution does with scaled filters and a
    bias.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        pool: bool = False,
        relu: bool = True,
        stride: Literal[1, 2] = 1,
    ):
        super().__init__()
        self.conv, self.stride = Conv3x3(channels_in, channels_out, stride), stride
        self.norm, self.pool, self.relu = BatchNorm(channels_out), pool, relu

    def forward(self, x: Tensor) -> Tensor:
        norm, weight, pool = self.norm, self.conv.weight, 2 if self.pool else 1
        how = pool, self.relu, self.stride
        if native.usable(x, weight, norm.weight, norm.bias, pool, self.stride):
            if not norm.uses_batch():
                affine = norm.affine(norm.mean, norm.var)
                return block(x, weight, *affine, None, *how)[0]
            out, mean, var = block(x, weight, norm.weight, norm.bias, norm.eps, *how)
            norm.note(mean, var)
            return out
        x = normalized(x, weight, norm, self.stride)
        x = F.max_pool2d(x, pool) if self.pool else x
        return F.relu(x) if self.relu else x


class Shortcut(nn.Module):
    """Two blocks whose output is added to their input. He, Zhang, Ren and Sun 2016,
    "Deep residual learning for image recognition", arXiv:1512.03385, eq. (1).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.blocks = nn.Sequential(
            ConvBlock(channels, channels), ConvBlock(channels, channels, relu=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.blocks(x))


class Conv4(nn.Sequential):
    """The encoder of the few-shot papers: four blocks of `filters` 3x3 filters, each
    pooled. Vinyals et al. 2016, arXiv:1606.04080, section 4.1.

    (n, channels, height, width) to (n, features): 64 for 28x28 images, 1,600 for 84x84.
    `pooled` blocks are pooled, the first ones; without `flat` the outputs are maps (n,
    filters, height, width). With `strided`, they have a stride of 2 instead, rounding
    sizes up: 256 features for 28x28 images, in a quarter of the multiplications. Finn
    et al. 2017, arXiv:1703.03400, section 5.2, and later work use this on Omniglot.
    """

    def __init__(
        self,
        x_shape: tuple[int, ...],
        filters: int = 64,
        blocks: int = 4,
        pooled: int = 4,
        flat: bool = True,
        strided: bool = False,
    ):
        channels = [x_shape[0], *[filters] * blocks]
        layers: list[nn.Module] = []
        height, width = x_shape[1:]
        for i, (c, d) in enumerate(itertools.pairwise(channels)):
            pool = i < pooled and min(height, width) > 1
            if pool and strided:
                layers.append(ConvBlock(c, d, stride=2))
                height, width = (height + 1) // 2, (width + 1) // 2
            else:
                layers.append(ConvBlock(c, d, pool))
                height, width = (height // 2, width // 2) if pool else (height, width)
        super().__init__(*layers, *([nn.Flatten()] if flat else []))


class Conv4Concat(Conv4):
    """`Conv4` with the outputs of its last two blocks side by side, as Bertinetto et
    al. 2019, arXiv:1805.08136, section 4.2, read their network: (n, channels, height,
    width) to (n, features), 1,280 for 32x32 images.

    Its weights are those of a `Conv4`.
    """

    def __init__(self, x_shape: tuple[int, ...]):
        super().__init__(x_shape, flat=False)

    def forward(self, input: Tensor) -> Tensor:
        *first, last = self
        x = nn.Sequential(*first)(input)
        return torch.cat([x.flatten(1), last(x).flatten(1)], 1)


class Conv6(nn.Sequential):
    """A stronger and still small encoder: blocks of 48, 96, 128, 128 and 128 filters,
    the last two with a shortcut, then a 1x1 convolution to 64.

    Pooled after the first two blocks (images over 32 pixels also after the third, over
    64 also after the fifth), so that 28x28 images keep 7x7 places: (n, channels,
    height, width) to (n, 3136).
    """

    def __init__(self, x_shape: tuple[int, ...]):
        size = min(x_shape[1:])
        layers: list[nn.Module] = []
        for i, (c, d) in enumerate(itertools.pairwise([x_shape[0], 48, 96, 128])):
            layers.append(ConvBlock(c, d, pool=size >> i > 1 and (i < 2 or size > 32)))
        layers.append(Shortcut(128))
        super().__init__(
            *layers,
            *([nn.MaxPool2d(2)] if size > 64 else []),
            nn.Conv2d(128, 64, 1),
            nn.Flatten(),
        )
