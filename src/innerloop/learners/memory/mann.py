"""Memory-augmented neural networks."""

from __future__ import annotations

from dataclasses import KW_ONLY

import torch
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.engine.errors import InnerloopError
from innerloop.learners.memory.ntm import cosine
from innerloop.learners.memory.recurrent import Memory, Recurrent
from innerloop.nets.log_parameter import positive
from innerloop.nets.recurrent import LSTMCell


def least_used(usage: Tensor, n: int) -> Tensor:
    """1 for each of the `n` least used slots, the first ones of equals, else 0; usage
    (slots,). Santoro et al. 2016, eq. (6).
    """
    places = usage.argsort(stable=True)[:n]
    return torch.zeros_like(usage).scatter(0, places, 1.0)


class MANN(Recurrent):
    """Memory-augmented network: writes to the least used slots of an outside memory, or
    to those it has just read, and reads by content alone.

    r_t = sum_i w_r(i) M_(t-1)(i), w_r = softmax(strength * cosine(k_t, M_(t-1)));
    M_t(i) = M_(t-1)(i) + w_w(i) k_t
    w_w = sigmoid(alpha) w_r' + (1 - sigmoid(alpha)) w_lu', w_r' what was read and w_lu'
    the least used slots one step before
    Santoro, Bartunov, Botvinick, Wierstra and Lillicrap 2016, "One-shot learning with
    memory-augmented neural networks", arXiv:1605.06065, eq. (1)-(8), which leave open
    whether a step reads before it writes; here it does, or it would find what it has
    just written
    The keys k_t are made from the controller's state and its input; the paper's from
    its state, through which an encoder learns more slowly. Its objective is the loss of
    every answer: for each support example before its label is shown, and for the query
    set.
    State: the memory (slots, width), its usage, what the heads read and where, the
    controller's own state, and the label still to come.

    encoder: what an input goes through first. hidden: the size of the LSTM controller.
        slots, width: of the memory. readers: its heads, each of which reads, and writes
        a row to its slots. usage_decay: of their usage. strength: where the learned
        sharpness of reading begins; the paper has 1, fixed, with which a softmax over
        128 slots reads nearly their mean.
    """

    _: KW_ONLY
    hidden: int = 200
    slots: int = 128
    width: int = 40
    readers: int = 4
    usage_decay: float = 0.95
    strength: float = 10.0
    likelihood: Likelihood = Categorical()

    defaults = MetaTrainConfig(shots=10, queries=1, optimizer="Adam", lr=3e-3)

    def __post_init__(self) -> None:
        if self.readers > self.slots:
            raise InnerloopError(
                f"{self.readers} readers need as many slots, and there are {self.slots}"
            )
        self.cell = LSTMCell(
            self.features + self.y_dim + self.readers * self.width, self.hidden
        )
        self.heads = nn.Linear(
            self.hidden + self.features + self.y_dim, self.readers * (self.width + 1)
        )
        self.head = nn.Linear(self.hidden + self.readers * self.width, self.out_dim)
        self.log_strength = positive(self.strength, "the strength of reading")
        super().__post_init__()

    def start(self) -> Memory:
        zero = self.head.weight.new_zeros(())
        M, looks = (
            zero.expand(self.slots, self.width) + 1e-6,
            zero.expand(self.readers, self.slots),
        )
        return (
            M,
            zero.expand(self.slots),
            looks,
            zero.expand(self.readers, self.width),
            self.cell.start(self.head.weight[0]),
        )

    def step(self, memory: Memory, inputs: Tensor) -> tuple[Tensor, Memory]:
        M, usage, read, r, own = memory
        own = self.cell(torch.cat([inputs, r.flatten()]), own)
        k, alpha = (
            self.heads(torch.cat([own[0], inputs]))
            .view(self.readers, -1)
            .split([self.width, 1], -1)
        )
        k, gate = k.tanh(), alpha.sigmoid()
        unused = least_used(usage.detach(), self.readers)  # (slots,)
        write = gate * read + (1 - gate) * unused  # (readers, slots)
        cleared = least_used(usage.detach(), 1)  # before it is written to
        read = (self.log_strength.exp() * cosine(k, M)).softmax(-1)  # (readers, slots)
        r = read @ M  # (readers, width)
        M = M * (1 - cleared)[:, None] + write.T @ k  # (slots, width)
        usage = self.usage_decay * usage + read.sum(0) + write.sum(0)  # eq. (5)
        return self.head(torch.cat([own[0], r.flatten()])), (M, usage, read, r, own)
