"""NEAT: a network whose wiring is evolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from innerloop.core.learner import MetaTrainConfig, Streaming
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import TaskSpec
from innerloop.engine.options import CountOrZero
from innerloop.nets.neat_network import NEATNetwork


class NEAT(Streaming):
    """NEAT: a recurrent network of a few nodes that learns in its activations; its
    wiring is evolved along with its weights.

    a <- tanh(W^T [x, y, 1, 1, a]), `passes` times for an example; an answer is what the
    outputs sum up where x comes without label, [x, 0, 0, 1, a] Stanley and Miikkulainen
    2002, "Evolving neural networks through augmenting topologies", Evolutionary
    Computation 10 (2), section 3 Its objective is the loss of every answer: for each
    support example before its label is shown, and for the query set.
    State: the activations a (nodes,), zero at first.

    x_size, y_dim: numbers in an input and in a label. hidden: the most hidden nodes
        that may grow. passes: how far activations spread in one example. The outer loop
        "neat" grows the wiring, from inputs connected to outputs; "es", "cma-es" and
        "backprop" find weights for all wires there are.
    """

    x_size: int
    y_dim: int
    out_dim: int
    _: KW_ONLY
    hidden: CountOrZero = 12
    passes: int = 3
    likelihood: Likelihood = Categorical()

    kinds = ("classes", "reals", "bits")
    defaults = MetaTrainConfig(queries=5, batch=32, meta_gradient="neat")

    def __post_init__(self) -> None:
        self.wired = NEATNetwork(
            self.x_size + self.y_dim + 1, self.out_dim, self.hidden, self.passes
        )
        super().__post_init__()

    fixed_ways = True

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        return {"x_size": spec.x_size, "y_dim": spec.y_dim, "out_dim": out_dim}

    def init(self) -> Tensor:
        return self.wired.start()

    def observe(self, state: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.wired(torch.cat([x.flatten(), y, y.new_ones(1)]), state)[1]

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        x = pad(x.flatten(1), (0, self.y_dim + 1))  # (m, inputs)
        return self.wired(x, state.expand(len(x), -1))[0]
