"""What neural processes are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.task import Examples
from innerloop.nets.decoder import perceptron


class PairEncoder(nn.Module):
    """A representation (n, width) of every example: x (n, *x_shape) and y (n, y_dim)
    together through a perceptron.
    """

    def __init__(self, x_size: int, y_dim: int, width: int, depth: int = 2):
        super().__init__()
        self.net = perceptron(x_size + y_dim, width, width, depth)

    def forward(self, examples: Examples) -> Tensor:
        return self.net(torch.cat([examples.x.flatten(1), examples.y], -1))


class Latent(nn.Module):
    """What a whole set says about the task: mean and standard deviation (latent,) of z,
    from the mean of its examples' representations.
    """

    def __init__(self, x_size: int, y_dim: int, width: int, latent: int):
        super().__init__()
        self.pairs, self.moments = (
            PairEncoder(x_size, y_dim, width),
            perceptron(width, 2 * latent, width, 1),
        )

    def forward(self, examples: Examples) -> tuple[Tensor, Tensor]:
        mean, raw = self.moments(self.pairs(examples).mean(0)).chunk(2)
        return mean, 0.1 + 0.9 * raw.sigmoid()


def divergence(q: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]) -> Tensor:
    """KL(q || p) in nats (...) of Gaussians with independent coordinates, each as mean
    and standard deviation (..., d).
    """
    ratio = (q[1] / p[1]).square()
    return 0.5 * (ratio + ((q[0] - p[0]) / p[1]).square() - 1 - ratio.log()).sum(-1)


def mixed(outputs: Tensor) -> Tensor:
    """Outputs (draws, m, 2 y_dim) of a Gaussian with a learned scale as those (m, 2
    y_dim) with the mean and variance of their mixture.
    """
    mean, raw = outputs.chunk(2, -1)
    scale = 0.01 + 0.99 * F.softplus(raw)
    centre = mean.mean(0)
    total = (scale.square() + (mean - centre).square()).mean(0).sqrt()
    return torch.cat([centre, unsoftplus((total - 0.01) / 0.99)], -1)


def unsoftplus(y: Tensor) -> Tensor:
    """x with softplus(x) = y."""
    return y + torch.log(-torch.expm1(-y.clamp_min(1e-6)))
