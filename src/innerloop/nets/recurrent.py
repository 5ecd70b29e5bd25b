"""Recurrent cells that `vmap` maps at full speed (torch's own have no batching rule, or fall back to a slow one)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LSTMCell(nn.Module):
    """Long short-term memory (Hochreiter and Schmidhuber 1997): x (..., inputs), h and c (..., hidden) to the next h and c."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Linear(inputs + hidden, 4 * hidden)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        i, f, g, o = self.gates(torch.cat([x, h], -1)).chunk(4, -1)
        c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)  # the forget gate starts open
        return torch.sigmoid(o) * torch.tanh(c), c

    def start(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Zero h and c with the leading axes of `like` (..., inputs)."""
        zero = like.new_zeros(*like.shape[:-1], self.hidden)
        return zero, zero
