"""NEAT: a recurrent network whose connections are evolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import TaskSpec
from innerloop.engine.options import Count, CountOrZero
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.metagrad.neat import NEATLearner
from innerloop.nets.neat_network import NEATNetwork


class NEAT(NEATLearner):
    """NEAT: a small recurrent network with evolved topology and weights.

    a <- tanh(W^T [x, y, 1, 1, a]), `passes` times for an example; a prediction is the
    sums of the output nodes for an input without label, [x, 0, 0, 1, a]

    Reference: Stanley and Miikkulainen 2002, "Evolving neural networks through
    augmenting topologies", Evolutionary Computation 10 (2), section 3.

    The meta-gradient `neat` adds connections and nodes, starting from inputs that are
    connected to the outputs; `es`, `cma-es` and `backprop` train the weights of all
    possible connections.

    Objective: the mean loss of all predictions: for each support example before its
    label is observed, and for the query set.

    State: the activations a (nodes,), initially zero.

    Args:
        x_size, y_dim: number of values in an input and in a label.
        out_dim: number of outputs.
        hidden: the largest number of hidden nodes.
        passes: how often all nodes are updated for an example.
    """

    x_size: int
    y_dim: int
    out_dim: int
    _: KW_ONLY
    hidden: CountOrZero = 12
    passes: Count = 3
    likelihood: Likelihood = Categorical()

    home = "xor"
    kinds = ("classes", "reals", "bits")
    fixed_ways = True
    defaults = MetaTrainConfig(queries=5, batch=32, meta_gradient="neat")

    def __post_init__(self) -> None:
        super().__post_init__()
        inputs = self.x_size + self.y_dim + 1
        self.network = NEATNetwork(inputs, self.out_dim, self.hidden, self.passes)
        self.eval()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        return {"x_size": spec.x_size, "y_dim": spec.y_dim, "out_dim": out_dim}

    def evolved_network(self) -> NEATNetwork:
        return self.network

    def init(self) -> Tensor:
        return self.network.start()

    def observe(self, state: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.network(torch.cat([x.flatten(), y, y.new_ones(1)]), state)[1]

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        x = pad(x.flatten(1), (0, self.y_dim + 1))  # (m, inputs)
        return self.network(x, state.expand(x.shape[0], -1))[0]
