"""Sums of functions: regression tasks that are composed of shared parts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.tasks.pictures import plot_curves, prediction
from innerloop.tasks.splits import split_indices, task_source

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {  # of x in -1..1
    "line": lambda x: 1.5 * x,
    "parabola": lambda x: 3 * x.square() - 1,
    "vee": lambda x: 2 - 4 * x.abs(),
    "step": lambda x: (10 * x).tanh(),
    "bump": lambda x: 2 * (-20 * (x - 0.4).square()).exp() - 0.5,
    "sine": lambda x: (3 * x).sin(),
    "wave": lambda x: (7 * x).cos(),
    "exponential": lambda x: (2 * x).exp() / 2 - 1,
}
PAIRS = tuple(combinations(FUNCTIONS, 2))


class Sums(TaskDistribution):
    """y = f(x) + g(x), x in -1..1, f and g two of eight functions. Support x (n, shots,
    1), y (n, shots, 1).

    Args:
        pairs: the names of f and g of the tasks.
        shots: support points.
        queries: query points.
    """

    prefetch = True

    def __init__(
        self, pairs: list[tuple[str, str]], shots: int = 10, queries: int = 10
    ):
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1; got {shots} and {queries}"
            )
        self.pairs, self.shots, self.queries = pairs, shots, queries
        self.spec = TaskSpec("reals", (1,), 1)

    def describe(self) -> str:
        points = f"{self.shots} support and {self.queries} query points"
        return f"{len(self.pairs)} sums of two functions, {points}"

    def class_keys(self) -> frozenset[str]:
        return frozenset("+".join(pair) for pair in self.pairs)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        index = {name: i for i, name in enumerate(FUNCTIONS)}
        pairs = torch.tensor([[index[name] for name in pair] for pair in self.pairs])
        drawn = pairs[torch.randint(len(pairs), (n,), generator=generator)]  # (n, 2)
        x = torch.rand(n, self.shots + self.queries, 1, generator=generator) * 2 - 1
        # (n, functions, points, 1)
        every = torch.stack([f(x) for f in FUNCTIONS.values()], 1)
        y = every[torch.arange(n)[:, None], drawn].sum(1)
        return Task(
            Examples(x[:, : self.shots], y[:, : self.shots]),
            Examples(x[:, self.shots :], y[:, self.shots :]),
        )

    def plot_task(self, learner: Learner, task: Task, figure: Any) -> None:
        x = torch.linspace(-1, 1, 200, device=task.support.x.device)[:, None]
        bands = {"learner": prediction(learner, task.support, x)}
        plot_curves(figure, task, x, bands)


@task_source
def sums(split: str = "train", *, shots: Count = 10, queries: Count = 10) -> Sums:
    """Sums of functions: sums of two of eight functions; test pairs are unseen.

    Reference: Alet, Lozano-Pérez and Kaelbling 2018, "Modular meta-learning",
    arXiv:1806.10166, section 5.

    No pair is in two splits; every function is in the training pairs.

    Args:
        shots: support points of a task.
        queries: query points of a task.
    """
    names = ["+".join(pair) for pair in PAIRS]
    return Sums([PAIRS[i] for i in split_indices(names, split)], shots, queries)
