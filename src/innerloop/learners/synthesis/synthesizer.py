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
from innerloop.engine.options import Positive

SearchMethod = Literal["guided", "pruned", "plain"]


class Searcher(Learner):
    """A learner whose `adapt` or `predict` depends on values, and so cannot run under
    vmap: tasks are adapted to in a loop.

    Args:
        seconds: limit of the processor time of a search.
    """

    _: KW_ONLY
    seconds: Positive = 1.0

    export_problem = "it searches for a program"

    def mapped(self, function: Callable[..., Any], *trees: Any) -> Any:
        each = [
            function(*tree_map(lambda leaf: leaf[i], trees))  # noqa: B023
            for i in range(len(tree_leaves(trees)[0]))
        ]
        return tree_map(lambda *leaves: torch.stack(leaves), *each)


class Synthesizer(Searcher):
    """A learner whose state is a program: the numbers of its symbols, -1 after its end,
    or all -1 where none was found.

    The program of a task, which only the loss may read, is packed into the columns of
    `y` behind the output (see the task sources); `adapt` and `predict` never read them.
    Only losses are mapped.
    """

    kinds = ("programs",)

    @abstractmethod
    def search(self, support: Examples, method: SearchMethod, seconds: float) -> Tensor:
        """The state that a search finds within `seconds` of processor time: "guided" by
        the network; "pruned", an enumeration that leaves out what cannot fit or was
        computed before; or "plain" enumeration.
        """

    def prepare(self, method: SearchMethod) -> None:
        """Compute what all searches by a method share, so that a measurement of their
        time does not count it.
        """

    def adapt(self, support: Examples) -> Tensor:
        return self.search(support, "guided", self.seconds)

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        losses, metrics = torch.vmap(self.loss)(tasks)
        return losses.mean(), {name: values.mean() for name, values in metrics.items()}


def padded(numbers: list[int], length: int) -> Tensor:
    """The state (length,) of a program of these numbers; of none where it is too
    long.
    """
    numbers = numbers if len(numbers) <= length else []
    return torch.tensor([*numbers, *[-1] * (length - len(numbers))])
