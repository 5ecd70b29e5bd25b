"""Training from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

from torch import nn

from innerloop.core.descent import Descent, Weights
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.functional import trainable_names
from innerloop.engine.options import CountOrZero, NonNegative
from innerloop.nets.registry import headed


class Scratch(Descent):
    """Training from scratch: a random network, trained on the support set only.

    weights <- weights - inner_lr * grad(support loss)

    Reference: Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra 2016, "Matching
    networks for one shot learning", arXiv:1606.04080, section 4.1 (its baselines).

    Objective: none; there is nothing to meta-train.

    State: the trained weights of `net`, a dict name -> tensor.

    Args:
        net: the task network.
        inner_lr: step size of gradient descent.
        inner_steps: number of gradient descent steps.
    """

    net: nn.Module
    inner_lr: NonNegative = 0.1
    _: KW_ONLY
    inner_steps: CountOrZero = 100
    likelihood: Likelihood = Categorical()

    first_order = True
    regression_defaults: ClassVar[dict[str, Any]] = {"inner_lr": 0.01}

    def __post_init__(self) -> None:
        moving = trainable_names(self.net)
        self.moving = moving  # pyright: ignore[reportAttributeAccessIssue]
        self.net.requires_grad_(False)  # it is not meta-learned
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        return {"net": headed(spec, out_dim, build_args.get("net"))}

    def step(self, weights: Weights, support: Examples) -> Weights:
        grads = self.gradient(weights, support, first_order=True)
        return {
            name: w.detach() - self.inner_lr * grads[name]
            for name, w in weights.items()
        }
