"""A recurrent network with arbitrary connections."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class NEATNetwork(nn.Module):
    """A recurrent network of output and hidden nodes with arbitrary connections, also
    of a node to itself.

    a <- tanh(W^T [inputs, 1, a]), `passes` times. The weight (inputs + 1 + nodes,
    nodes) is 0 where there is no connection. At first, the inputs and the bias are
    connected to the outputs, with normally distributed weights.

    Args:
        inputs: number of inputs.
        outputs: number of output nodes.
        hidden: number of hidden nodes.
        passes: how often all nodes are updated for one input.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, passes: int):
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.hidden, self.passes = hidden, passes
        weight = torch.zeros(inputs + 1 + outputs + hidden, outputs + hidden)
        scale = (inputs + 1) ** -0.5
        weight[: inputs + 1, :outputs] = scale * torch.randn(inputs + 1, outputs)
        self.weight = nn.Parameter(weight)

    def start(self) -> Tensor:
        """The activations (nodes,) before the first input."""
        return self.weight.new_zeros(self.outputs + self.hidden)

    def forward(self, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """The sums of the output nodes (..., outputs) for inputs x (..., inputs) and
        activations a (..., nodes), and the next activations.
        """
        external, recurrent = self.weight.tensor_split([self.inputs + 1])
        bias = pad(x, (0, 1), value=1.0) @ external  # (..., nodes)
        sums = bias
        for _ in range(self.passes):
            sums = bias + a @ recurrent
            a = sums.tanh()
        return sums[..., : self.outputs], a
