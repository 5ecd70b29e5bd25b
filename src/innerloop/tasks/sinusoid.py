"""Sinusoids: the regression tasks of the MAML paper."""

from __future__ import annotations

import math

import torch

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.tasks.splits import check_split


class Sinusoid(TaskDistribution):
    """y = A sin(x - phase), A in 0.1..5, phase in 0..pi, x in -5..5. Finn et al. 2017,
    arXiv:1703.03400, section 5.1.

    shots, queries: support and query points. Support x (n, shots, 1), y (n, shots, 1).
    """

    prefetch = True

    def __init__(self, shots: int = 10, queries: int = 10):
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1, got {shots}, {queries}"
            )
        self.shots, self.queries = shots, queries
        self.spec = TaskSpec("reals", (1,), 1)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        amplitude = torch.rand(n, 1, 1, generator=generator) * 4.9 + 0.1
        phase = torch.rand(n, 1, 1, generator=generator) * math.pi
        x = torch.rand(n, self.shots + self.queries, 1, generator=generator) * 10 - 5
        y = amplitude * (x - phase).sin()
        return Task(
            Examples(x[:, : self.shots], y[:, : self.shots]),
            Examples(x[:, self.shots :], y[:, self.shots :]),
        )


def sinusoid(split: str = "train", *, shots: int = 10, queries: int = 10) -> Sinusoid:
    """Sinusoid tasks; every split draws from the same continuum, in which no task comes
    twice.
    """
    check_split(split)
    return Sinusoid(shots, queries)
