"""A small transformer that reads tokens, and a soft prompt before them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from innerloop.nets.attention import AttentionBlock
from innerloop.nets.norm import LayerNorm


class Prompted(nn.Module, ABC):
    """A network that reads tokens, and vectors before them as if they were the
    embeddings of more tokens.
    """

    @abstractmethod
    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Tensor:
        """x (n, length), numbers of tokens, 0 for none, and prompt (p, width), to
        features (n, d).
        """

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """How many tokens there are."""

    @abstractmethod
    def words(self, tokens: Tensor) -> Tensor:
        """The embeddings (n, width) of tokens (n,) by number, as a prompt."""


class TextEncoder(Prompted):
    """Tokens to features: which tokens there are, and what they mean, each weighted by
    what a transformer makes of it in its context and after the prompt.

    z = [c, s m], c_k = sum_i w_i [x_i is token k], m = sum_i w_i e_i, both scaled to
    length 8; w_i = exp(a token's own weight + a linear reading of the transformer's
    output at i), s learned
    The transformer is that of Vaswani et al. 2017, arXiv:1706.03762, section 3,
    normalised before each part, the prompt as in Lester et al. 2021, arXiv:2104.08691.
    Words that were never seen in training have a place of their own in c, and so texts
    that share them are alike; embeddings mix them up, and features read off the
    transformer itself forget them. width: of embeddings. inner: of the transformer.
    dropped: the share of tokens that are left out in training mode. The features are
    vocabulary + width.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        width: int = 384,
        inner: int = 64,
        layers: int = 1,
        heads: int = 4,
        dropped: float = 0.2,
    ):
        super().__init__()
        self.embedding, self.weight = (
            nn.Embedding(vocabulary, width),
            nn.Embedding(vocabulary, 1),
        )
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        nn.init.zeros_(self.weight.weight)
        self.into, self.positions = (
            nn.Linear(width, inner),
            nn.Parameter(0.02 * torch.randn(length, inner)),
        )
        self.blocks = nn.ModuleList(AttentionBlock(inner, heads) for _ in range(layers))
        self.out = nn.Sequential(LayerNorm(inner), nn.Linear(inner, 1))
        # of the embeddings, beside the tokens themselves
        self.log_share = nn.Parameter(torch.tensor(-1.0))
        self.dropped = dropped

    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Tensor:
        there = x > 0  # (n, length)
        if self.training and self.dropped:
            there = there & (torch.rand_like(x) >= self.dropped)
        embedded = self.embedding(x.long())  # (n, length, width)
        tokens, seen = self._inner(embedded) + self.positions, there
        if prompt is not None:
            tokens = torch.cat(
                [prompt.to(tokens.dtype).expand(len(x), -1, -1), tokens], 1
            )
            seen = torch.cat([there.new_ones(len(x), len(prompt)), there], 1)
        for block in self.blocks:
            tokens = block(tokens, seen[:, None])[0]
        # (n, length, 1)
        weight = (
            self.weight(x.long()) + self.out(tokens[:, -x.shape[1] :])
        ).exp() * there[..., None]
        # (n, vocabulary)
        counted = weight.new_zeros(len(x), self.vocabulary).scatter_add(
            1, x.long(), weight[..., 0]
        )
        return torch.cat(
            [_long(counted), self.log_share.exp() * _long((weight * embedded).sum(1))],
            1,
        )

    @property
    def vocabulary(self) -> int:
        return len(self.embedding.weight)

    def words(self, tokens: Tensor) -> Tensor:
        return self._inner(self.embedding(tokens))

    def _inner(self, embedded: Tensor) -> Tensor:
        return self.into(embedded * embedded.shape[-1] ** 0.5)


def _long(z: Tensor) -> Tensor:
    """Rows (n, d) scaled to length 8."""
    # smooth at 0, unlike F.normalize
    return 8 * z * torch.rsqrt(z.square().sum(-1, keepdim=True) + 1e-6)
