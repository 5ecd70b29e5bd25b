"""Meta-transfer learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import TaskSpec
from innerloop.engine.functional import functional_call
from innerloop.engine.gradient_descent import descend
from innerloop.engine.norm_stats import use_stored as settled
from innerloop.engine.options import CountOrZero
from innerloop.engine.precision import widened
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.nets.registry import encoder, flat_features


class MetaTransfer(FeatureLearner):
    """Meta-transfer learning: trained features stay frozen, and are scaled and shifted
    as is learned over tasks; a task trains the head alone.

    f uses W * scale and b + shift in the place of its weights W and biases b, one scale
    for every kernel
    head <- head - inner_lr * grad(support loss), from a learned start
    Sun, Liu, Chua and Schiele 2019, "Meta-transfer learning for few-shot learning",
    arXiv:1812.02391, eq. (2)-(5)
    State: weight (ways, d) and bias (ways,) of the head.

    encoder: f, never trained itself: take that of a trained FineTune (`train --from`).
        head: where a task begins. inner_lr, inner_steps: gradient descent on it; the
        paper takes 100 steps in training.
    """

    encoder: nn.Module
    head: nn.Module
    _: KW_ONLY
    inner_lr: float = 0.1
    inner_steps: CountOrZero = 20
    likelihood: Likelihood = Categorical()

    defaults = MetaTrainConfig(queries=5, batch=8, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        self.encoder.requires_grad_(False)
        weights = {
            name.replace(".", "/"): p for name, p in self.encoder.named_parameters()
        }
        self.scales = nn.ParameterDict(
            {
                name: p.new_ones(*p.shape[:2], *[1] * (p.dim() - 2))
                for name, p in weights.items()
                if p.dim() > 1
            }
        )
        self.shifts = nn.ParameterDict(
            {
                name: torch.zeros_like(p)
                for name, p in weights.items()
                if name.endswith("bias")
            }
        )
        super().__post_init__()

    fixed_ways = True

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body = encoder(spec, build_args.get("encoder"))
        return {"encoder": body, "head": nn.Linear(flat_features(body, spec), out_dim)}

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.eval()  # it stays as it is
        return self

    def embed(self, x: Tensor) -> Tensor:
        weights: dict[str, Tensor] = dict(self.encoder.named_parameters())
        weights |= {
            name.replace("/", "."): weights[name.replace("/", ".")] * scale
            for name, scale in self.scales.items()
        }
        weights |= {
            name.replace("/", "."): weights[name.replace("/", ".")] + shift
            for name, shift in self.shifts.items()
        }
        with settled():
            # (m, d)
            return widened(functional_call(self.encoder, weights, (x,)).flatten(1))

    def learned(self, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        start = dict(self.head.named_parameters())
        return descend(
            lambda at: self.likelihood.nll(self.answers(at, z), y),
            start,
            dict.fromkeys(start, self.inner_lr),
            self.inner_steps,
        )

    def answers(self, state: dict[str, Tensor], z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return F.linear(z, state["weight"], state["bias"])
