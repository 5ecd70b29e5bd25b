"""Networks for the velocity of a flow from noise to inputs, conditioned on examples."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.task import TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.nets.attention import attention
from innerloop.nets.decoder import perceptron
from innerloop.nets.norm import LayerNorm


class Velocity(nn.Module):
    """A velocity v(x, t | D) of inputs x (sets, n, *x_shape) at times t (sets, n), each
    set with its examples D.

    Args:
        width: size of a token.
        places: tokens of an example.
    """

    def __init__(self, width: int, places: int):
        super().__init__()
        if width % 32:
            raise InnerloopError(
                f"the width of a velocity network must be a multiple of 32; got {width}"
            )
        self.width, self.places = width, places
        self.time = nn.Sequential(
            nn.Linear(64, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width)
        )
        self.code = nn.Linear(width, 16)
        self.summary = nn.Linear(16 * places, 2 * width, bias=False)

    def from_inputs(self, x: Tensor) -> Tensor:
        """Inputs on the scale on which they flow."""
        return x

    def to_inputs(self, x: Tensor) -> Tensor:
        """The inverse of `from_inputs`."""
        return x

    def encode(self, x: Tensor) -> Tensor:
        """The tokens (n, places, width) of inputs (n, *x_shape)."""
        raise NotImplementedError

    def codes(self, tokens: Tensor) -> Tensor:
        """Tokens (n, places, width) as vectors (n, 16 * places), to compare inputs."""
        return self.code(tokens).flatten(1)

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, used: Tensor) -> Tensor:
        """The velocity (sets, n, *x_shape), given tokens of the examples of every set
        (sets, examples, places, width), and which of them to use (sets, examples), 0 or
        1; none for the velocity without examples.
        """
        rates = torch.exp(torch.arange(32, device=t.device) * (-math.log(1e3) / 31))
        angles = 1e3 * t[..., None] * rates.to(t)
        time = self.time(torch.cat([angles.cos(), angles.sin()], -1))
        mean = torch.einsum("se,sepw->spw", used, tokens.to(used.dtype))
        mean = mean / used.sum(1)[:, None, None].clamp_min(1)
        summary = self.summary(self.codes(mean))[:, None]
        condition = F.silu(time + summary).flatten(0, 1)
        visible = used.repeat_interleave(self.places, 1) > 0.5
        out = self.flow(x.flatten(0, 1), condition, mean, tokens.flatten(1, 2), visible)
        return out.unflatten(0, t.shape)

    def flow(
        self,
        x: Tensor,
        condition: Tensor,
        mean: Tensor,
        tokens: Tensor,
        visible: Tensor,
    ) -> Tensor:
        """The velocity (sets * n, *x_shape) of x.

        condition: a vector of the time and the set (sets * n, 2 * width).
        mean: of the tokens of the examples (sets, places, width).
        tokens, visible: all of them (sets, m, width), and which to use (sets, m).
        """
        raise NotImplementedError


class CrossAttention(nn.Module):
    """Attention of inputs to the tokens of their set and to a learned token, with a
    residual connection. Vaswani et al. 2017, arXiv:1706.03762, section 3.2.
    """

    def __init__(self, width: int, places: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.place = nn.Parameter(0.02 * torch.randn(places, width))
        self.empty = nn.Parameter(0.02 * torch.randn(width))
        self.norm = LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.keys = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, tokens: Tensor, visible: Tensor) -> Tensor:
        """x (sets * n, places, width), tokens (sets, m, width), visible (sets, m)."""
        sets = len(tokens)
        empty = self.empty.expand(sets, 1, -1)
        tokens = torch.cat([empty, tokens.to(empty.dtype)], 1)
        visible = torch.cat([torch.ones_like(visible[:, :1]), visible], 1)
        q = self.query(self.norm(x) + self.place).reshape(sets, -1, x.shape[-1])
        k, v = (self._split(part) for part in self.keys(tokens).chunk(2, -1))
        found = attention(self._split(q), k, v, visible[:, None, None])
        return x + self.out(found.transpose(1, 2).flatten(2)).reshape(x.shape)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Residual(nn.Module):
    """Two 3x3 convolutions with group normalization and SiLU before each, added to the
    input. With `condition`, the second normalization is scaled and shifted by a linear
    map of a vector of that size. Dhariwal and Nichol 2021, "Diffusion models beat GANs
    on image synthesis", arXiv:2105.05233, section 3.
    """

    def __init__(self, channels: int, condition: int = 0):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        self.film = nn.Linear(condition, 2 * channels) if condition else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = group_norm(self.first(F.silu(group_norm(x))))
        if self.film is not None:
            scale, shift = self.film(condition)[..., None, None].chunk(2, 1)
            h = torch.addcmul(shift, h, 1 + scale)
        return x + self.second(F.silu(h))


def group_norm(x: Tensor) -> Tensor:
    """Group normalization of 16 channels at a time, without scale and shift. Wu and He
    2018, "Group normalization", arXiv:1803.08494, eq. (7).
    """
    groups = x.shape[1] // 16
    if not torch._C._are_functorch_transforms_active():
        return F.group_norm(x, groups)
    # torch's operation refuses the channels-last layout under vmap
    z = x.unflatten(1, (groups, 16))
    var, mean = torch.var_mean(z, (2, 3, 4), correction=0, keepdim=True)
    return ((z - mean) * torch.rsqrt(var + 1e-5)).flatten(1, 2)


class ImageVelocity(Velocity):
    """A U-Net of two resolutions, a half and a quarter of the image's, whose coarse
    part attends to the examples. Ronneberger, Fischer and Brox 2015, "U-Net:
    convolutional networks for biomedical image segmentation", arXiv:1505.04597; with
    blocks of pixels in the place of a first resolution, as in Hoogeboom, Heek and
    Salimans 2023, "Simple diffusion: end-to-end diffusion for high resolution images",
    arXiv:2301.11093.

    Args:
        x_shape: (channels, height, width).
        width: channels at a quarter of the resolution; half as many before.
        depth: blocks at each resolution.
    """

    def __init__(self, x_shape: tuple[int, ...], width: int, depth: int = 2):
        self.shape = x_shape
        channels, *sides = x_shape
        self.padding = [-side % 4 for side in sides]
        rows, columns = (
            (side + more) // 4 for side, more in zip(sides, self.padding, strict=True)
        )
        super().__init__(width, rows * columns)
        self.cells = rows, columns
        half, wide = width // 2, 2 * width

        def down(condition: int) -> nn.ModuleList:
            return nn.ModuleList(
                [
                    nn.Conv2d(4 * channels, half, 3, padding=1),
                    Residual(half, condition),
                    nn.Conv2d(half, width, 3, 2, padding=1),
                ]
            )

        self.encoder = nn.Sequential(*down(0), Residual(width))
        self.place = nn.Parameter(0.02 * torch.randn(self.places, width))
        self.down = down(wide)
        self.near = nn.ConvTranspose2d(width, half, 2, 2, bias=False)
        self.far = nn.Conv2d(width, width, 1, bias=False)
        self.middle = nn.ModuleList(Residual(width, wide) for _ in range(depth))
        self.attend = nn.ModuleList(
            CrossAttention(width, self.places) for _ in range(depth)
        )
        self.last = Residual(width, wide)
        self.up = nn.ConvTranspose2d(width, half, 2, 2)
        self.fine = nn.ModuleList(Residual(half, wide) for _ in range(depth))
        self.out = nn.Conv2d(half, 4 * channels, 3, padding=1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                part.weight.data = part.weight.data.contiguous(
                    memory_format=torch.channels_last
                )

    def _blocks(self, x: Tensor) -> Tensor:
        """Blocks of 2x2 pixels as channels."""
        down, right = self.padding
        return F.pixel_unshuffle(F.pad(x, (0, right, 0, down)), 2)

    def from_inputs(self, x: Tensor) -> Tensor:
        return 2 * x - 1  # from 0..1

    def to_inputs(self, x: Tensor) -> Tensor:
        return ((x + 1) / 2).clamp(0, 1)

    def encode(self, x: Tensor) -> Tensor:
        maps = self.encoder(self._blocks(self.from_inputs(x)))
        return maps.flatten(2).mT + self.place

    def flow(
        self,
        x: Tensor,
        condition: Tensor,
        mean: Tensor,
        tokens: Tensor,
        visible: Tensor,
    ) -> Tensor:
        stem, first, smaller = self.down
        near, far = (
            part(mean.mT.unflatten(2, self.cells)).repeat_interleave(
                len(x) // len(mean), 0
            )
            for part in (self.near, self.far)
        )
        fine = first(stem(self._blocks(x)) + near, condition)
        h = smaller(fine) + far
        for block, attend in zip(self.middle, self.attend, strict=True):
            h = block(h, condition)
            h = attend(h.flatten(2).mT, tokens, visible).mT.unflatten(2, self.cells)
        h = self.up(self.last(h, condition)) + fine
        for block in self.fine:
            h = block(h, condition)
        h = F.pixel_shuffle(self.out(F.silu(group_norm(h))), 2)
        return h[..., : self.shape[1], : self.shape[2]]


class VectorVelocity(Velocity):
    """Linear layers whose inner features attend to the examples, each one token.

    Args:
        size: of an input.
        width: units of a layer.
        depth: hidden layers.
    """

    def __init__(self, size: int, width: int, depth: int = 2):
        super().__init__(width, 1)
        self.encoder = perceptron(size, width, width, 1)
        self.first = nn.Linear(size, width)
        self.film = nn.ModuleList(nn.Linear(2 * width, 2 * width) for _ in range(depth))
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.attend = nn.ModuleList(CrossAttention(width, 1) for _ in range(depth))
        self.out = nn.Linear(width, size)

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x.flatten(1))[:, None]

    def flow(
        self,
        x: Tensor,
        condition: Tensor,
        mean: Tensor,
        tokens: Tensor,
        visible: Tensor,
    ) -> Tensor:
        h = self.first(x.flatten(1))
        layers = zip(self.film, self.hidden, self.attend, strict=True)
        for film, hidden, attend in layers:
            scale, shift = film(condition).chunk(2, -1)
            h = h + hidden(F.silu(torch.addcmul(shift, h, 1 + scale)))
            h = attend(h[:, None], tokens, visible)[:, 0]
        return self.out(F.silu(h)).view(x.shape)


def velocity(spec: TaskSpec, width: int, depth: int) -> Velocity:
    """A suitable velocity network for the inputs of `spec`."""
    if spec.is_image:
        return ImageVelocity(spec.x_shape, width, depth)
    return VectorVelocity(spec.x_size, width, depth)
