"""The base class of learned update rules with a memory."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from innerloop.core.descent import Descent, Weights
from innerloop.core.task import Examples

MARK = "~"  # prefix of the names of remembered tensors


class Remembering(Descent):
    """A learner whose steps have a memory: between steps, tensors accompany the
    weights, under names with a prefix.
    """

    @abstractmethod
    def start(self, weights: Weights) -> list[Tensor]:
        """The memory before the first step."""

    @abstractmethod
    def move(
        self, weights: Weights, memory: list[Tensor], support: Examples
    ) -> tuple[Weights, list[Tensor]]:
        """The weights and the memory after one more step."""

    def init(self, support: Examples) -> Weights:
        weights = super().init(support)
        return _joined(weights, self.start(weights))

    def step(self, weights: Weights, support: Examples) -> Weights:
        memory = [tensor for name, tensor in weights.items() if name.startswith(MARK)]
        return _joined(*self.move(_without_memory(weights), memory, support))

    def finalize(self, weights: Weights, support: Examples) -> Weights:
        return super().finalize(_without_memory(weights), support)


def _joined(weights: Weights, memory: list[Tensor]) -> Weights:
    return {**weights, **{f"{MARK}{i}": tensor for i, tensor in enumerate(memory)}}


def _without_memory(weights: Weights) -> Weights:
    return {name: w for name, w in weights.items() if not name.startswith(MARK)}
