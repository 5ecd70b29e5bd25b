"""What learners share whose steps depend on the steps before."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from innerloop.core.descent import Descent, Weights
from innerloop.core.task import Examples

MARK = "~"  # what the names of remembered tensors begin with


class Remembering(Descent):
    """A learner whose steps remember: between steps, tensors go with the weights, under
    names that begin with a mark.
    """

    @abstractmethod
    def start(self, weights: Weights) -> list[Tensor]:
        """What is remembered before the first step."""

    @abstractmethod
    def move(
        self, weights: Weights, memory: list[Tensor], support: Examples
    ) -> tuple[Weights, list[Tensor]]:
        """The weights after one more step, and what is remembered."""

    def init(self, support: Examples) -> Weights:
        weights = super().init(support)
        return _together(weights, self.start(weights))

    def step(self, weights: Weights, support: Examples) -> Weights:
        memory = [tensor for name, tensor in weights.items() if name.startswith(MARK)]
        return _together(*self.move(_alone(weights), memory, support))

    def finalize(self, weights: Weights, support: Examples) -> Weights:
        return super().finalize(_alone(weights), support)


def _together(weights: Weights, memory: list[Tensor]) -> Weights:
    return {**weights, **{f"{MARK}{i}": tensor for i, tensor in enumerate(memory)}}


def _alone(weights: Weights) -> Weights:
    return {name: w for name, w in weights.items() if not name.startswith(MARK)}
