"""Linear and quadratic heads fitted in closed form, each with its leave-one-out scores.

Everything is batched algebra without decisions on values, so it works under `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.engine.solvers import solvable

NEWTON_STEPS = 60
MOST = 2**31  # multiplications, above which a problem is large


class Fit(NamedTuple):
    """A head that was fitted to a support set.

    Args:
        head: the tensors that `scores` reads.
        loo: the scores (n, ways) of the support examples, each from the head that is
            fitted to all others.
        scale: factor that usually makes the scores calibrated logits.
    """

    head: dict[str, Tensor]
    loo: Tensor
    scale: Tensor


def scores(head: dict[str, Tensor], z: Tensor) -> Tensor:
    """Scores (m, ways) of features z (m, d): linear, or minus half of the squared
    Mahalanobis distance.
    """
    if "weight" in head:
        return z @ head["weight"].T
    return Quadratic(**head).scores(z)


class Design:
    """Features z (n, d) for weighted least squares in the smaller of n and d.

    The weights of a head are `back` times the solution: z' where examples are fewer
    than features (the dual), else the identity.

    Args:
        y: one-hot labels (n, ways).
    """

    def __init__(self, z: Tensor, y: Tensor):
        n, d = z.shape
        self.z, self.y, self.dual = z, y, n < d
        self.counts = y.sum(0)  # (ways,)
        self.rows = z @ z.T if self.dual else z  # (n, r)
        # every class has the same total weight
        self.share = (y / (y.shape[1] * self.counts.clamp_min(1))).sum(-1) * n  # (n,)
        self.shots = 1 / (1 / self.counts.clamp_min(1)).mean()

    def right(self, values: Tensor) -> Tensor:
        """z' values in the coordinates of the solution."""
        return values if self.dual else self.z.T @ values

    def gram(self, share: Tensor) -> Tensor:
        """sum_i share_i z_i z_i' in the coordinates of the solution (r, r)."""
        return self.right(share[:, None] * self.rows)

    @solvable()
    def inverse(self, share: Tensor, strength: float) -> Tensor:
        gram = self.gram(share)
        eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return torch.linalg.inv(gram + strength * eye)

    def leverage(self, inverse: Tensor) -> tuple[Tensor, Tensor]:
        """The rows z_i' (sum_j share_j z_j z_j' + strength I)^-1 (n, r), and their
        products with z_i (n,).
        """
        left = self.rows @ inverse
        return left, left.diagonal() if self.dual else (left * self.z).sum(-1)

    def weight(self, solution: Tensor) -> Tensor:
        """(ways, d) from the solution (r, ways)."""
        return solution.T @ self.z if self.dual else solution.T


def nearest_mean(design: Design, strength: float) -> Fit:
    """Cosine similarity to the class means."""
    z, y = design.z, design.y
    sums = y.T @ z  # (ways, d)
    scores = z @ sums.T  # (n, ways)
    squares = sums.square().sum(-1)
    own, size = (y * scores).sum(-1), z.square().sum(-1)
    # the sum of the own class without the example
    left_out = (own - size) * ((y @ squares) - 2 * own + size).clamp_min(1e-12).rsqrt()
    scores = scores * squares.clamp_min(1e-12).rsqrt()
    loo = torch.where(y > 0.5, left_out[:, None], scores)
    weight = F.normalize(sums, dim=-1)
    return Fit({"weight": weight}, loo, z.new_full((), 14.0))


def ridge(design: Design, strength: float) -> Fit:
    """Ridge regression to the one-hot labels."""
    y, share = design.y, design.share[:, None]
    inverse = design.inverse(design.share, strength)
    solution = inverse @ design.right(share * y)
    _, lever = design.leverage(inverse)
    h = share * lever[:, None]
    fitted = design.rows @ solution
    loo = (fitted - h * y) / (1 - h).clamp_min(1e-9)
    scale = 15 * (1 + strength) * design.shots**-0.3
    return Fit({"weight": design.weight(solution)}, loo, scale)


def logistic(design: Design, strength: float) -> Fit:
    """Multinomial logistic regression with the penalty strength / 2 |W|^2, by
    accelerated Newton steps with the bound 1/2 of the curvature (Böhning 1992).

    The leave-one-out scores are one Newton step from the solution, in which the other
    examples of the class take over the weight of the one left out. Large problems take
    fewer steps, and their leave-one-out steps have one curvature for all classes and
    leave the weights as they are.
    """
    y, share = design.y, design.share[:, None]
    large = y.numel() * design.rows.shape[1] ** 2 > MOST
    inverse = design.inverse(design.share / 2, strength)
    solution = previous = design.right(torch.zeros_like(y))
    for step in range(NEWTON_STEPS // 3 if large else NEWTON_STEPS):
        ahead = solution + step / (step + 3) * (solution - previous)
        residual = share * (y - (design.rows @ ahead).softmax(-1))
        previous = solution
        solution = ahead + inverse @ (design.right(residual) - strength * ahead)
    fitted = design.rows @ solution
    p = fitted.softmax(-1)
    residual, curvature = share * (y - p), share * p * (1 - p)  # (n, ways)
    if large:
        bend = curvature.mean(-1)
        _, lever = design.leverage(design.inverse(bend, strength))
        change = (lever / (1 - bend * lever).clamp_min(1e-9))[:, None] * -residual
    else:
        others = y @ (design.counts - 1).clamp_min(1)  # (n,) of the same class
        columns = []
        for bend, gap in zip(curvature.T, residual.T, strict=True):
            left, lever = design.leverage(design.inverse(bend, strength))
            own = lever * gap
            mates = ((left @ design.right(y * gap[:, None])) * y).sum(-1) - own
            move = mates / others - own
            columns.append(move / (1 - bend * lever).clamp_min(1e-9))
        change = torch.stack(columns, -1)
    scale = 7.8 * (strength / 0.1) ** 0.3 * design.shots**-0.25 * y.shape[1] ** -0.2
    return Fit({"weight": design.weight(solution)}, fitted + change, scale)


class Quadratic(NamedTuple):
    """Gaussian classes with covariances basis' C basis + strength I, and so with
    precisions (I - basis' inner basis) / strength.

    Args:
        mean: (ways, d).
        basis: (r, d).
        inner: (ways, r, r).
        strength: scalar.
    """

    mean: Tensor
    basis: Tensor
    inner: Tensor
    strength: Tensor

    def products(self, k: int, a: Tensor, b: Tensor) -> Tensor:
        """a_i' P_k b_i (m,) of a (m, d) and b (m, d)."""
        inside = ((a @ self.basis.T @ self.inner[k]) * (b @ self.basis.T)).sum(-1)
        return ((a * b).sum(-1) - inside) / self.strength

    def scores(self, z: Tensor) -> Tensor:
        """(m, ways), class by class to bound the memory."""
        gaps = [z - mean for mean in self.mean]
        columns = [self.products(k, gap, gap) for k, gap in enumerate(gaps)]
        return -0.5 * torch.stack(columns, -1)


@solvable()
def mahalanobis(design: Design, strength: float) -> Fit:
    """Gaussian classes: the covariance of a class is shrunk to that within all classes,
    by 1 / (n_c + 1), and to strength I; leave-one-out by rank-one updates.
    """
    z, y, counts = design.z, design.y, design.counts.clamp_min(1)
    n, d = z.shape
    mean = y.T @ z / counts[:, None]
    gap = z - y @ mean  # (n, d) from the mean of the own class
    basis = gap if design.dual else torch.eye(d, dtype=z.dtype, device=z.device)
    gram = basis @ basis.T
    own = (counts / (counts + 1))[:, None]
    # the weight of every example in the covariance of a class (ways, n)
    share = own * y.T / counts[:, None] + (1 - own) / n
    inner = []
    for row in share:
        C = torch.diag(row) if design.dual else (row[:, None] * gap).T @ gap
        eye = torch.eye(len(C), dtype=z.dtype, device=z.device)
        inner.append(torch.linalg.solve(strength * eye + C @ gram, C))
    head = Quadratic(mean, basis, torch.stack(inner), z.new_full((), strength))
    # an example that is left out moves the mean of its class too
    grown = y @ (counts / (counts - 1).clamp_min(1))  # (n,)
    columns = []
    for k, row in enumerate(share):
        offset = z - mean[k]
        rate = grown * row
        change = rate / (1 - rate * head.products(k, gap, gap)).clamp_min(1e-9)
        distance = head.products(k, offset, offset)
        distance = distance + change * head.products(k, gap, offset).square()
        columns.append(distance * torch.where(y[:, k] > 0.5, grown**2, 1))
    scale = 14 * strength * design.shots**0.35
    return Fit(head._asdict(), -0.5 * torch.stack(columns, -1), scale)


HEADS: dict[str, Callable[[Design, float], Fit]] = {
    "mean": nearest_mean,
    "ridge": ridge,
    "logistic": logistic,
    "mahalanobis": mahalanobis,
}
