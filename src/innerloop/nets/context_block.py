"""A transformer layer whose tokens attend to each other and to tokens of a context."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from innerloop.nets.norm import LayerNorm


class Context(NamedTuple):
    """Tokens to attend to, and which of them there are.

    Tokens (n, width) and present (n,) are the same for all rows; with a leading axis,
    (rows, n, width) and (rows, n), each row has its own.
    """

    tokens: Tensor
    present: Tensor


class ContextBlock(nn.Module):
    """Attention, over the tokens of a row and those of contexts at once, and a network
    of two layers, with residual connections and normalization before each. Vaswani,
    Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and Polosukhin 2017, "Attention is
    all you need", arXiv:1706.03762, section 3, where attention to a context is a step
    of its own.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before_attention = LayerNorm(width)
        self.before_mlp = LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.of_context = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, visible: Tensor, *contexts: Context) -> Tensor:
        """Tokens x (rows, m, width); visible (rows, m, m), or (rows, 1, m) or (m, m):
        which token (row) attends to which of its own row.
        """
        q, k, v = map(
            self._split, self.projections(self.before_attention(x)).chunk(3, -1)
        )
        q = q / q.shape[-1] ** 0.5
        # scores (rows, heads, m, n) and values for every group of tokens
        scores = [_masked(q @ k.mT, visible.expand(len(x), -1, -1)[:, None])]
        values = [v]
        for tokens, present in contexts:
            k, v = map(self._split, self.of_context(tokens).chunk(2, -1))
            own = "rhme,rhne->rhmn" if k.dim() == 4 else "rhme,hne->rhmn"
            scores.append(_masked(torch.einsum(own, q, k), present[..., None, None, :]))
            values.append(v)
        weights = torch.cat(scores, -1).softmax(-1)
        found = torch.zeros_like(q)
        for share, v in zip(
            weights.split([s.shape[-1] for s in scores], -1), values, strict=True
        ):
            own = "rhmn,rhne->rhme" if v.dim() == 4 else "rhmn,hne->rhme"
            found = found + torch.einsum(own, share, v)
        x = x + self.out(found.transpose(1, 2).flatten(-2))
        return x + self.mlp(self.before_mlp(x))

    def _split(self, x: Tensor) -> Tensor:
        # (..., heads, n, width / heads)
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


def _masked(scores: Tensor, visible: Tensor) -> Tensor:
    return scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
