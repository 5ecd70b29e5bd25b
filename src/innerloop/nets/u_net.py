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
            ConvBlock(widest, widest, relu=False),
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        pixels = F.pixel_unshuffle(x, 2)
        fine = self.fine(pixels)
        middle = self.middle(fine)
        return [pixels, fine, middle, self.coarse(middle)]


class MatchingUNet(nn.Module):
    """A U-Net whose coarsest features are compared, at every place, with those of an
    example; the products, feature by feature, go on to the decoder beside the features.

    Images x (n, channels, height, width), with sides that 8 divides, and the features
    of examples (n, 4 filters, high, wide), to (n, maps, height, width). Ronneberger,
    Fischer and Brox 2015, "U-Net: convolutional networks for biomedical image
    segmentation", arXiv:1505.04597, with two pixels a side in a place at the finest
    level.
    """

    def __init__(self, channels: int, filters: int, maps: int):
        super().__init__()
        wide, widest = 2 * filters, 4 * filters
        self.down = Pyramid(channels, filters)
        self.compare = ConvBlock(2 * widest, widest)
        self.middle = ConvBlock(widest + wide, wide)
        self.fine = ConvBlock(wide + filters + 4 * channels, filters)
        self.out = nn.Conv2d(filters, 4 * maps, 1)

    def forward(self, x: Tensor, example: Tensor) -> Tensor:
        pixels, fine, middle, coarse = self.down(x)
        h = self.compare(torch.cat([correlated(coarse, example), coarse], 1))
        h = self.middle(torch.cat([_doubled(h), middle], 1))
        h = self.fine(torch.cat([_doubled(h), fine, pixels], 1))
        return F.pixel_shuffle(self.out(h), 2)


def correlated(features: Tensor, example: Tensor) -> Tensor:
    """The correlation of features (n, d, height, width) with the features of examples
    (n, d, high, wide) around every place, feature by feature (n, d, height, width):
    their mean over features is the cosine of both.
    """
    d, height, width = features.shape[1:]
    high, wide = example.shape[2:]
    around = (wide // 2, (wide - 1) // 2, high // 2, (high - 1) // 2)
    patches = F.unfold(F.pad(features, around), (high, wide)).unflatten(1, (d, -1))
    products = (patches * example.flatten(2)[..., None]).sum(2)  # (n, d, places)
    lengths = (patches.square().sum((1, 2)) + 1e-6).sqrt()  # (n, places)
    own = (example.square().sum((1, 2, 3)) + 1e-6).sqrt()
    cosines = d * products / (lengths * own[:, None])[:, None]
    return cosines.unflatten(-1, (height, width))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
