"""What asking is worth: the accuracy after every label, by what chose it."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from innerloop.core.meta_test import Estimate, chunks
from innerloop.core.task import Task, TaskDistribution
from innerloop.learners.active.active_learner import ActiveLearner, Strategy
from innerloop.learners.active.pool_features import logits, to_means
from innerloop.learners.metric.distances import squared_distance


class Curve(NamedTuple):
    """After 1, 2, ... labels: the accuracy, and by how much it is below that of the
    learned policy on the same tasks; means over tasks with 95 % intervals.
    """

    accuracy: list[Estimate]
    behind: list[Estimate]


@torch.no_grad()
def asking_curves(
    learner: ActiveLearner,
    tasks: TaskDistribution,
    *,
    n: int = 500,
    labels: int | None = None,
    generator: torch.Generator | None = None,
    chunk: int = 25,
) -> dict[str, Curve]:
    """The curves of every strategy on the same `n` unseen tasks, with so many labels
    (default: as the learner asks for).
    """
    parts: list[dict[str, Tensor]] = []
    learner.eval()
    for batch in chunks(learner, tasks, n, chunk, generator):
        parts.append(learner.mapped(partial(_curves, learner, labels), batch))
    # (n, labels)
    every = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
    return {
        name: Curve(
            [Estimate.of(values) for values in curves.T],
            [Estimate.of(values) for values in (every["learned"] - curves).T],
        )
        for name, curves in every.items()
    }


def _curves(
    learner: ActiveLearner, labels: int | None, task: Task
) -> dict[str, Tensor]:
    """Accuracy on the query set (labels,) after every label, by strategy."""
    z, asked, y = (
        learner.embed(task.support.x),
        learner.embed(task.query.x),
        task.support.y,
    )
    apart, across = squared_distance(z, z), squared_distance(asked, z)
    strategies: tuple[Strategy, ...] = get_args(Strategy)
    found = {}
    for strategy in strategies:
        known = learner.asked_for(apart, y, strategy, labels).cumsum(0)  # (labels, n)
        # (labels, m, ways)
        outputs = logits(
            *to_means(across, apart, y, known), apart.amax(), learner.log_scale.exp()
        )
        found[strategy] = (
            (outputs.argmax(-1) == task.query.y.argmax(-1)).float().mean(-1)
        )
    return found
