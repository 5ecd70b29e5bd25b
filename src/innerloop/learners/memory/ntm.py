"""Neural Turing machines."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import TaskSpec
from innerloop.engine.options import Count
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.memory.recurrent import Memory, Recurrent
from innerloop.nets.recurrent import LSTMCell


def cosine(keys: Tensor, memory: Tensor) -> Tensor:
    """Cosine similarity (heads, slots) of keys (heads, width) and rows of the memory
    (slots, width); 0 for an empty row.
    """
    lengths = keys.square().sum(-1, keepdim=True) * memory.square().sum(-1)
    return keys @ memory.T * torch.rsqrt(lengths + 1e-4)  # (heads, slots)


def address(
    memory: Tensor,
    before: Tensor,
    key: Tensor,
    strength: Tensor,
    gate: Tensor,
    shift: Tensor,
    sharpness: Tensor,
) -> Tensor:
    """The attention of every head (heads, slots): by content or as before, then shifted
    and sharpened. Graves et al. 2014, eq. (5)-(9).

    memory (slots, width), before (heads, slots), key (heads, width), shift (heads, 3)
    for -1, 0 and 1, all others (heads, 1).
    """
    content = (strength * cosine(key, memory)).softmax(-1)  # eq. (5)
    mixed = gate * content + (1 - gate) * before  # eq. (7)
    left, stay, right = shift.split(1, -1)
    moved = left * mixed.roll(-1, -1) + stay * mixed + right * mixed.roll(1, -1)  # (8)
    return (sharpness * (moved + 1e-12).log()).softmax(-1)  # eq. (9)


class NTM(Recurrent):
    """Neural Turing machine: reads and writes an external memory by attention.

    M_t(i) = M_(t-1)(i) (1 - w_t(i) e_t) + w_t(i) a_t, r_t = sum_i w_t(i) M_t(i); the
    attention w_t is by content, or by location relative to w_(t-1)

    Reference: Graves, Wayne and Danihelka 2014, "Neural Turing machines",
    arXiv:1410.5401, eq. (2)-(9). The memory starts at 1e-6 everywhere: Collier and Beel
    2018, "Implementing neural Turing machines", arXiv:1807.08518, section 3.1.

    Objective: the loss of every prediction: of each support example before its label is
    read, and of the query set; of the query set alone where both are one sequence.

    State: the memory (slots, width), the attention of the heads (heads, slots), what
    was read (readers, width), the controller's state, and the last label.

    Args:
        encoder: the network that encodes an input.
        normal: the normalization of features.
        features: size of the features.
        y_dim: size of a target.
        out_dim: number of outputs.
        controller: kind of the controller network.
        hidden: size of the controller.
        slots: rows of the memory.
        width: size of a row of the memory.
        readers: number of read heads.
        writers: number of write heads.
    """

    _: KW_ONLY
    controller: Literal["lstm", "feedforward"] = "lstm"
    hidden: Count = 100
    slots: Count = 128
    width: Count = 20
    readers: Count = 1
    writers: Count = 1
    likelihood: Likelihood = Categorical()

    home = "copy"
    defaults = MetaTrainConfig(shots=5, queries=5, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        super().__post_init__()
        heads = self.readers + self.writers
        read = self.readers * self.width
        inputs = self.features + self.y_dim + read
        self.cell = (
            LSTMCell(inputs, self.hidden)
            if self.controller == "lstm"
            else nn.Sequential(nn.Linear(inputs, self.hidden), nn.Tanh())
        )
        writes = self.writers * 2 * self.width
        self.heads = nn.Linear(self.hidden, heads * (self.width + 6) + writes)
        self.head = nn.Linear(self.hidden + read, self.out_dim)
        # logits of the attention before the first step
        self.attention = nn.Parameter(torch.zeros(heads, self.slots))
        self.attention.data[:, 0] = 10.0
        self.reads = nn.Parameter(0.1 * torch.randn(self.readers, self.width))
        self.eval()

    @classmethod
    def specs(cls) -> tuple[TaskSpec, ...]:
        return tuple(sorted(super().specs(), key=lambda spec: not spec.ordered))

    def start(self) -> Memory:
        M = torch.full_like(self.reads[:1], 1e-6).expand(self.slots, -1)
        state = self.reads.new_zeros(0)
        if isinstance(self.cell, LSTMCell):
            state = self.cell.start(self.reads[0])
        return M, self.attention.softmax(-1), self.reads, state

    def step(self, memory: Memory, inputs: Tensor) -> tuple[Tensor, Memory]:
        M, w, r, state = memory
        inputs = torch.cat([inputs, r.flatten()])
        if self.controller == "lstm":
            state = self.cell(inputs, state)
            h = state[0]
        else:
            h = self.cell(inputs)
        addressing, writing = self.heads(h).split(
            [len(w) * (self.width + 6), self.writers * 2 * self.width]
        )
        key, strength, gate, shift, sharpness = addressing.view(len(w), -1).split(
            [self.width, 1, 1, 3, 1], -1
        )
        strength, sharpness = F.softplus(strength), 1 + F.softplus(sharpness)
        gate, shift = gate.sigmoid(), shift.softmax(-1)
        # (heads, slots), the writers first
        w = address(M, w, key.tanh(), strength, gate, shift, sharpness)
        writes = writing.view(self.writers, 2, self.width)
        for w_write, (erase, add) in zip(w[: self.writers], writes, strict=True):
            M = M * (1 - torch.outer(w_write, erase.sigmoid()))
            M = M + torch.outer(w_write, add.tanh())  # (slots, width)
        r = w[self.writers :] @ M  # (readers, width)
        return self.head(torch.cat([h, r.flatten()])), (M, w, r, state)
