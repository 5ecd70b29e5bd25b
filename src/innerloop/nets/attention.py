"""Attention that runs at full speed under `vmap` and has second derivatives on every
device (torch's fused kernels have none on a CPU).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from innerloop.nets.norm import LayerNorm


def attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None) -> Tensor:
    """softmax(q k' / sqrt(d)) v over the keys that are `visible` (m, n), for q
    (..., m, d), k (..., n, d) and v (..., n, e). Vaswani et al. 2017,
    arXiv:1706.03762, eq. (1).
    """
    scores = q @ k.mT / q.shape[-1] ** 0.5  # (..., m, n)
    if visible is not None:
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    return scores.softmax(-1) @ v


class AttentionBlock(nn.Module):
    """Attention and a two-layer network with residual connections and normalization
    before each. Vaswani et al. 2017, arXiv:1706.03762, section 3.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before_attention = LayerNorm(width)
        self.before_mlp = LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Tensor, visible: Tensor, kept: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The outputs (..., m, width) for tokens x (..., m, width), and keys and values
        (n + m, width).

        visible: which token (row) attends to which (..., m, m), or one row for all of
            them (..., 1, m).
        kept: keys and values (n, width) of earlier tokens, to which all attend; only
            without leading axes.
        """
        q, k, v = self.projections(self.before_attention(x)).chunk(3, -1)
        if kept is not None:
            visible = torch.cat([visible.new_ones(len(x), len(kept[0])), visible], 1)
            k = torch.cat([kept[0].to(k.dtype), k])
            v = torch.cat([kept[1].to(v.dtype), v])
        heads = attention(
            self._split(q), self._split(k), self._split(v), visible[..., None, :, :]
        )  # (..., heads, m, width / heads)
        x = x + self.out(heads.transpose(-3, -2).flatten(-2))
        return x + self.mlp(self.before_mlp(x)), (k, v)

    def _split(self, x: Tensor) -> Tensor:
        # (..., heads, n, width / heads)
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)
