"""Meta-LSTM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from innerloop.core.descent import Weights
from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import CountOrZero
from innerloop.learners.optimization.remembering import Remembering
from innerloop.nets.learned_update_rules import flat, like, preprocessed
from innerloop.nets.recurrent import LSTMCell
from innerloop.nets.registry import headed


class MetaLSTM(Remembering):
    """Meta-LSTM: the weights are the cell state of an LSTM, whose gates say how much of
    each to keep, and how far to follow its gradient.

    weights <- f * weights - i * grad(support loss), f = sigmoid(F [h, weights, f']), i
    = sigmoid(I [h, weights, i']), h = LSTM(gradient, loss) Ravi and Larochelle 2017,
    "Optimization as a model for few-shot learning", ICLR, eq. (2)-(4) and section 3.2
    State: the adapted weights of `net`, a dict name -> tensor.

    net: the task network, whose initial weights, the cell state before the first step,
    are learned. hidden: of the LSTM, the same for every weight. inner_steps: the paper
    takes 12 for one shot, 5 for five. initial_rate, initial_decay: where the gates i
    and 1 - f begin. first_order: treat gradients of the support loss as mere inputs, as
    the paper does.
    """

    net: nn.Module
    _: KW_ONLY
    hidden: int = 20
    inner_steps: CountOrZero = 5
    initial_rate: float = 0.1
    initial_decay: float = 0.001
    first_order: bool = True
    likelihood: Likelihood = Categorical()

    regression_defaults: ClassVar[dict[str, Any]] = {"initial_rate": 0.01}
    defaults = MetaTrainConfig(queries=5, batch=8, optimizer="Adam", lr=2e-3)

    def __post_init__(self) -> None:
        if not (0 < self.initial_rate < 1 and 0 < self.initial_decay < 1):
            raise InnerloopError(
                f"gates begin between 0 and 1, not at {self.initial_rate} and {self.initial_decay}"
            )
        self.lstm, self.gates = (
            LSTMCell(4, self.hidden),
            nn.ModuleList([nn.Linear(self.hidden + 2, 1) for _ in range(2)]),
        )
        for gate, begin in zip(
            self.gates, (self.initial_rate, 1 - self.initial_decay), strict=True
        ):
            gate.weight.data *= 0.1  # pyright: ignore[reportOperatorIssue]
            gate.bias.data.copy_(torch.tensor(begin).logit())  # pyright: ignore[reportCallIssue]
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        return {"net": headed(spec, out_dim, build_args.get("net"))}

    def start(self, weights: Weights) -> list[Tensor]:
        """h and c of the LSTM (weights, hidden), and the gates i and f (weights,)."""
        all_weights = flat(weights)
        return [
            *self.lstm.start(all_weights[:, None]),
            torch.zeros_like(all_weights),
            torch.ones_like(all_weights),
        ]

    def move(
        self, weights: Weights, memory: list[Tensor], support: Examples
    ) -> tuple[Weights, list[Tensor]]:
        grads = self.gradient(weights, support, first_order=self.first_order)
        loss = self.support_loss(
            {name: w.detach() for name, w in weights.items()}
            if self.first_order
            else weights,
            support,
        )
        g, w = flat(grads), flat(weights)
        # (weights, 4)
        seen = torch.cat(
            [preprocessed(g, 10.0), preprocessed(loss, 10.0).expand(len(g), -1)], -1
        )
        h, c = self.lstm(seen, (memory[0], memory[1]))
        i, f = (
            gate(torch.cat([h, w[:, None], before[:, None]], -1))[:, 0].sigmoid()
            for gate, before in zip(self.gates, memory[2:], strict=True)
        )
        return like(weights, f * w - i * g), [h, c, i, f]
