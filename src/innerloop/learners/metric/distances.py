"""Distances between embeddings, and class means: what metric learners share."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.engine.precision import widened

Metric = Literal["euclidean", "cosine", "p-norm"]


def class_means(z: Tensor, y: Tensor) -> Tensor:
    """Mean embedding of every class: z (n, d), one-hot y (n, ways) to (ways, d)."""
    return (y.T @ z.to(y.dtype)) / y.sum(0).clamp_min(1e-12)[:, None]


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances, a (m, d), b (n, d) to (m, n), by one matrix
    product.
    """
    a, b = widened(a), widened(b)
    with torch.autocast(a.device.type, enabled=False):
        return (
            a.square().sum(-1)[:, None] + b.square().sum(-1) - 2 * a @ b.T
        ).clamp_min(0)


def distance(a: Tensor, b: Tensor, metric: Metric, p: float = 1.0) -> Tensor:
    """Distances a (m, d), b (n, d) to (m, n): squared Euclidean, one minus cosine, or
    the p-norm to the power p.
    """
    if metric == "euclidean":
        return squared_distance(a, b)
    if metric == "cosine":
        return 1 - cosine(a, b)
    return (widened(a[:, None] - b).abs() + 1e-12).pow(p).sum(-1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarities, a (m, d), b (n, d) to (m, n), in single precision whatever
    the precision around it.
    """
    with torch.autocast(a.device.type, enabled=False):
        return F.normalize(widened(a), dim=-1) @ F.normalize(widened(b), dim=-1).T


def same_class(y: Tensor) -> Tensor:
    """Which pairs share a class: one-hot y (n, ways) to 0 or 1 (n, n)."""
    return (y @ y.T > 0.5).to(y.dtype)


def nearest(distances: Tensor, y: Tensor) -> Tensor:
    """Distance to the nearest example of every class: (m, n) and one-hot y (n, ways) to
    (m, ways).
    """
    return torch.where(y.T > 0.5, distances[:, None], torch.inf).amin(-1)
