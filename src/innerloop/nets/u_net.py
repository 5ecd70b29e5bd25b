"""Networks from images to maps of the same size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.nets.conv import ConvBlock

STRIDE = 8  # of the coarsest features


class Pyramid(nn.Module):
    """Images (n, channels, height, width) to features at strides of 2, 4 and 8, of
    `filters`, twice and four times as many; before them, the pixels themselves, four of
    them in a place.
    """

    def __init__(self, channels: int, filters: int):
        super().__init__()
        wide, widest = 2 * filters, 4 * filters
        self.fine = ConvBlock(4 * channels, filters)
        self.middle = ConvBlock(filters, wide, stride=2)
        self.coarse = nn.Sequential(
            ConvBlock(wide, widest, stride=2),
            ConvBlock(widest, widest),
            ConvBlock(widest, widest),
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        pixels = F.pixel_unshuffle(x, 2)
        fine = self.fine(pixels)
        middle = self.middle(fine)
        return [pixels, fine, middle, self.coarse(middle)]


class ConditionedUNet(nn.Module):
    """A U-Net whose coarsest features f are compared with a code z, the same in every
    place: f / |f| * z / |z|, beside f, goes on to the decoder. Their sum over features
    would be the cosine of f and z.

    Images x (n, channels, height, width), with sides that 8 divides, and codes z (n, 4
    filters), to (n, maps, height, width). Ronneberger, Fischer and Brox 2015, "U-Net:
    convolutional networks for biomedical image segmentation", arXiv:1505.04597, with
    two pixels a side in a place at the finest level.
    """

    def __init__(self, channels: int, filters: int, maps: int):
        super().__init__()
        wide, widest = 2 * filters, 4 * filters
        self.down = Pyramid(channels, filters)
        self.compare = ConvBlock(2 * widest, widest)
        self.middle = ConvBlock(widest + wide, wide)
        self.fine = ConvBlock(wide + filters + 4 * channels, filters)
        self.out = nn.Conv2d(filters, 4 * maps, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        pixels, fine, middle, coarse = self.down(x)
        places = F.normalize(coarse, dim=1) * F.normalize(z, dim=1)[..., None, None]
        h = self.compare(torch.cat([places * coarse.shape[1], coarse], 1))
        h = self.middle(torch.cat([_doubled(h), middle], 1))
        h = self.fine(torch.cat([_doubled(h), fine, pixels], 1))
        return F.pixel_shuffle(self.out(h), 2)


class WindowEncoder(nn.Module):
    """Images (n, channels, *size), with sides that 8 divides, to codes (n, 4
    filters).
    """

    def __init__(self, channels: int, size: tuple[int, int], filters: int):
        super().__init__()
        self.down = Pyramid(channels, filters)
        places = (size[0] // STRIDE) * (size[1] // STRIDE)
        self.code = nn.Linear(4 * filters * places, 4 * filters)

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self.down(x)[-1].flatten(1))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
