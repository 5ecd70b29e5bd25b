"""Solvers: ridge and logistic regression, the multi-class support vector machine, and
conjugate gradient on vectors of named tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from innerloop.engine.errors import DivergenceError


@contextmanager
def solvable() -> Iterator[None]:
    """Around linear equations, or as a decorator: raises DivergenceError where they
    are singular.
    """
    try:
        yield
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
        raise DivergenceError(
            "linear equations have no finite solution: the inputs are too large, or "
            "training diverged; scale the inputs as in training, or train again with a "
            "lower learning rate"
        ) from error


@solvable()
def ridge(
    z: Tensor, y: Tensor, strength: Tensor, share: Tensor | None = None
) -> Tensor:
    """argmin_W sum_i s_i |W z_i - y_i|^2 + strength |W|^2: W (k, d) from z (n, d), y
    (n, k) and weights s (n,) of the examples, 1 by default.

    Solves n equations where examples are fewer than numbers, by Woodbury's identity,
    else d.
    """
    # (n, 1)
    root = (torch.ones_like(y[:, 0]) if share is None else share).sqrt()[:, None]
    a, b = root * z, root * y
    gram = a @ a.T if len(a) < a.shape[1] else a.T @ a
    gram = gram + strength * torch.eye(len(gram), device=z.device, dtype=z.dtype)
    if len(a) < a.shape[1]:
        return torch.linalg.solve(gram, b).T @ a
    return torch.linalg.solve(gram, a.T @ b).T


def logistic(z: Tensor, y: Tensor, strength: Tensor, steps: int) -> Tensor:
    """argmin_W sum_i softplus(W z_i) - y_i W z_i + strength / 2 |W|^2, one problem for
    every column of y (n, k), zeros and ones; W (k, d).

    `steps` of Newton's method from W = 0, each a weighted ridge regression.
    """

    def one(w: Tensor, target: Tensor) -> Tensor:  # (d,), (n,)
        logits = z @ w
        p = logits.sigmoid()
        share = (p * (1 - p)).clamp_min(1e-6)
        return ridge(z, (logits + (target - p) / share)[:, None], strength, share)[0]

    W = z.new_zeros(y.shape[1], z.shape[1])
    for _ in range(steps):
        W = torch.vmap(one, (0, 1))(W, y)
    return W


@solvable()
def support_vectors(gram: Tensor, y: Tensor, C: float, steps: int) -> Tensor:
    """The dual solution of the multi-class support vector machine of Crammer and Singer
    2001: a (n, k), where W = a' z.

    min_a 1/2 tr(a' gram a) - sum_i a_i' y_i with a_i <= C y_i and sum_k a_ik = 0; gram
    (n, n) of the examples, y (n, k) one-hot. `steps` of a primal-dual interior-point
    method, in float64. The solution has the derivative of the exact one, by the
    implicit function theorem: it is one more Newton step, through whose residual alone
    gradients flow; there is no second derivative.
    """
    exact, targets = gram.double(), y.double()
    # where examples are more than their numbers
    exact = exact + 1e-8 * exact.detach().diagonal().mean() * torch.eye(
        len(y), device=y.device
    )
    ways = y.shape[1]
    fixed = exact.detach()
    b = torch.full_like(targets, C / ways)  # b = C y - a, in C times the simplex
    # multipliers of b >= 0 and of sum_k b_ik = C
    s, v = torch.ones_like(b), torch.zeros_like(b[:, 0])

    def direction(
        gram: Tensor, b: Tensor, s: Tensor, v: Tensor, gap: Tensor | float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Newton's direction for b, s and v toward b s = gap: one n by n system for
        every class, and one for what couples them.
        """
        residual = gram @ (b - C * targets) + targets - s + v[:, None]  # (n, k)
        inverse = torch.linalg.inv(fixed + torch.diag_embed((s / b).T))  # (k, n, n)
        right = (gap / b - s - residual).T  # (k, n)
        free = (inverse @ right[..., None])[..., 0]
        dv = torch.linalg.solve(inverse.sum(0), free.sum(0) - (C - b.sum(-1)))  # (n,)
        db = (free - (inverse @ dv[:, None])[..., 0]).T
        return db, gap / b - s - s / b * db, dv

    with torch.no_grad():
        for _ in range(steps):
            db, ds, dv = direction(fixed, b, s, v, 0.1 * (b * s).mean())
            longest = [
                torch.where(d < 0, -value / d, torch.inf).min().clamp_max(1.0)
                for value, d in ((b, db), (s, ds))
            ]
            length = 0.99 * torch.minimum(*longest)
            b, s, v = b + length * db, s + length * ds, v + length * dv
    b = b + direction(exact, b, s, v, b * s)[0]
    return (C * targets - b).to(gram.dtype)


Vector = dict[str, Tensor]


def conjugate_gradient(
    matrix: Callable[[Vector], Vector], target: Vector, steps: int
) -> Vector:
    """Solve matrix(v) = target for a symmetric positive definite `matrix`, by at most
    `steps` products with it.
    """
    v = {name: torch.zeros_like(b) for name, b in target.items()}
    residual, direction, old = target, target, _dot(target, target)
    for step in range(steps):
        product = matrix(direction)
        curvature = _dot(direction, product)
        # no step where the matrix is not positive
        rate = torch.where(curvature > 0, old / curvature.clamp_min(1e-30), 0.0)
        v = _moved(v, rate, direction)
        if step + 1 < steps:
            residual = _moved(residual, -rate, product)
            new = _dot(residual, residual)
            direction = _moved(residual, new / old.clamp_min(1e-30), direction)
            old = new
    return v


def _moved(v: Vector, by: Tensor, direction: Vector) -> Vector:
    return {name: torch.addcmul(v[name], by, direction[name]) for name in v}


def _dot(a: Vector, b: Vector) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()
