"""A transformer layer whose tokens attend to each other and to tokens of a context."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from innerloop.nets.norm import LayerNorm

BIAS = 4.0  # the largest initial bias between tokens of the same number or place


class Marks(NamedTuple):
    """What is known of tokens before they are read: the numbers of their words, 0 where
    there is none, and their places in their texts. Both (n,) or (rows, n).
    """

    numbers: Tensor
    places: Tensor


class Context(NamedTuple):
    """Tokens to attend to, and their marks.

    Tokens (n, width) are the same for all rows; with a leading axis, (rows, n, width),
    each row has its own.
    """

    tokens: Tensor
    marks: Marks


class Seen(NamedTuple):
    """Keys and values (..., heads, n, width / heads) of tokens, and their marks."""

    keys: Tensor
    values: Tensor
    marks: Marks


class ContextBlock(nn.Module):
    """Attention, over the tokens of a row and those of contexts at once, and a network
    of two layers, with residual connections and normalization before each. Vaswani,
    Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and Polosukhin 2017, "Attention is
    all you need", arXiv:1706.03762, section 3, where attention to a context is a step
    of its own. Here every head also has a learned bias between tokens of the same
    number, as a word of which nothing is known is known again by its equals, and one
    between tokens of the same place in their texts.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before_attention = LayerNorm(width)
        self.before_mlp = LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.of_context = nn.Linear(width, 2 * width)
        self.same_number = nn.Parameter(torch.linspace(0, BIAS, heads))
        self.same_place = nn.Parameter(torch.linspace(BIAS, 0, heads))
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def seen(self, context: Context) -> Seen:
        """The keys and values of a context."""
        k, v = self.of_context(context.tokens).chunk(2, -1)
        return Seen(self._split(k), self._split(v), context.marks)

    def forward(
        self, x: Tensor, marks: Marks, visible: Tensor, *others: Seen
    ) -> tuple[Tensor, Seen]:
        """The outputs for tokens x (rows, m, width) with their marks (rows, m), and
        their keys and values.

        visible: which token (row) attends to which of its own row (rows, m, m), or
            (rows, 1, m) or (m, m).
        others: keys and values of contexts, or of earlier tokens.
        """
        projected = self.projections(self.before_attention(x)).chunk(3, -1)
        q, k, v = map(self._split, projected)
        own = Seen(k, v, marks)
        q = q / q.shape[-1] ** 0.5
        # for every group of tokens the scores (rows, heads, m, n)
        scores = [self._scores(q, own, marks, ~visible.expand(len(x), -1, -1))]
        for other in others:
            absent = (other.marks.numbers == 0)[..., None, :].expand(len(x), -1, -1)
            scores.append(self._scores(q, other, marks, absent))
        weights = torch.cat(scores, -1).softmax(-1)
        found = torch.zeros_like(q)
        sizes = [s.shape[-1] for s in scores]
        groups = (own, *others)
        for share, group in zip(weights.split(sizes, -1), groups, strict=True):
            shapes = "hne->rhme" if group.values.dim() == 3 else "rhne->rhme"
            found = found + torch.einsum(f"rhmn,{shapes}", share, group.values)
        x = x + self.out(found.transpose(1, 2).flatten(-2))
        return x + self.mlp(self.before_mlp(x)), own

    def _split(self, x: Tensor) -> Tensor:
        # (..., heads, n, width / heads)
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def _scores(self, q: Tensor, group: Seen, marks: Marks, hidden: Tensor) -> Tensor:
        shapes = "hne->rhmn" if group.keys.dim() == 3 else "rhne->rhmn"
        raw = torch.einsum(f"rhme,{shapes}", q, group.keys)
        biases = self.same_number, self.same_place
        for own, theirs, bias in zip(marks, group.marks, biases, strict=True):
            equal = own[..., None] == theirs[..., None, :]  # (rows, m, n)
            raw = raw + equal[:, None] * bias[:, None, None]
        return raw.masked_fill(hidden[:, None], torch.finfo(raw.dtype).min)
