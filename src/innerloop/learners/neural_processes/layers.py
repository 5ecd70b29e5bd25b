"""Parts of neural processes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples
from innerloop.nets.decoder import perceptron


class PairEncoder(nn.Module):
    """A representation (n, width) of every example: a perceptron of x (n, *x_shape) and
    y (n, y_dim).
    """

    def __init__(self, x_size: int, y_dim: int, width: int, depth: int = 2):
        super().__init__()
        self.net = perceptron(x_size + y_dim, width, width, depth)

    def forward(self, examples: Examples) -> Tensor:
        return self.net(torch.cat([examples.x.flatten(1), examples.y], -1))


class Latent(nn.Module):
    """The distribution of z for a set of examples: mean and standard deviation
    (latent,), from the mean of the examples' representations.
    """

    def __init__(self, x_size: int, y_dim: int, width: int, latent: int):
        super().__init__()
        self.pairs = PairEncoder(x_size, y_dim, width)
        self.moments = perceptron(width, 2 * latent, width, 1)

    def forward(self, examples: Examples) -> tuple[Tensor, Tensor]:
        mean, raw = self.moments(self.pairs(examples).mean(0)).chunk(2)
        return mean, 0.1 + 0.9 * raw.sigmoid()


def divergence(q: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]) -> Tensor:
    """KL(q || p) in nats (...) of diagonal Gaussians, each as mean and standard
    deviation (..., d).
    """
    ratio = (q[1] / p[1]).square()
    return 0.5 * (ratio + ((q[0] - p[0]) / p[1]).square() - 1 - ratio.log()).sum(-1)


def moment_matched(outputs: Tensor) -> Tensor:
    """Outputs (samples, m, 2 y_dim) of a Gaussian with a learned scale as those (m, 2
    y_dim) of a Gaussian with the mean and the variance of their mixture.
    """
    mean, raw = outputs.chunk(2, -1)
    scale = 0.01 + 0.99 * F.softplus(raw)
    center = mean.mean(0)
    total = (scale.square() + (mean - center).square()).mean(0).sqrt()
    return torch.cat([center, unsoftplus((total - 0.01) / 0.99)], -1)


def gaussian_outputs(likelihood: Likelihood, mean: Tensor, variance: Tensor) -> Tensor:
    """Outputs (m, out_dim) for Gaussians of mean (m, y_dim) and variance (m,): the
    logits of classes whose targets are 1 and -1, the means, or with a learned scale
    means and raw scales.
    """
    if isinstance(likelihood, Categorical):
        return 2 * mean / variance[:, None]  # the log odds of 1 and -1
    if likelihood.out_dim(1) == 1:
        return mean
    # the inverse of Gaussian.moments
    raw = unsoftplus((variance.sqrt() - 0.01) / 0.99)  # (m,)
    return torch.cat([mean, raw[:, None].expand_as(mean)], -1)


def unsoftplus(y: Tensor) -> Tensor:
    """x with softplus(x) = y."""
    return y + torch.log(-torch.expm1(-y.clamp_min(1e-6)))
