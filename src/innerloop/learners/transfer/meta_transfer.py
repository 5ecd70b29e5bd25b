"""Meta-transfer learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import TaskSpec
from innerloop.engine.functional import functional_call
from innerloop.engine.gradient_descent import descend
from innerloop.engine.norm_stats import use_stored
from innerloop.engine.options import CountOrZero, NonNegative
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.nets.registry import encoder, flat_features


class MetaTransfer(FeatureLearner):
    """Meta-transfer learning: frozen features with meta-learned scales and shifts.

    f uses W * scale and b + shift for its weights W and biases b, with one scale for
    every kernel; head <- head - inner_lr * grad(support loss), from a learned
    initialization

    Reference: Sun, Liu, Chua and Schiele 2019, "Meta-transfer learning for few-shot
    learning", arXiv:1812.02391, eq. (2)-(5).

    Defaults differ from the paper: larger batches of smaller tasks. The authors' code
    takes 20 inner steps in training and 100 in tests.

    State: weight (ways, d) and bias (ways,) of the head.

    Args:
        encoder: the network f, frozen: use that of a trained FineTune.
        head: the linear head, the initialization of every task.
        inner_lr: step size of the inner steps.
        inner_steps: number of inner steps.
    """

    encoder: nn.Module
    head: nn.Module
    _: KW_ONLY
    inner_lr: NonNegative = 0.1
    inner_steps: CountOrZero = 20
    likelihood: Likelihood = Categorical()

    fixed_ways = True
    defaults = MetaTrainConfig(queries=5, batch=8, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        self.encoder.requires_grad_(False)
        scales: dict[str, Tensor] = {}
        shifts: dict[str, Tensor] = {}
        for name, p in self.encoder.named_parameters():
            key = name.replace(".", "/")  # no dots in the names of a ParameterDict
            if p.dim() > 1:
                scales[key] = p.new_ones(*p.shape[:2], *[1] * (p.dim() - 2))
            if name.endswith("bias"):
                shifts[key] = torch.zeros_like(p)
        self.scales = nn.ParameterDict(scales)
        self.shifts = nn.ParameterDict(shifts)
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body = encoder(spec, build_args.get("encoder"))
        return {"encoder": body, "head": nn.Linear(flat_features(body, spec), out_dim)}

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {"config": {"queries": 15, "batch": 2}}

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.eval()  # it is frozen
        return self

    def embed(self, x: Tensor) -> Tensor:
        weights: dict[str, Tensor] = dict(self.encoder.named_parameters())
        for key, scale in self.scales.items():
            name = key.replace("/", ".")
            weights[name] = weights[name] * scale
        for key, shift in self.shifts.items():
            name = key.replace("/", ".")
            weights[name] = weights[name] + shift
        with use_stored():
            return widened(functional_call(self.encoder, weights, (x,)).flatten(1))

    def learned(self, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        start = dict(self.head.named_parameters())
        rates = {
            name: self.inner_lr if p.requires_grad else 0.0 for name, p in start.items()
        }

        def loss(weights: dict[str, Tensor]) -> Tensor:
            return self.likelihood.nll(self.answers(weights, z), y)

        return descend(loss, start, rates, self.inner_steps)

    def answers(self, state: dict[str, Tensor], z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return F.linear(z, state["weight"], state["bias"])  # (m, ways)
