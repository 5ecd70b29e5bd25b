"""Attention between the cells of a table: in its rows, and in its columns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from innerloop.nets.attention import attention
from innerloop.nets.norm import LayerNorm

KeysAndValues = tuple[Tensor, Tensor]


class TableBlock(nn.Module):
    """Attention of the cells of a row to each other, attention of the cells of a column
    to those of the examples, and a two-layer network; with residual connections and
    normalization before each. Hollmann, Müller, Purucker, Krishnakumar, Körfer, Hoo,
    Schirrmeister and Hutter 2025, "Accurate predictions on small data with a tabular
    foundation model", Nature 637, figure 1b.

    Args:
        width: size of a cell's token.
        heads: attention heads, in rows and in columns.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(LayerNorm(width) for _ in range(3))
        self.row_projections = nn.Linear(width, 3 * width)
        self.row_out = nn.Linear(width, width)
        self.queries = nn.Linear(width, width)
        self.keys_and_values = nn.Linear(width, 2 * width)
        self.column_out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        # at first, rows attend to similar ones
        self.keys_and_values.weight.data[:width] = self.queries.weight.data

    def forward(
        self, x: Tensor, used: Tensor, kept: KeysAndValues | None = None
    ) -> tuple[Tensor, KeysAndValues]:
        """The tokens (..., rows, cells, width) after the block, and the keys and values
        (..., cells, heads, n, width / heads) of the examples.

        Args:
            x: tokens (..., rows, cells, width).
            used: the cells of a row (..., cells) to which others attend.
            kept: the keys and values of the examples; None where x are the examples.
        """
        q, k, v = self.row_projections(self.norms[0](x)).chunk(3, -1)
        visible = used[..., None, None, None, :]
        found = attention(self._split(q), self._split(k), self._split(v), visible)
        x = x + self.row_out(found.transpose(-3, -2).flatten(-2))
        columns = self.norms[1](x).transpose(-3, -2)  # (..., cells, rows, width)
        if kept is None:
            k, v = self.keys_and_values(columns).chunk(2, -1)
            kept = self._split(k), self._split(v)
        found = attention(self._split(self.queries(columns)), *kept)
        found = self.column_out(found.transpose(-3, -2).flatten(-2))
        x = x + found.transpose(-3, -2)
        return x + self.mlp(self.norms[2](x)), kept

    def _split(self, x: Tensor) -> Tensor:
        # (..., heads, n, width / heads)
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of each column of x (n, columns), its standard deviation, and whether it
    varies, beyond rounding; constant columns have the deviation 1.
    """
    var, mean = torch.var_mean(x, 0, correction=0)
    varies = var > (8 * torch.finfo(x.dtype).eps * mean).square()
    return mean, torch.where(varies, var, 1.0).sqrt(), varies


def bounded(z: Tensor) -> Tensor:
    """Standardized values, large ones by their logarithm."""
    return z.sign() * z.abs().log1p()


def cell_features(z: Tensor, among: Tensor) -> Tensor:
    """Features (m, columns, 2) of standardized cells z (m, columns): the bounded value,
    and the share of the column's cells of `among` (n, columns) below it, with half of
    those that are equal, minus one half.
    """
    below = (among < z[:, None]).to(z.dtype) + 0.5 * (among == z[:, None])
    return torch.stack([bounded(z), below.mean(1) - 0.5], -1)


def in_order_of(scores: Tensor, codes: Tensor) -> Tensor:
    """Codes (k, d) in the order of scores (k,): the smallest has the first code."""
    return codes[scores.argsort(stable=True).argsort()]
