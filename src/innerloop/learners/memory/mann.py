"""Memory-augmented neural networks."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Fraction, Positive
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.memory.ntm import cosine
from innerloop.learners.memory.recurrent import Memory, Recurrent
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.recurrent import LSTMCell


def least_used(usage: Tensor, n: int) -> Tensor:
    """1 for each of the `n` least used slots, the first ones of equals, else 0; usage
    (slots,). Santoro et al. 2016, eq. (6).
    """
    slots = usage.argsort(stable=True)[:n]
    return torch.zeros_like(usage).scatter(0, slots, 1.0)


class MANN(Recurrent):
    """Memory-augmented network: an external memory that reuses its least used slots.

    r_t = sum_i w_r(i) M_(t-1)(i), w_r = softmax(strength * cosine(k_t, M_(t-1)));
    M_t(i) = M_(t-1)(i) + w_w(i) k_t, w_w = sigmoid(alpha) w_r' + (1 - sigmoid(alpha))
    w_lu', with the read weights w_r' and the least used slots w_lu' of the step before

    Reference: Santoro, Bartunov, Botvinick, Wierstra and Lillicrap 2016, "One-shot
    learning with memory-augmented neural networks", arXiv:1605.06065, eq. (1)-(8).

    Defaults differ from the paper: `strength` is 1 there, fixed, with which a softmax
    over 128 slots reads nearly their mean. The keys k_t are computed from the
    controller's state and its input; in the paper from the state alone, through which
    an encoder learns more slowly. The paper does not say whether a step reads or writes
    first; here it reads first, or it would find what it has just written.

    Objective: the loss of every prediction: of each support example before its label is
    read, and of the query set.

    State: the memory (slots, width), its usage (slots,), the read weights (readers,
    slots) and what was read (readers, width), the controller's state, and the last
    label.

    Args:
        encoder: the network that encodes an input.
        normal: the normalization of features.
        features: size of the features.
        y_dim: size of a target.
        out_dim: number of outputs.
        hidden: size of the LSTM controller.
        slots: rows of the memory.
        width: size of a row of the memory.
        readers: number of heads; each of them reads, and writes one row.
        usage_decay: decay of the usage of slots per step.
        strength: initial value of the learned sharpness of reading.
    """

    _: KW_ONLY
    hidden: Count = 200
    slots: Count = 128
    width: Count = 40
    readers: Count = 4
    usage_decay: Fraction = 0.95
    strength: Positive = 10.0
    likelihood: Likelihood = Categorical()

    defaults = MetaTrainConfig(shots=10, queries=1, optimizer="Adam", lr=3e-3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.readers > self.slots:
            raise InnerloopError(
                f"readers must be at most slots; got {self.readers} and {self.slots}"
            )
        inputs = self.features + self.y_dim
        read = self.readers * self.width
        self.cell = LSTMCell(inputs + read, self.hidden)
        self.heads = nn.Linear(self.hidden + inputs, self.readers * (self.width + 1))
        self.head = nn.Linear(self.hidden + read, self.out_dim)
        self.log_strength = log_parameter(self.strength)
        self.eval()

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {"fields": {"strength": 1.0}}

    def start(self) -> Memory:
        zero = self.head.weight.new_zeros(())
        memory = zero.expand(self.slots, self.width) + 1e-6
        usage = zero.expand(self.slots)
        weights = zero.expand(self.readers, self.slots)
        read = zero.expand(self.readers, self.width)
        return memory, usage, weights, read, self.cell.start(self.head.weight[0])

    def step(self, memory: Memory, inputs: Tensor) -> tuple[Tensor, Memory]:
        M, usage, w_read, r, controller = memory
        controller = self.cell(torch.cat([inputs, r.flatten()]), controller)
        heads = self.heads(torch.cat([controller[0], inputs])).view(self.readers, -1)
        k, alpha = heads.split([self.width, 1], -1)
        k, gate = k.tanh(), alpha.sigmoid()
        unused = least_used(usage.detach(), self.readers)  # (slots,)
        w_write = gate * w_read + (1 - gate) * unused  # (readers, slots)
        cleared = least_used(usage.detach(), 1)  # before it is written
        scores = self.log_strength.exp() * cosine(k, M)
        w_read = scores.softmax(-1)  # (readers, slots)
        r = w_read @ M  # (readers, width)
        M = M * (1 - cleared)[:, None] + w_write.T @ k  # (slots, width)
        usage = self.usage_decay * usage + w_read.sum(0) + w_write.sum(0)  # eq. (5)
        outputs = self.head(torch.cat([controller[0], r.flatten()]))
        return outputs, (M, usage, w_read, r, controller)
