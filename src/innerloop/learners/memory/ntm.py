"""Neural Turing machines."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.learners.memory.recurrent import Memory, Recurrent
from innerloop.nets.recurrent import LSTMCell


def cosine(keys: Tensor, memory: Tensor) -> Tensor:
    """Cosine similarity (heads, slots) of keys (heads, width) and rows of the memory
    (slots, width); an empty row is like nothing.
    """
    # (heads, slots)
    lengths = keys.square().sum(-1, keepdim=True) * memory.square().sum(-1)
    return keys @ memory.T * torch.rsqrt(lengths + 1e-4)


def address(
    memory: Tensor,
    before: Tensor,
    key: Tensor,
    strength: Tensor,
    gate: Tensor,
    shift: Tensor,
    sharpness: Tensor,
) -> Tensor:
    """Where every head looks (heads, slots): by content, else where it looked before;
    shifted, sharpened. Graves et al. 2014, eq. (5)-(9).

    memory (slots, width), before (heads, slots), key (heads, width), shift (heads, 3)
    for -1, 0 and 1, all others (heads, 1).
    """
    content = (strength * cosine(key, memory)).softmax(-1)  # eq. (5)
    mixed = gate * content + (1 - gate) * before  # eq. (7)
    # eq. (8)
    moved = (
        shift[:, :1] * mixed.roll(-1, -1)
        + shift[:, 1:2] * mixed
        + shift[:, 2:] * mixed.roll(1, -1)
    )
    return (sharpness * (moved + 1e-12).log()).softmax(-1)  # eq. (9)


class NTM(Recurrent):
    """Neural Turing machine: a network that reads and writes an outside memory by
    attention, and learns by what it writes there.

    M_t(i) = M_(t-1)(i) (1 - w_t(i) e_t) + w_t(i) a_t, r_t = sum_i w_t(i) M_t(i); w_t
    looks by content, or moves on from where it looked before Graves, Wayne and
    Danihelka 2014, "Neural Turing machines", arXiv:1410.5401, eq. (2)-(9)
    Its objective is the loss of every answer: for each support example before its label
    is shown, and for the query set; where both are one sequence, of the query set.
    State: the memory (slots, width), where the heads look (heads, slots), what was
    read, the controller's own state, and the label still to come.

    controller: "lstm" or "feedforward". hidden: its size. slots, width: of the memory.
    readers, writers: how many heads of each. encoder: what an input goes through first.
    The memory begins at 1e-6 everywhere (Collier and Beel 2018, arXiv:1807.08518,
    section 3.1).
    """

    _: KW_ONLY
    controller: Literal["lstm", "feedforward"] = "lstm"
    hidden: int = 100
    slots: int = 128
    width: int = 20
    readers: int = 1
    writers: int = 1
    likelihood: Likelihood = Categorical()

    defaults = MetaTrainConfig(shots=5, queries=5, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        heads, seen = (
            self.readers + self.writers,
            self.features + self.y_dim + self.readers * self.width,
        )
        self.cell = (
            LSTMCell(seen, self.hidden)
            if self.controller == "lstm"
            else nn.Sequential(nn.Linear(seen, self.hidden), nn.Tanh())
        )
        self.heads = nn.Linear(
            self.hidden, heads * (self.width + 6) + self.writers * 2 * self.width
        )
        self.head = nn.Linear(self.hidden + self.readers * self.width, self.out_dim)
        # where heads look before the first step, as logits
        self.looks = nn.Parameter(torch.zeros(heads, self.slots))
        self.looks.data[:, 0] = 10.0
        self.reads = nn.Parameter(0.1 * torch.randn(self.readers, self.width))
        super().__post_init__()

    def start(self) -> Memory:
        own = (
            self.cell.start(self.reads[0])
            if isinstance(self.cell, LSTMCell)
            else self.reads.new_zeros(0)
        )
        return (
            torch.full_like(self.reads[:1], 1e-6).expand(self.slots, -1),
            self.looks.softmax(-1),
            self.reads,
            own,
        )

    def step(self, memory: Memory, inputs: Tensor) -> tuple[Tensor, Memory]:
        M, w, r, own = memory
        inputs = torch.cat([inputs, r.flatten()])
        own = self.cell(inputs, own) if self.controller == "lstm" else own
        h = own[0] if self.controller == "lstm" else self.cell(inputs)
        told, writing = self.heads(h).split(
            [len(w) * (self.width + 6), self.writers * 2 * self.width]
        )
        key, strength, gate, shift, sharpness = told.view(len(w), -1).split(
            [self.width, 1, 1, 3, 1], -1
        )
        strength, gate, shift, sharpness = (
            F.softplus(strength),
            gate.sigmoid(),
            shift.softmax(-1),
            1 + F.softplus(sharpness),
        )
        # (heads, slots), the writers first
        w = address(M, w, key.tanh(), strength, gate, shift, sharpness)
        for at, (erase, add) in zip(
            w, writing.view(self.writers, 2, self.width), strict=False
        ):
            # (slots, width)
            M = M * (1 - torch.outer(at, erase.sigmoid())) + torch.outer(at, add.tanh())
        r = w[self.writers :] @ M  # (readers, width)
        return self.head(torch.cat([h, r.flatten()])), (M, w, r, own)
