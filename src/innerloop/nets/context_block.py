"""A transformer layer whose tokens attend to each other and to tokens of a context."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from innerloop.nets.norm import LayerNorm

SAME = 4.0  # the largest initial bias between equal tokens


class Context(NamedTuple):
    """Tokens to attend to, and their numbers, 0 where there is none.

    Tokens (n, width) and numbers (n,) are the same for all rows; with a leading axis,
    (rows, n, width) and (rows, n), each row has its own.
    """

    tokens: Tensor
    numbers: Tensor


class ContextBlock(nn.Module):
    """Attention, over the tokens of a row and those of contexts at once, and a network
    of two layers, with residual connections and normalization before each. Vaswani,
    Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and Polosukhin 2017, "Attention is
    all you need", arXiv:1706.03762, section 3, where attention to a context is a step
    of its own. Here every head also has a learned bias between tokens with the same
    number, as a word of which nothing is known is known again by its equals.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before_attention = LayerNorm(width)
        self.before_mlp = LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.of_context = nn.Linear(width, 2 * width)
        self.same = nn.Parameter(torch.linspace(0, SAME, heads))
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Tensor, numbers: Tensor, visible: Tensor, *contexts: Context
    ) -> Tensor:
        """Tokens x (rows, m, width) and their numbers (rows, m); visible (rows, m, m),
        or (rows, 1, m) or (m, m): which token (row) attends to which of its own row.
        """
        projected = self.projections(self.before_attention(x)).chunk(3, -1)
        q, k, v = map(self._split, projected)
        q = q / q.shape[-1] ** 0.5
        hidden = ~visible.expand(len(x), -1, -1)
        # for every group of tokens: scores (rows, heads, m, n), and values
        scores = [self._scores(q @ k.mT, numbers, numbers, hidden)]
        values = [v]
        for tokens, others in contexts:
            k, v = map(self._split, self.of_context(tokens).chunk(2, -1))
            shapes = "rhme,rhne->rhmn" if k.dim() == 4 else "rhme,hne->rhmn"
            raw = torch.einsum(shapes, q, k)
            absent = (others == 0)[..., None, :].expand(len(x), -1, -1)
            scores.append(self._scores(raw, numbers, others, absent))
            values.append(v)
        weights = torch.cat(scores, -1).softmax(-1)
        found = torch.zeros_like(q)
        sizes = [s.shape[-1] for s in scores]
        for share, v in zip(weights.split(sizes, -1), values, strict=True):
            shapes = "rhmn,rhne->rhme" if v.dim() == 4 else "rhmn,hne->rhme"
            found = found + torch.einsum(shapes, share, v)
        x = x + self.out(found.transpose(1, 2).flatten(-2))
        return x + self.mlp(self.before_mlp(x))

    def _split(self, x: Tensor) -> Tensor:
        # (..., heads, n, width / heads)
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def _scores(
        self, raw: Tensor, numbers: Tensor, others: Tensor, hidden: Tensor
    ) -> Tensor:
        equal = numbers[..., None] == others[..., None, :]  # (rows, m, n)
        raw = raw + equal[:, None] * self.same[:, None, None]
        return raw.masked_fill(hidden[:, None], torch.finfo(raw.dtype).min)
