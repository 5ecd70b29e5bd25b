"""Recurrent cells that run at full speed under `vmap` (torch's own have no batching
rule or fall back to a slow one).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class LSTMCell(nn.Module):
    """Long short-term memory: x (..., inputs), h and c (..., hidden) to the next h and
    c. Hochreiter and Schmidhuber 1997, "Long short-term memory", Neural Computation 9.
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Linear(inputs + hidden, 4 * hidden)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        i, f, g, o = self.gates(torch.cat([x, h], -1)).chunk(4, -1)
        # the forget gate begins open
        c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def start(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Zero h and c with the leading axes of `like` (..., inputs)."""
        zero = like.new_zeros(*like.shape[:-1], self.hidden)
        return zero, zero


class GRUCell(nn.Module):
    """Gated recurrent unit: x (..., inputs) and h (..., hidden) to the next h.

    r = sigmoid(U_r x + W_r h), z = sigmoid(U_z x + W_z h), n = tanh(U_n x + r * W_n h),
    h <- (1 - z) n + z h, with biases

    Cho, van Merrienboer, Gulcehre, Bahdanau, Bougares, Schwenk and Bengio 2014,
    "Learning phrase representations using RNN encoder-decoder for statistical machine
    translation", arXiv:1406.1078, section 2.3, has n = tanh(U_n x + W_n (r * h)); this
    form saves a matrix product and is that of torch.
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.read = nn.Linear(inputs, 3 * hidden)
        self.recall = nn.Linear(hidden, 3 * hidden)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        read_r, read_z, read_n = self.read(x).chunk(3, -1)
        r, z, n = self.recall(h).chunk(3, -1)
        n = torch.tanh(read_n + torch.sigmoid(read_r + r) * n)
        return n + torch.sigmoid(read_z + z) * (h - n)

    def along(self, x: Tensor) -> Tensor:
        """h after every step of sequences x (n, steps, inputs), from zero: (n, steps,
        hidden). It has a first derivative only.
        """
        read = self.read(x.transpose(0, 1))
        h: Any = _Along.apply(read, self.recall.weight, self.recall.bias)
        return h.transpose(0, 1)

    def start(self, like: Tensor) -> Tensor:
        """Zero h with the leading axes of `like` (..., inputs)."""
        return like.new_zeros(*like.shape[:-1], self.hidden)


class _Along(torch.autograd.Function):
    """`GRUCell` along whole sequences, with an explicit derivative: a step takes a
    third of the operations of autograd.

    read (steps, n, 3 hidden), the weight (3 hidden, hidden) and the bias of `recall` to
    h (steps, n, hidden).
    """

    @staticmethod
    def forward(ctx: Any, read: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        steps, n, hidden = *read.shape[:2], weight.shape[1]
        h = read.new_zeros(steps + 1, n, hidden)
        recalled = torch.empty_like(read)
        gates = read[..., : 2 * hidden].clone()  # r and z
        new = read[..., 2 * hidden :].clone()  # n
        for t in range(steps):
            torch.addmm(bias, h[t], weight.T, out=recalled[t])
            gates[t].add_(recalled[t, :, : 2 * hidden]).sigmoid_()
            new[t].addcmul_(gates[t, :, :hidden], recalled[t, :, 2 * hidden :]).tanh_()
            torch.lerp(new[t], h[t], gates[t, :, hidden:], out=h[t + 1])
        ctx.save_for_backward(weight, h, gates, new, recalled[..., 2 * hidden :])
        return h[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, h, gates, new, recalled = ctx.saved_tensors
        r, z = gates.chunk(2, -1)
        dh_dn = (1 - z) * (1 - new.square())  # n before its tanh
        dh_dz = (h[:-1] - new) * z * (1 - z)  # z before its sigmoid
        dn_dr = recalled * r * (1 - r)  # n before its tanh, r before its sigmoid
        grad_read = grad_h.new_empty(*r.shape[:2], 3, r.shape[2])
        grad_recalled = torch.empty_like(grad_read)
        flowing = torch.zeros_like(h[0])
        for t in reversed(range(len(grad_h))):
            flowing = flowing + grad_h[t]
            torch.mul(flowing, dh_dn[t], out=grad_read[t, :, 2])
            torch.mul(grad_read[t, :, 2], dn_dr[t], out=grad_recalled[t, :, 0])
            torch.mul(flowing, dh_dz[t], out=grad_recalled[t, :, 1])
            torch.mul(grad_read[t, :, 2], r[t], out=grad_recalled[t, :, 2])
            flowing = torch.addmm(flowing * z[t], grad_recalled[t].flatten(1), weight)
        grad_read[:, :, :2] = grad_recalled[:, :, :2]
        grad_recalled = grad_recalled.flatten(2)  # (steps, n, 3 hidden)
        grad_weight = grad_recalled.flatten(0, 1).T @ h[:-1].flatten(0, 1)
        return grad_read.flatten(2), grad_weight, grad_recalled.sum((0, 1))
