"""Long short-term memory."""

from __future__ import annotations

from dataclasses import KW_ONLY

from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.learners.memory.recurrent import Memory, Recurrent
from innerloop.nets.recurrent import LSTMCell


class LSTM(Recurrent):
    """A plain LSTM that learns in its activations: the baseline of the learners with an
    outside memory.

    h_t, c_t = LSTM([x_t, y_(t-1)], h_(t-1), c_(t-1)); the answer is linear in h_t
    Hochreiter, Younger and Conwell 2001, "Learning to learn using gradient descent",
    section 2; the cell: Hochreiter and Schmidhuber 1997 Its objective is the loss of
    every answer: for each support example before its label is shown, and for the query
    set.
    State: h and c of every layer, and the label still to come.

    encoder: what an input goes through first. hidden: the size of h. layers: how many
    cells lie one above the other.
    """

    _: KW_ONLY
    hidden: int = 200
    layers: int = 1
    likelihood: Likelihood = Categorical()

    defaults = MetaTrainConfig(shots=5, queries=5, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        sizes = [self.features + self.y_dim, *[self.hidden] * self.layers]
        self.cells = nn.ModuleList(
            LSTMCell(before, self.hidden) for before in sizes[:-1]
        )
        self.head = nn.Linear(self.hidden, self.out_dim)
        super().__post_init__()

    def start(self) -> Memory:
        return [cell.start(self.head.weight[0]) for cell in self.cells]  # pyright: ignore[reportCallIssue]

    def step(self, memory: Memory, inputs: Tensor) -> tuple[Tensor, Memory]:
        after = []
        for cell, before in zip(self.cells, memory, strict=True):
            after.append(cell(inputs, before))
            inputs = after[-1][0]
        return self.head(inputs), after
