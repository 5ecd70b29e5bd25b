"""Networks that read soft prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Prompted(nn.Module, ABC):
    """A network that reads tokens, and optionally a soft prompt: vectors before them in
    the place of the embeddings of more tokens.
    """

    @abstractmethod
    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Tensor:
        """Features (n, d) of texts x (n, length), token numbers with 0 for padding,
        after a prompt (p, width).
        """

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """The number of tokens."""

    @abstractmethod
    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """The embeddings (n, width) of tokens (n,), as a prompt contains them."""
