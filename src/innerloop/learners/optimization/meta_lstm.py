"""Meta-LSTM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from innerloop.core.descent import Weights
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.options import Count, CountOrZero, Range
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.optimization.remembering import Remembering
from innerloop.nets.learned_update_rules import flat, like, preprocessed
from innerloop.nets.recurrent import LSTMCell
from innerloop.nets.registry import headed

Gate = Annotated[float, Range(0, 1, open_low=True, open_high=True)]


class MetaLSTM(Remembering):
    """Meta-LSTM: an LSTM as the update rule; its cell state is the weights.

    weights <- f * weights - i * grad(support loss), f = sigmoid(F [h, weights, f']), i
    = sigmoid(I [h, weights, i']), h = LSTM(gradient, loss), f' and i' those of the step
    before

    Reference: Ravi and Larochelle 2017, "Optimization as a model for few-shot
    learning", ICLR, eq. (2)-(4) and section 3.2.

    Defaults differ from the paper: fewer inner steps, which takes 12 for one shot and 5
    for five, and larger batches.

    State: the adapted weights of `net`, a dict name -> tensor.

    Args:
        net: the task network, whose initial weights are learned.
        hidden: units of the LSTM, the same for every weight.
        inner_steps: number of inner steps.
        initial_rate: initial value of the gate i.
        initial_decay: initial value of 1 - f.
        first_order: treat gradients of the support loss as constants, as in the paper.
    """

    net: nn.Module
    _: KW_ONLY
    hidden: Count = 20
    inner_steps: CountOrZero = 5
    initial_rate: Gate = 0.1
    initial_decay: Gate = 0.001
    first_order: bool = True
    likelihood: Likelihood = Categorical()

    regression_defaults: ClassVar[dict[str, Any]] = {"initial_rate": 0.01}
    defaults = MetaTrainConfig(queries=5, batch=8, optimizer="Adam", lr=2e-3)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lstm = LSTMCell(4, self.hidden)
        gates = [nn.Linear(self.hidden + 2, 1) for _ in range(2)]  # i and f
        initial = self.initial_rate, 1 - self.initial_decay
        for gate, value in zip(gates, initial, strict=True):
            gate.weight.data *= 0.1
            gate.bias.data.copy_(torch.tensor(value).logit())
        self.gates = nn.ModuleList(gates)
        self.eval()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        return {"net": headed(spec, out_dim, build_args.get("net"))}

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {
            "fields": {"inner_steps": 12},
            "config": {"queries": 15, "batch": 1, "lr": 1e-3, "clip": 0.25},
        }

    def start(self, weights: Weights) -> list[Tensor]:
        """h and c of the LSTM (weights, hidden), and the gates i and f (weights,)."""
        w = flat(weights)
        h, c = self.lstm.start(w[:, None])
        return [h, c, torch.zeros_like(w), torch.ones_like(w)]

    def move(
        self, weights: Weights, memory: list[Tensor], support: Examples
    ) -> tuple[Weights, list[Tensor]]:
        grads = self.gradient(weights, support, first_order=self.first_order)
        at = weights
        if self.first_order:
            at = {name: w.detach() for name, w in weights.items()}
        loss = self.support_loss(at, support)
        g, w = flat(grads), flat(weights)
        by_loss = preprocessed(loss, 10.0).expand(len(g), -1)
        x = torch.cat([preprocessed(g, 10.0), by_loss], -1)  # (weights, 4)
        h, c = self.lstm(x, (memory[0], memory[1]))
        i, f = (
            gate(torch.cat([h, w[:, None], before[:, None]], -1))[:, 0].sigmoid()
            for gate, before in zip(self.gates, memory[2:], strict=True)
        )  # (weights,)
        return like(weights, f * w - i * g), [h, c, i, f]
