"""Sums of functions: regression tasks made of parts that come again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.tasks.splits import split_indices

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
    """y = f(x) + g(x), x in -1..1, f and g two of eight functions. As the sums of Alet
    et al. 2018, arXiv:1806.10166.

    pairs: the names of f and g that tasks have. shots, queries: support and query
    points. Support x (n, shots, 1), y (n, shots, 1).
    """

    prefetch = True

    def __init__(
        self, pairs: list[tuple[str, str]], shots: int = 10, queries: int = 10
    ):
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1, got {shots}, {queries}"
            )
        self.pairs, self.shots, self.queries = pairs, shots, queries
        self.spec = TaskSpec("reals", (1,), 1)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        places = {name: i for i, name in enumerate(FUNCTIONS)}
        pairs = torch.tensor([[places[name] for name in pair] for pair in self.pairs])
        drawn = pairs[torch.randint(len(pairs), (n,), generator=generator)]  # (n, 2)
        x = torch.rand(n, self.shots + self.queries, 1, generator=generator) * 2 - 1
        # (n, functions, points, 1)
        every = torch.stack([f(x) for f in FUNCTIONS.values()], 1)
        y = every[torch.arange(n)[:, None], drawn].sum(1)
        return Task(
            Examples(x[:, : self.shots], y[:, : self.shots]),
            Examples(x[:, self.shots :], y[:, self.shots :]),
        )


def sums(split: str = "train", *, shots: int = 10, queries: int = 10) -> Sums:
    """Sums of two of eight functions; no pair is in two parts."""
    return Sums(
        [PAIRS[i] for i in split_indices(["+".join(pair) for pair in PAIRS], split)],
        shots,
        queries,
    )
