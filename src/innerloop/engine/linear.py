"""Linear algebra on vectors that come in named parts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Vector = dict[str, Tensor]


def conjugate_gradient(
    matrix: Callable[[Vector], Vector], target: Vector, steps: int
) -> Vector:
    """Solve matrix(v) = target for a symmetric positive definite `matrix`, by at most
    `steps` products with it.
    """
    v = {name: torch.zeros_like(b) for name, b in target.items()}
    residual, direction, old = target, target, _dot(target, target)
    for _ in range(steps):
        product = matrix(direction)
        curvature = _dot(direction, product)
        # no step where the matrix is not positive
        rate = torch.where(curvature > 0, old / curvature.clamp_min(1e-30), 0.0)
        v = {name: v[name] + rate * direction[name] for name in v}
        residual = {name: residual[name] - rate * product[name] for name in v}
        new = _dot(residual, residual)
        direction = {
            name: residual[name] + new / old.clamp_min(1e-30) * direction[name]
            for name in v
        }
        old = new
    return v


def _dot(a: Vector, b: Vector) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()
