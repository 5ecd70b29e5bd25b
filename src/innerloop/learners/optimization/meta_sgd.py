"""Meta-SGD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from innerloop.core.descent import Weights
from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.options import CountOrZero
from innerloop.learners.optimization.remembering import Remembering
from innerloop.nets.registry import headed


class MetaSGD(Remembering):
    """Meta-SGD: MAML whose step size and direction are learned too, one rate for every
    weight.

    weights <- weights - alpha * grad(support loss), alpha a meta-parameter of the
    weights' shape, or one number for every tensor and step Li, Zhou, Chen and Li 2017,
    "Meta-SGD: learning to learn quickly for few-shot learning", arXiv:1707.09835, eq.
    (2), Algorithm 1. State: the adapted weights of `net`, a dict name -> tensor.

    net: the task network. initial_rate: where every rate begins. inner_steps: the paper
        takes one. rates: one for every "weight"; or for every "tensor" and step, as in
        MAML++ (Antoniou et al. 2019, arXiv:1810.09502, section 4), steps beyond the
        last taking its rate.
    """

    net: nn.Module
    initial_rate: float = 0.1
    _: KW_ONLY
    inner_steps: CountOrZero = 1
    rates: Literal["weight", "tensor"] = "weight"
    likelihood: Likelihood = Categorical()

    regression_defaults: ClassVar[dict[str, Any]] = {"initial_rate": 0.01}
    defaults = MetaTrainConfig(queries=5, batch=8, optimizer="Adam", lr=2e-3)

    def __post_init__(self) -> None:
        rates = {}
        for name, w in self.net.named_parameters():
            rates[name.replace(".", "/")] = nn.Parameter(
                w.new_full(
                    w.shape if self.rates == "weight" else (max(self.inner_steps, 1),),
                    self.initial_rate,
                )
            )
        self.alpha = nn.ParameterDict(rates)
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        return {"net": headed(spec, out_dim, build_args.get("net"))}

    def start(self, weights: Weights) -> list[Tensor]:
        """How many steps were taken (), where rates depend on it."""
        return (
            [next(iter(weights.values())).new_zeros(())]
            if self.rates == "tensor"
            else []
        )

    def move(
        self, weights: Weights, memory: list[Tensor], support: Examples
    ) -> tuple[Weights, list[Tensor]]:
        grads = self.gradient(weights, support)
        alpha = {name: self.alpha[name.replace(".", "/")] for name in weights}
        if self.rates == "tensor":
            at = memory[0].long().clamp_max(self.inner_steps - 1)
            alpha = {name: rates[at] for name, rates in alpha.items()}
        return {name: w - alpha[name] * grads[name] for name, w in weights.items()}, [
            taken + 1 for taken in memory
        ]
