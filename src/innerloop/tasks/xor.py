"""Exclusive or: the benchmark of evolved network structures."""

from __future__ import annotations

import torch

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.tasks.splits import task_source

CORNERS = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])


class ExclusiveOr(TaskDistribution):
    """Points near the corners of a square, and whether the signs of their coordinates
    differ; in some tasks, whether they agree. One example shows which. Support x (n,
    shots, 2), y (n, shots, 1).

    Args:
        shots: support examples, from random corners.
        queries: query examples, from all corners alike.
        noise: standard deviation of the points around a corner.
        agree: share of the tasks with the negation. Not a half: then no network without
            memory would do better than chance, and evolution would have no start.
    """

    prefetch = True

    def __init__(
        self, shots: int = 1, queries: int = 8, noise: float = 0.1, agree: float = 0.25
    ):
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1; got {shots} and {queries}"
            )
        self.shots, self.queries, self.noise, self.agree = shots, queries, noise, agree
        self.spec = TaskSpec("bits", (2,), 1)

    def describe(self) -> str:
        return f"exclusive or with {self.shots} support and {self.queries} query points"

    def sample(self, n: int, generator: torch.Generator) -> Task:
        corner = torch.randint(4, (n, self.shots + self.queries), generator=generator)
        corner[:, self.shots :] = torch.arange(self.queries) % 4
        agree = torch.rand(n, 1, 1, generator=generator) < self.agree
        clean = CORNERS[corner]  # (n, points, 2)
        x = clean + self.noise * torch.randn(clean.shape, generator=generator)
        y = ((clean.prod(-1, keepdim=True) < 0) ^ agree).float()  # (n, points, 1)
        return Task(
            Examples(x[:, : self.shots], y[:, : self.shots]),
            Examples(x[:, self.shots :], y[:, self.shots :]),
        )


@task_source
def xor(split: str = "train", *, shots: Count = 1, queries: Count = 8) -> ExclusiveOr:
    """Exclusive or: XOR or XNOR of two signs, determined by one example.

    Reference: Stanley and Miikkulainen 2002, "Evolving neural networks through
    augmenting topologies", Evolutionary Computation 10(2), section 4.1.

    The benchmark, with its negation in a quarter of the tasks. Every split draws from
    the same distribution; no task is drawn twice.

    Args:
        shots: support examples of a task.
        queries: query examples of a task.
    """
    return ExclusiveOr(shots, queries)
