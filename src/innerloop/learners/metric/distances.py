"""Distances between embeddings, and centers of classes: what metric learners share."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.engine.precision import widened

Metric = Literal["euclidean", "cosine", "p-norm"]


def class_means(z: Tensor, y: Tensor) -> Tensor:
    """The mean embedding of every class (ways, d), from z (n, d) and one-hot y (n,
    ways).
    """
    return (y.T @ z.to(y.dtype)) / y.sum(0).clamp_min(1e-12)[:, None]


def class_medians(z: Tensor, y: Tensor, steps: int = 20) -> Tensor:
    """The spatial median of the embedded examples of every class (ways, d), from z (n,
    d) and one-hot y (n, ways): the point whose summed distance to them is least.

    Distances below a hundredth of the usual one are smoothed. Liang, Rangrej, Petrovic
    and Hassner 2022, "Few-shot learning with noisy labels", arXiv:2204.05494, eq. (3)
    and (7).
    """
    members = y.T  # (ways, n)
    c = class_means(z, y)
    smooth = 1e-4 * (members * squared_distance(c, z)).sum() / members.sum() + 1e-12
    for _ in range(steps):
        c = class_means(z, y * (squared_distance(z, c) + smooth).rsqrt())
    return c


def trusted_means(z: Tensor, y: Tensor, logits: Tensor) -> Tensor:
    """The mean of the embedded examples of every class (ways, d), from z (n, d) and
    one-hot y (n, ways), each weighted by the probability of its label, at least 0.001,
    from logits (n, ways).
    """
    absent = y.sum(0) < 0.5
    p = logits.masked_fill(absent, torch.finfo(logits.dtype).min).softmax(-1)
    return class_means(z, y * p.clamp_min(1e-3))


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances (m, n) of a (m, d) and b (n, d), by one matrix
    product.
    """
    a, b = widened(a), widened(b)
    with torch.autocast(a.device.type, enabled=False):
        squares = a.square().sum(-1)[:, None] + b.square().sum(-1)
        return (squares - 2 * a @ b.T).clamp_min(0)


def distance(a: Tensor, b: Tensor, metric: Metric, p: float = 1.0) -> Tensor:
    """Distances (m, n) of a (m, d) and b (n, d): squared Euclidean, one minus cosine
    similarity, or the p-norm to the power of p.
    """
    if metric == "euclidean":
        return squared_distance(a, b)
    if metric == "cosine":
        return 1 - cosine_similarity(a, b)
    return (widened(a[:, None] - b).abs() + 1e-12).pow(p).sum(-1)


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarities (m, n) of a (m, d) and b (n, d), in single precision also
    under autocast.
    """
    with torch.autocast(a.device.type, enabled=False):
        return F.normalize(widened(a), dim=-1) @ F.normalize(widened(b), dim=-1).T


def same_class(y: Tensor) -> Tensor:
    """Which pairs of examples share a class, 0 or 1 (n, n); y (n, ways) is one-hot."""
    return (y @ y.T > 0.5).to(y.dtype)


def nearest(distances: Tensor, y: Tensor) -> Tensor:
    """The distance to the nearest example of every class (m, ways), from distances (m,
    n) and one-hot y (n, ways).
    """
    return torch.where(y.T > 0.5, distances[:, None], torch.inf).amin(-1)
