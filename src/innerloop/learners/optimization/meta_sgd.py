"""Meta-SGD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from innerloop.core.descent import Weights
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.options import CountOrZero, NonNegative
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.optimization.remembering import Remembering
from innerloop.nets.registry import headed


class MetaSGD(Remembering):
    """Meta-SGD: MAML with a learned step size and direction per weight.

    weights <- weights - alpha * grad(support loss), alpha a meta-parameter of the shape
    of the weights, or one number for every tensor and step

    Reference: Li, Zhou, Chen and Li 2017, "Meta-SGD: learning to learn quickly for
    few-shot learning", arXiv:1707.09835, eq. (2), Algorithm 1.

    With `rates="tensor"`, these are the learned step sizes of MAML++: Antoniou, Edwards
    and Storkey 2019, "How to train your MAML", arXiv:1810.09502, section 4.

    State: the adapted weights of `net`, a dict name -> tensor.

    Args:
        net: the task network.
        initial_rate: initial value of every rate.
        inner_steps: number of inner steps; one in the paper.
        rates: one for every "weight"; or for every "tensor" and step, where steps
            beyond `inner_steps` take the last rate.
    """

    net: nn.Module
    initial_rate: NonNegative = 0.1
    _: KW_ONLY
    inner_steps: CountOrZero = 1
    rates: Literal["weight", "tensor"] = "weight"
    likelihood: Likelihood = Categorical()

    regression_defaults: ClassVar[dict[str, Any]] = {"initial_rate": 0.01}
    defaults = MetaTrainConfig(queries=5, batch=8, optimizer="Adam", lr=2e-3)

    def __post_init__(self) -> None:
        super().__post_init__()
        rates: dict[str, Tensor] = {}
        for name, w in self.net.named_parameters():
            if w.is_floating_point():
                shape = w.shape if self.rates == "weight" else [self._last + 1]
                rates[_key(name)] = w.new_full(shape, self.initial_rate)
        self.alpha = nn.ParameterDict(rates)
        self.eval()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        return {"net": headed(spec, out_dim, build_args.get("net"))}

    @property
    def _last(self) -> int:
        """The index of the last step that has rates."""
        return max(self.inner_steps, 1) - 1

    def start(self, weights: Weights) -> list[Tensor]:
        """The number of steps so far (), where rates depend on it."""
        if self.rates == "weight":
            return []
        return [next(iter(weights.values())).new_zeros(())]

    def move(
        self, weights: Weights, memory: list[Tensor], support: Examples
    ) -> tuple[Weights, list[Tensor]]:
        grads = self.gradient(weights, support)
        alpha = {name: self.alpha[_key(name)] for name in weights}
        if self.rates == "tensor":
            # by one number alone, the host would wait for a GPU to read it
            step = memory[0].long().clamp_max(self._last)[None]
            alpha = {name: rates[step][0] for name, rates in alpha.items()}
        weights = {name: w - alpha[name] * grads[name] for name, w in weights.items()}
        return weights, [count + 1 for count in memory]


def _key(name: str) -> str:
    return name.replace(".", "/")  # no dots in the names of a ParameterDict
