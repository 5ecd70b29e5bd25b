"""Regression on the rows of a small table, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from innerloop.engine.solvers import solvable

KERNELS = 2
STRENGTHS = (4.5, 0.4)  # of the linear and of the Gaussian kernel, at first


class TableRegression(nn.Module):
    """Ridge regression with a linear and with a Gaussian kernel between rows.

    With features f of the cells, times m: k1(i, j) = sum over cells of f_i' f_j, and
    k2(i, j) = exp(-w |f_i - f_j|^2 / (2 columns)). For each of them, a = (K + s I)^-1 y
    and the prediction of a row is k' a. For row i of the table without itself, it is
    y_i - a_i / ((K + s I)^-1)_ii. m, w and s are parameters.

    Reference: Rasmussen and Williams 2006, "Gaussian processes for machine learning",
    eq. (2.25) and (5.12).
    """

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.Parameter(torch.tensor([1.0, 3.0]))  # of value and rank
        self.log_width = nn.Parameter(torch.zeros(()))
        self.log_strengths = nn.Parameter(torch.tensor(STRENGTHS).log())

    def kernels(self, cells: Tensor, among: Tensor, used: Tensor) -> Tensor:
        """The kernels (2, m, n) between rows with cells (m, columns, features) and (n,
        columns, features), of the columns that are `used` (columns,).
        """
        kept = used[:, None] * self.scales
        a, b = (cells * kept).flatten(1), (among * kept).flatten(1)
        linear = a @ b.T
        distances = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * linear
        distances = distances / (2 * used.sum().clamp_min(1))
        return torch.stack([linear, (-self.log_width.exp() * distances).exp()])

    @solvable()
    def fit(self, cells: Tensor, used: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients a (2, n, d) of targets y (n, d), and what is predicted for
        every row from the others (2, n, d).
        """
        kernels = self.kernels(cells, cells, used)
        eye = torch.eye(len(y), dtype=y.dtype, device=y.device)
        strengths = self.log_strengths.exp()[:, None, None]
        inverse = torch.linalg.inv(kernels + strengths * eye)
        found = inverse @ y
        return found, y - found / inverse.diagonal(dim1=1, dim2=2)[..., None]
