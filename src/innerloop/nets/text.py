"""A small transformer that reads tokens, and a soft prompt before them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from innerloop.nets.attention import AttentionBlock
from innerloop.nets.norm import LayerNorm


class Prompted(nn.Module, ABC):
    """A network that reads tokens, and vectors before them as if they were the embeddings of more tokens."""

    @abstractmethod
    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Tensor:
        """x (n, length), numbers of tokens, 0 for none, and prompt (p, width), to features (n, d)."""

    @abstractmethod
    def words(self, n: int) -> Tensor:
        """The embeddings (n, width) of random tokens."""


class TextEncoder(Prompted):
    """Tokens to features: embeddings and positions through layers of attention, and the mean over what is no padding.

    Vaswani et al. 2017, arXiv:1706.03762, section 3, normalised before each part; the prompt as in Lester et al. 2021, arXiv:2104.08691.
    """

    def __init__(self, vocabulary: int, length: int, width: int = 128, layers: int = 2, heads: int = 4, dropout: float = 0.1):
        super().__init__()
        self.width = width
        self.embedding, self.positions = nn.Embedding(vocabulary, width), nn.Parameter(0.02 * torch.randn(length, width))
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.blocks = nn.ModuleList(AttentionBlock(width, heads) for _ in range(layers))
        self.normal, self.dropout = LayerNorm(width), nn.Dropout(dropout)

    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Tensor:
        there = x > 0  # (n, length)
        tokens = self.dropout(self.embedding(x.long()) + self.positions)  # (n, length, width)
        if prompt is not None:
            tokens = torch.cat([prompt.to(tokens.dtype).expand(len(x), -1, -1), tokens], 1)
            there = torch.cat([there.new_ones(len(x), len(prompt)), there], 1)
        for block in self.blocks:
            tokens = block(tokens, there[:, None])[0]
        share = there.to(tokens.dtype)[..., None]
        return (self.normal(tokens) * share).sum(1) / share.sum(1).clamp_min(1)

    def words(self, n: int) -> Tensor:
        return self.embedding.weight.data[torch.randint(1, len(self.embedding.weight), (n,))].clone()
