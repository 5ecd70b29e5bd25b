"""A recurrent network of any wiring."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class NEATNetwork(nn.Module):
    """A few nodes, outputs and then hidden ones, in any wiring: a node hears inputs, a
    bias of 1 and nodes, itself too.

    a <- tanh(W^T [inputs, 1, a]), `passes` times. weight (inputs + 1 + nodes, nodes) is
    0 where there is no connection; at first, the inputs and the bias are connected to
    the outputs, with weights of normal size, and no node is.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, passes: int):
        super().__init__()
        self.inputs, self.outputs, self.hidden, self.passes = (
            inputs,
            outputs,
            hidden,
            passes,
        )
        weight = torch.zeros(inputs + 1 + outputs + hidden, outputs + hidden)
        weight[: inputs + 1, :outputs] = (
            torch.randn(inputs + 1, outputs) / (inputs + 1) ** 0.5
        )
        self.weight = nn.Parameter(weight)

    def start(self) -> Tensor:
        """The activations (nodes,) before anything was heard."""
        return self.weight.new_zeros(self.outputs + self.hidden)

    def forward(self, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs x (..., inputs) and activations a (..., nodes) to what the outputs sum
        up (..., outputs), and the activations after it.
        """
        # (..., nodes)
        heard = pad(x, (0, 1), value=1.0) @ self.weight[: self.inputs + 1]
        sums = heard
        for _ in range(self.passes):
            sums = heard + a @ self.weight[self.inputs + 1 :]
            a = sums.tanh()
        return sums[..., : self.outputs], a
