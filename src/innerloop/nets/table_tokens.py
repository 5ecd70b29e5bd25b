"""Tokens of the rows of a table."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from innerloop.engine.errors import InnerloopError

CODE = 16  # size of the codes of columns and targets
MOST = 1024  # columns, and targets


class Codes(NamedTuple):
    """What the columns (features, 16) and the targets (y_dim, 16) are told apart by."""

    columns: Tensor
    targets: Tensor


class TableTokens(nn.Module):
    """Tokens of a row: one for each cell, W [value, rank] + V code of its column; one
    for a prediction of the target and one for the target, U code of the class, or u
    where it is to be predicted. Real targets have a token each, U y + V code.

    Args:
        width: size of a token.
        classes: whether targets are classes.
    """

    def __init__(self, width: int, classes: bool):
        super().__init__()
        self.classes = classes
        self.cells = nn.Linear(2, width)
        self.column_codes = nn.Linear(CODE, width, bias=False)
        self.targets = nn.Linear(CODE if classes else 1, width)
        self.unknown = nn.Parameter(torch.zeros(width))
        self.predicted = nn.Parameter(0.1 * torch.randn(width))
        codes = torch.randn(2, MOST, CODE, generator=torch.Generator().manual_seed(0))
        self.register_buffer("codes", codes, persistent=False)

    def draw(self, columns: int, targets: int) -> Codes:
        """Codes of length about 1: in training new ones, in evaluation mode the same.

        Raises InnerloopError for more columns or targets than there are codes.
        """
        codes = self.get_buffer("codes")
        if max(columns, targets) > MOST:
            found = f"{columns} columns and {targets} classes or targets"
            raise InnerloopError(
                f"a table has at most {MOST} columns and as many classes or targets; "
                f"got {found}"
            )
        if self.training:
            codes = torch.randn_like(codes[:, : max(columns, targets)])
        codes = codes.to(self.unknown) / CODE**0.5
        return Codes(codes[0, :columns], codes[1, :targets])

    def of_targets(self, y: Tensor, codes: Codes) -> Tensor:
        """Tokens (m, targets, width) of targets y (m, y_dim); one for all classes."""
        if self.classes:
            return self.targets(y @ codes.targets)[:, None]
        return self.targets(y[..., None]) + self.column_codes(codes.targets)

    def of_unknown(self, m: int, codes: Codes) -> Tensor:
        """Tokens (m, targets, width) of targets to predict."""
        unknown = self.unknown.expand(m, 1, -1)
        return unknown if self.classes else unknown + self.column_codes(codes.targets)

    def forward(
        self, cells: Tensor, predicted: Tensor, targets: Tensor, codes: Codes
    ) -> Tensor:
        """Tokens (m, cells, width) of rows with the features of their cells (m,
        columns, 2), a prediction (m, y_dim) and tokens of their targets.
        """
        own = self.cells(cells) + self.column_codes(codes.columns)
        said = self.of_targets(predicted, codes) + self.predicted
        return torch.cat([t.to(own.dtype) for t in (own, said, targets)], -2)
