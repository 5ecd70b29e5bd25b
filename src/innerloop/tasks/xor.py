"""Logic that no straight line answers."""

from __future__ import annotations

import torch

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.tasks.splits import check_split

CORNERS = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])


class ExclusiveOr(TaskDistribution):
    """Points near the corners of a square, and whether their signs differ; in a quarter
    of the tasks, whether they agree. One example tells which.

    The benchmark of Stanley and Miikkulainen 2002, section 4.1, with a task to find
    out. shots: support examples, from random corners. queries: query examples, from all
    corners in turn. noise: the standard deviation around a corner. agree: the share of
    tasks with the negation; were it a half, no network without memory would beat
    chance, and evolution had nothing to begin with. Support x (n, shots, 2), y (n,
    shots, 1).
    """

    prefetch = True

    def __init__(
        self, shots: int = 1, queries: int = 8, noise: float = 0.1, agree: float = 0.25
    ):
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1, got {shots}, {queries}"
            )
        self.shots, self.queries, self.noise, self.agree = shots, queries, noise, agree
        self.spec = TaskSpec("bits", (2,), 1)

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


def xor(split: str = "train", *, shots: int = 1, queries: int = 8) -> ExclusiveOr:
    """Exclusive or, or its negation, from one example; every split draws from the same
    continuum, in which no task comes twice.
    """
    check_split(split)
    return ExclusiveOr(shots, queries)
