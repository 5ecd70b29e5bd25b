"""Sinusoids: the regression tasks of the MAML paper."""

from __future__ import annotations

import math
from typing import Any

import torch

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.tasks.pictures import plot_curves, prediction
from innerloop.tasks.splits import task_source


class Sinusoid(TaskDistribution):
    """y = A sin(x - phase), A in 0.1..5, phase in 0..pi, x in -5..5. Support x (n,
    shots, 1), y (n, shots, 1).

    Args:
        shots: support points.
        queries: query points.
    """

    prefetch = True

    def __init__(self, shots: int = 10, queries: int = 10):
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1; got {shots} and {queries}"
            )
        self.shots, self.queries = shots, queries
        self.spec = TaskSpec("reals", (1,), 1)

    def describe(self) -> str:
        return f"sinusoids with {self.shots} support and {self.queries} query points"

    def sample(self, n: int, generator: torch.Generator) -> Task:
        amplitude = torch.rand(n, 1, 1, generator=generator) * 4.9 + 0.1
        phase = torch.rand(n, 1, 1, generator=generator) * math.pi
        x = torch.rand(n, self.shots + self.queries, 1, generator=generator) * 10 - 5
        y = amplitude * (x - phase).sin()
        return Task(
            Examples(x[:, : self.shots], y[:, : self.shots]),
            Examples(x[:, self.shots :], y[:, self.shots :]),
        )

    def plot_task(self, learner: Learner, task: Task, figure: Any) -> None:
        x = torch.linspace(-5, 5, 200, device=task.support.x.device)[:, None]
        bands = {"learner": prediction(learner, task.support, x)}
        plot_curves(figure, task, x, bands)


@task_source
def sinusoid(
    split: str = "train", *, shots: Count = 10, queries: Count = 10
) -> Sinusoid:
    """Sinusoid: regression of sine waves of random amplitude and phase.

    Reference: Finn, Abbeel and Levine 2017, "Model-agnostic meta-learning for fast
    adaptation of deep networks", arXiv:1703.03400, section 5.1.

    Every split draws from the same distribution; no task is drawn twice.

    Args:
        shots: support points of a task.
        queries: query points of a task.
    """
    return Sinusoid(shots, queries)
