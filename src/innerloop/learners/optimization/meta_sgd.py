"""Meta-SGD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import nn

from innerloop.core.descent import Descent, Weights
from innerloop.core.learner import Recipe
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.nets.named import headed


class MetaSGD(Descent):
    """Meta-SGD: MAML whose step size and direction are learned too, one rate for every weight.

    weights <- weights - alpha * grad(support loss), alpha a meta-parameter of the weights' shape
    Li, Zhou, Chen and Li 2017, "Meta-SGD: learning to learn quickly for few-shot learning", arXiv:1707.09835, eq. (2), Algorithm 1.
    State: the adapted weights of `net`, a dict name -> tensor.

    net: the task network. initial_rate: where every rate begins. inner_steps: the paper takes one.
    """

    net: nn.Module
    initial_rate: float = 0.1
    _: KW_ONLY
    inner_steps: int = 1
    likelihood: Likelihood = Categorical()

    for_reals: ClassVar[dict[str, Any]] = {"initial_rate": 0.01}
    recipe = Recipe(queries=5, batch=8, optimizer="Adam", lr=2e-3)

    def __post_init__(self) -> None:
        rates = {name: nn.Parameter(torch.full_like(w, self.initial_rate)) for name, w in self.net.named_parameters()}
        self.alpha = nn.ParameterDict({name.replace(".", "/"): rate for name, rate in rates.items()})
        super().__post_init__()

    @classmethod
    def networks(cls, spec: TaskSpec, given: Mapping[str, Any], out_dim: int) -> dict[str, nn.Module]:
        return {"net": headed(spec, out_dim, given.get("net"))}

    def step(self, weights: Weights, support: Examples) -> Weights:
        grads = self.gradient(weights, support)
        return {name: w - self.alpha[name.replace(".", "/")] * grads[name] for name, w in weights.items()}
