"""Learners whose state is a program, which a search finds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Examples, Task

Search = Literal["guided", "pruned", "plain"]


class Synthesizer(Learner):
    """A learner whose state is the symbols of a program by number, -1 after its end, or
    all -1 where none was found.

    Searches read values, so tasks are adapted to in a loop; only losses are mapped.
    """

    _: KW_ONLY
    seconds: float = 1.0

    kinds = ("programs",)

    @abstractmethod
    def found(self, support: Examples, search: Search, seconds: float) -> Tensor:
        """The state that a search finds within so many seconds of the processor: guided
        by the network, by enumeration that leaves out what cannot fit or is there
        already, or by plain enumeration.
        """

    def mapped(self, function: Callable[..., Any], *trees: Any) -> Any:
        each = [
            function(*tree_map(lambda leaf: leaf[i], trees))  # noqa: B023
            for i in range(len(tree_leaves(trees)[0]))
        ]
        return tree_map(lambda *leaves: torch.stack(leaves), *each)

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        losses, metrics = torch.vmap(self.loss)(tasks)
        return losses.mean(), {name: values.mean() for name, values in metrics.items()}
