"""Long short-term memory."""

from __future__ import annotations

from dataclasses import KW_ONLY

from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.engine.options import Count
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.memory.recurrent import Memory, Recurrent
from innerloop.nets.recurrent import LSTMCell


class LSTM(Recurrent):
    """LSTM: a recurrent network that learns in its activations.

    h_t, c_t = LSTM([x_t, y_(t-1)], h_(t-1), c_(t-1)); the outputs are linear in h_t

    Reference: Hochreiter, Younger and Conwell 2001, "Learning to learn using gradient
    descent", ICANN, section 2. The cell: Hochreiter and Schmidhuber 1997, "Long
    short-term memory", Neural Computation 9(8).

    Objective: the loss of every prediction: of each support example before its label is
    read, and of the query set.

    State: h and c of every layer, and the last label.

    Args:
        encoder: the network that encodes an input.
        normal: the normalization of features.
        features: size of the features.
        y_dim: size of a target.
        out_dim: number of outputs.
        hidden: size of h.
        layers: number of stacked cells.
    """

    _: KW_ONLY
    hidden: Count = 200
    layers: Count = 1
    likelihood: Likelihood = Categorical()

    defaults = MetaTrainConfig(shots=5, queries=5, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = [self.features + self.y_dim, *[self.hidden] * self.layers]
        self.cells = nn.ModuleList(LSTMCell(size, self.hidden) for size in sizes[:-1])
        self.head = nn.Linear(self.hidden, self.out_dim)
        self.eval()

    def start(self) -> Memory:
        return [cell.start(self.head.weight[0]) for cell in self.cells]  # pyright: ignore[reportCallIssue]

    def step(self, memory: Memory, inputs: Tensor) -> tuple[Tensor, Memory]:
        after = []
        for cell, before in zip(self.cells, memory, strict=True):
            after.append(cell(inputs, before))
            inputs = after[-1][0]
        return self.head(inputs), after
