"""A small transformer that reads tokens, and soft prompts before them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from innerloop.encoders.prompted import Prompted
from innerloop.nets.attention import AttentionBlock
from innerloop.nets.norm import LayerNorm


class TextEncoder(Prompted):
    """Features of a text: weighted counts of its tokens, and the weighted sum of their
    embeddings. A transformer determines the weights in context.

    z = [c, s m], c_k = sum_i w_i [x_i is token k], m = sum_i w_i e_i, both scaled to
    norm 8; w_i = exp(weight of the token + a linear map of the transformer's output at
    i), s learned

    The transformer is that of Vaswani et al. 2017, arXiv:1706.03762, section 3, with
    normalization before each part; the prompt is that of Lester, Al-Rfou and Constant
    2021, arXiv:2104.08691. Tokens that never occurred in training keep a dimension of
    their own in c, so that texts that share them are similar; sums of embeddings mix
    them up, and the outputs of the transformer lose them.

    Args:
        vocabulary: number of tokens; there are vocabulary + width features.
        length: tokens of the longest text.
        width: size of the embeddings.
        inner: width of the transformer.
        layers, heads: number of its layers and of its attention heads.
        dropped: share of the tokens that are left out in training mode.
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
        self.embedding = nn.Embedding(vocabulary, width)
        self.weight = nn.Embedding(vocabulary, 1)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        nn.init.zeros_(self.weight.weight)
        self.into = nn.Linear(width, inner)
        self.positions = nn.Parameter(0.02 * torch.randn(length, inner))
        self.blocks = nn.ModuleList(AttentionBlock(inner, heads) for _ in range(layers))
        self.out = nn.Sequential(LayerNorm(inner), nn.Linear(inner, 1))
        # log of s, the share of the embeddings
        self.log_share = nn.Parameter(torch.tensor(-1.0))
        self.dropped = dropped

    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Tensor:
        present = x > 0  # (n, length)
        if self.training and self.dropped:
            present = present & (torch.rand_like(x) >= self.dropped)
        embedded = self.embedding(x.long())  # (n, length, width)
        hidden = self._project(embedded) + self.positions  # (n, length, inner)
        visible = present
        if prompt is not None:
            prompts = prompt.to(hidden.dtype).expand(
                x.shape[0], -1, -1
            )  # (n, p, inner)
            hidden = torch.cat([prompts, hidden], 1)
            visible = torch.cat([present.new_ones(x.shape[0], len(prompt)), present], 1)
        for block in self.blocks:
            hidden, _ = block(hidden, visible[:, None])
        logits = self.weight(x.long()) + self.out(hidden[:, -x.shape[1] :])
        weights = logits.exp() * present[..., None]  # (n, length, 1)
        counts = weights.new_zeros(x.shape[0], self.vocabulary)
        counts = counts.scatter_add(1, x.long(), weights[..., 0])  # (n, vocabulary)
        meaning = _scaled((weights * embedded).sum(1))  # (n, width)
        return torch.cat([_scaled(counts), self.log_share.exp() * meaning], 1)

    @property
    def vocabulary(self) -> int:
        return len(self.embedding.weight)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        return self._project(self.embedding(tokens))

    def _project(self, embedded: Tensor) -> Tensor:
        return self.into(embedded * embedded.shape[-1] ** 0.5)


def _scaled(z: Tensor) -> Tensor:
    """Rows (n, d) scaled to norm 8."""
    # smooth at 0, unlike F.normalize
    return 8 * z * torch.rsqrt(z.square().sum(-1, keepdim=True) + 1e-6)
