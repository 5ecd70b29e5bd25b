"""Implicit MAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

from torch import nn

from innerloop.core.descent import Descent, Weights
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.options import CountOrZero, NonNegative, Positive
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.nets.registry import headed


class IMAML(Descent):
    """Implicit MAML: many proximal inner steps and an implicit meta-gradient.

    weights <- weights - inner_lr * (grad(support loss) + proximal * (weights - theta))

    Reference: Rajeswaran, Finn, Kakade and Levine 2019, "Meta-learning with implicit
    gradients", arXiv:1909.04630, eq. (3), Algorithm 1.

    The meta-gradient, eq. (6), is `implicit`. Defaults differ from the paper: batches
    of 8 tasks instead of 32, and a weaker proximal term. With lambda = 2 in every step,
    as in eq. (3), the weights hardly move on a few images; the authors' code takes 16
    steps without it and then moves the weights once by inner_lr * lambda = 0.2 of the
    way back, about as far as 0.2 in every step does.

    State: the adapted weights of `net`, a dict name -> tensor.

    Args:
        net: the task network.
        inner_lr: step size of the inner steps.
        inner_steps: number of inner steps; 16 for Omniglot in the paper (appendix E).
        proximal: lambda, the strength of the proximal term; 2 for Omniglot in the
            paper.
    """

    net: nn.Module
    inner_lr: NonNegative = 0.1
    proximal: Positive = 0.2
    _: KW_ONLY
    inner_steps: CountOrZero = 16
    likelihood: Likelihood = Categorical()

    regression_defaults: ClassVar[dict[str, Any]] = {"inner_lr": 0.01}
    defaults = MetaTrainConfig(
        queries=5, batch=8, optimizer="Adam", lr=2e-3, meta_gradient="implicit"
    )

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        return {"net": headed(spec, out_dim, build_args.get("net"))}

    @classmethod
    def paper(cls) -> dict[str, Any]:
        config = {"batch": 32, "lr": 1e-3, "warmup": 0.0, "decay": False}
        return {"fields": {"proximal": 2.0}, "config": config}

    def step(self, weights: Weights, support: Examples) -> Weights:
        theta = dict(self.net.named_parameters())
        grads = self.gradient(weights, support)
        pull = self.inner_lr * self.proximal
        return {
            name: w.lerp(theta[name], pull).sub(grads[name], alpha=self.inner_lr)
            for name, w in weights.items()
        }
