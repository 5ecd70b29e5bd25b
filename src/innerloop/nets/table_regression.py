"""Regression on the rows of a small table, in closed form."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.engine.solvers import solvable

KERNELS = 8  # of four forms, with two sets of weights of the columns
# before training: scales of value and rank, and widths of the last three forms
SCALES, WIDTHS = (0.3, 3.9), (2.0, 1.0, 4.0)
CHANCE = 0.3
# strengths s with their g, and t, for classes and for real targets
CLASSES = ((0.01, 1.0, 10.0), (1.0, 2.5, 9.0), 0.3)
REALS = ((0.1, 1.0, 10.0), (1.0, 1.2, 1.8), 0.5)
TINY = 1e-6


class Fitted(NamedTuple):
    """Coefficients a (kernels, n, d), summed over the strengths, and the relevance r
    (columns,) of the columns.
    """

    coefficients: Tensor
    relevance: Tensor


class TableRegression(nn.Module):
    """Kernel ridge regressions, averaged by how well they predict rows left out.

    With features f of the cells, times m, and D_c(i, j) = |f_ic - f_jc|^2, the kernels
    between rows are sum_c w_c f_ic' f_jc, exp(-u1 sum_c w_c D_c), exp(-u2 sqrt(sum_c
    w_c D_c)) and sum_c w_c exp(-u3 D_c), with equal weights w of the columns, and with
    w in proportion to r_c: the largest share of the variance of the targets that one
    feature of the column explains, plus b times what it explains by chance. For each
    kernel K and each of three strengths s, a = (K + s I)^-1 y with centered y, and g k'
    a is the prediction of a row; for row i of the table without itself, g (y_i - a_i /
    ((K + s I)^-1)_ii). The average weighs them by L^t, where L is the likelihood of all
    targets, predicted without themselves: the softmax of the log share of the class
    plus the prediction, or a Gaussian with the mean squared error. m, u, b, s, g and t
    are parameters.

    Reference: Rasmussen and Williams 2006, "Gaussian processes for machine learning",
    eq. (2.25) and (5.12). The average: Yao, Vehtari, Simpson and Gelman 2018, "Using
    stacking to average Bayesian predictive distributions", arXiv:1704.02030, the
    weights of pseudo-BMA, there with t = 1.

    Args:
        classes: whether targets are classes.
    """

    def __init__(self, classes: bool):
        super().__init__()
        self.classes = classes
        strengths, gates, sharpness = CLASSES if classes else REALS
        self.log_scales = _logarithms(SCALES)
        self.log_widths = _logarithms(WIDTHS)
        self.log_strengths = _logarithms([[s] * KERNELS for s in strengths])
        self.log_gates = _logarithms([[g] * KERNELS for g in gates])
        self.log_chance = _logarithms(CHANCE)
        self.log_sharpness = _logarithms(sharpness)

    @solvable()
    def fit(self, cells: Tensor, used: Tensor, y: Tensor) -> tuple[Fitted, Tensor]:
        """What is fitted to rows with cells (n, columns, features) and targets y (n,
        d), of the columns that are `used` (columns,), and what is predicted for every
        row from the others (n, d).
        """
        share, n = y.mean(0), len(y)
        centered = y - share
        relevance = used * self._relevance(cells, y)
        kernels = self._kernels(cells, cells, relevance)
        eye = torch.eye(n, dtype=y.dtype, device=y.device)
        strengths, gates = (
            p.exp()[..., None, None] for p in (self.log_strengths, self.log_gates)
        )
        inverse = torch.linalg.inv(
            kernels + strengths * eye
        )  # (strengths, kernels, n, n)
        found = inverse @ centered
        left_out = centered - found / inverse.diagonal(dim1=-2, dim2=-1)[..., None]
        left_out = gates * left_out  # (strengths, kernels, n, d)
        if self.classes:
            scores = ((share + TINY).log() + left_out).log_softmax(-1)
            likelihood = (scores * y).sum((-2, -1))
        else:
            errors = (left_out - centered).square().mean(-2)
            likelihood = -n / 2 * (errors + TINY).log().sum(-1)
        weights = (self.log_sharpness.exp() * likelihood).flatten().softmax(0)
        weights = weights.view(likelihood.shape)[..., None, None]
        coefficients = (weights * gates * found).sum(0)
        return Fitted(coefficients, relevance), (weights * left_out).sum((0, 1))

    def predict(self, fitted: Fitted, cells: Tensor, among: Tensor) -> Tensor:
        """Predictions (m, d), without the mean of the targets, for rows with cells (m,
        columns, features) from those to which it was fitted (n, columns, features).
        """
        kernels = self._kernels(cells, among, fitted.relevance)
        return (kernels @ fitted.coefficients).sum(0)

    def _relevance(self, cells: Tensor, y: Tensor) -> Tensor:
        # correlations of features and targets, (columns, features, d)
        centered = y - y.mean(0)
        power = y.square().mean(0).clamp_min(TINY)  # of classes, their shares
        z = cells - cells.mean(0)
        z = z / (z.square().mean(0) + TINY).sqrt()
        explained = torch.einsum("ncf,nd->cfd", z, centered / len(y)).square() / power
        chance = (centered.square().mean(0) / power).sum() / max(1, len(y) - 1)
        least = self.log_chance.exp() * chance + TINY
        return explained.sum(-1).amax(-1) + least

    def _kernels(self, cells: Tensor, among: Tensor, relevance: Tensor) -> Tensor:
        """The kernels (8, m, n) between rows with cells (m, columns, features) and (n,
        columns, features).
        """
        scales = self.log_scales.exp()
        a, b = (cells * scales).transpose(0, 1), (among * scales).transpose(0, 1)
        products = a @ b.mT  # (columns, m, n)
        squares = a.square().sum(-1)[..., None] + b.square().sum(-1)[:, None]
        distances = (squares - 2 * products).clamp_min(0)
        weights = torch.stack([(relevance > 0).to(relevance), relevance])
        weights = F.normalize(weights, 1, -1)

        def total(columns: Tensor) -> Tensor:  # (2, m, n)
            return torch.einsum("wc,cij->wij", weights, columns)

        gaussian, laplacian, additive = self.log_widths.exp()
        distance = total(distances)
        return torch.cat(
            [
                total(products),
                (-gaussian * distance).exp(),
                (-laplacian * (distance + TINY).sqrt()).exp(),
                total((-additive * distances).exp()),
            ]
        )


def _logarithms(values: object) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values).log())
