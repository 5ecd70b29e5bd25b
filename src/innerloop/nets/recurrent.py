"""Recurrent cells that `vmap` maps at full speed (torch's own have no batching rule, or
fall back to a slow one).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class LSTMCell(nn.Module):
    """Long short-term memory (Hochreiter and Schmidhuber 1997): x (..., inputs), h and
    c (..., hidden) to the next h and c.
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Linear(inputs + hidden, 4 * hidden)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        i, f, g, o = self.gates(torch.cat([x, h], -1)).chunk(4, -1)
        # the forget gate starts open
        c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def start(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Zero h and c with the leading axes of `like` (..., inputs)."""
        zero = like.new_zeros(*like.shape[:-1], self.hidden)
        return zero, zero


class GRUCell(nn.Module):
    """A gated recurrent unit: x (..., inputs) and h (..., hidden) to the next h.

    r = sigmoid(U_r x + W_r h), z = sigmoid(U_z x + W_z h), n = tanh(U_n x + r * W_n h),
    h <- (1 - z) n + z h, with biases
    Cho et al. 2014, arXiv:1406.1078, section 2.3, where n = tanh(U_n x + W_n (r * h));
    this form takes one product less, and is torch's
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.read, self.recall = (
            nn.Linear(inputs, 3 * hidden),
            nn.Linear(hidden, 3 * hidden),
        )

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        (of_r, of_z, of_n), (r, z, n) = (
            self.read(x).chunk(3, -1),
            self.recall(h).chunk(3, -1),
        )
        n = torch.tanh(of_n + torch.sigmoid(of_r + r) * n)
        return n + torch.sigmoid(of_z + z) * (h - n)

    def along(self, x: Tensor) -> Tensor:
        """h after every step of sequences x (n, steps, inputs), from zero: (n, steps,
        hidden); with a first derivative only.
        """
        return _Along.apply(
            self.read(x.transpose(0, 1)), self.recall.weight, self.recall.bias
        ).transpose(0, 1)  # pyright: ignore

    def start(self, like: Tensor) -> Tensor:
        """Zero h with the leading axes of `like` (..., inputs)."""
        return like.new_zeros(*like.shape[:-1], self.hidden)


class _Along(torch.autograd.Function):
    """`GRUCell` along whole sequences, with a derivative written by hand: a step takes
    a third of the operations that autograd would do.

    read (steps, n, 3 hidden), the weight (3 hidden, hidden) and the bias of `recall` to
    h (steps, n, hidden).
    """

    @staticmethod
    def forward(ctx: Any, read: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        steps, n, hidden = *read.shape[:2], weight.shape[1]
        h, recalled = read.new_zeros(steps + 1, n, hidden), torch.empty_like(read)
        # r and z; n
        gates, new = read[..., : 2 * hidden].clone(), read[..., 2 * hidden :].clone()
        for t in range(steps):
            torch.addmm(bias, h[t], weight.T, out=recalled[t])
            gates[t].add_(recalled[t, :, : 2 * hidden]).sigmoid_()
            new[t].addcmul_(gates[t, :, :hidden], recalled[t, :, 2 * hidden :]).tanh_()
            torch.lerp(new[t], h[t], gates[t, :, hidden:], out=h[t + 1])
        ctx.save_for_backward(weight, h, gates, new, recalled[..., 2 * hidden :])
        return h[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_h: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, h, gates, new, recalled = ctx.saved_tensors
        r, z = gates.chunk(2, -1)
        # by how much h moves with the argument of tanh
        by_n = (1 - z) * (1 - new.square())
        # with that of z; the argument of tanh with that of r
        by_z, by_r = (h[:-1] - new) * z * (1 - z), recalled * r * (1 - r)
        of_read, of_recalled = (
            of_h.new_empty(*r.shape[:2], 3, r.shape[2]) for _ in range(2)
        )
        flowing = torch.zeros_like(h[0])
        for t in reversed(range(len(of_h))):
            flowing = flowing + of_h[t]
            torch.mul(flowing, by_n[t], out=of_read[t, :, 2])
            torch.mul(of_read[t, :, 2], by_r[t], out=of_recalled[t, :, 0])
            torch.mul(flowing, by_z[t], out=of_recalled[t, :, 1])
            torch.mul(of_read[t, :, 2], r[t], out=of_recalled[t, :, 2])
            flowing = torch.addmm(flowing * z[t], of_recalled[t].flatten(1), weight)
        of_read[:, :, :2] = of_recalled[:, :, :2]
        of_recalled = of_recalled.flatten(2)
        return (
            of_read.flatten(2),
            of_recalled.flatten(0, 1).T @ h[:-1].flatten(0, 1),
            of_recalled.sum((0, 1)),
        )
