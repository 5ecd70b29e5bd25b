"""Small random changes of inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

DROPPED = 0.2  # share of the tokens that are left out of a text


@dataclass(frozen=True)
class Warp:
    """A small random distortion of an image; every value is drawn uniformly from plus
    or minus its field.

    Reference: Simard, Steinkraus and Platt 2003, "Best practices for convolutional
    neural networks applied to visual document analysis", ICDAR, section 2.

    Args:
        degrees: rotation.
        scale, shear, shift: of the affine map, as fractions.
        elastic: how far each of 4x4 control points moves beside the affine map, as a
            fraction of half the image; the image between them follows smoothly.
        mirror: flip half of the images, left to right.
        edge: what lies outside an image: "zeros" for black, or "border" for its
            outermost pixels.
    """

    degrees: float = 7.0
    scale: float = 0.1
    shear: float = 0.1
    shift: float = 0.06
    elastic: float = 0.1
    mirror: bool = False
    edge: Literal["zeros", "border"] = "zeros"

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (n, channels, height, width), each distorted in its own way."""
        u = torch.rand(len(images), 39, generator=generator).mul_(2).sub_(1)
        angle, shear = u[:, 0] * math.radians(self.degrees), u[:, 1:3] * self.shear
        scale, shift = 1 + u[:, 3:5] * self.scale, u[:, 5:7] * self.shift * 2
        rotation = torch.stack(
            [angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1
        ).view(-1, 2, 2)
        skew = torch.diag_embed(scale)
        skew[:, 0, 1], skew[:, 1, 0] = shear[:, 0], shear[:, 1]
        elastic = u[:, 7:].view(-1, 2, 16) * self.elastic
        maps = torch.cat(
            [rotation @ skew, shift[:, :, None], elastic], -1
        )  # (n, 2, 19)
        if self.mirror:
            flipped = torch.randint(2, (len(images), 1), generator=generator)
            maps[:, 0] *= 1 - 2 * flipped
        places = _fields(*images.shape[2:]) @ maps.mT  # (n, height * width, 2)
        return F.grid_sample(
            images,
            places.view(-1, *images.shape[2:], 2).to(images),
            padding_mode=self.edge,
            align_corners=False,
        )


@lru_cache(maxsize=8)
def _fields(height: int, width: int) -> Tensor:
    """The functions of a pixel's place whose sums are the maps (height * width, 19): x,
    y and 1, then one bicubic bump for each of 4x4 control points.
    """
    y, x = (
        torch.linspace(1 / size - 1, 1 - 1 / size, size) for size in (height, width)
    )
    down, across = (
        F.interpolate(
            torch.eye(4)[None, None], (size, 4), mode="bicubic", align_corners=True
        )[0, 0]
        for size in (height, width)
    )
    straight = torch.stack(
        [
            x.expand(height, width),
            y[:, None].expand(height, width),
            torch.ones(height, width),
        ],
        -1,
    )
    bumps = torch.einsum("hi,wj->hwij", down, across)
    return torch.cat([straight.flatten(0, 1), bumps.reshape(height * width, 16)], 1)


def augmented(
    x: Tensor, tokens: bool, noise: float, generator: torch.Generator
) -> Tensor:
    """Changed copies of inputs (n, *x_shape): images are moved, turned, scaled and,
    with three channels, mirrored; texts of `tokens` lose some; other inputs get
    Gaussian noise, as long as a fraction `noise` of the input.
    """
    if x.dim() == 4:
        return Warp(3, 0.1, 0, 0.08, 0, mirror=x.shape[1] == 3, edge="border")(
            x, generator
        )
    if tokens:
        kept = torch.rand(x.shape, generator=generator) >= DROPPED
        return x * kept.to(x)
    size = x.square().mean(tuple(range(1, x.dim())), keepdim=True).sqrt()
    return x + noise * size * torch.randn(x.shape, generator=generator).to(x)
