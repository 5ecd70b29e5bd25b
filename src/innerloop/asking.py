"""What asking is worth: the accuracy after every label, by what chose it."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from innerloop.core.meta_test import Estimate, chunks
from innerloop.core.task import Task, TaskDistribution
from innerloop.learners.active.asking import Asking, Strategy
from innerloop.learners.active.situation import logits, to_means
from innerloop.learners.metric.distances import squared_distance


class Curve(NamedTuple):
    """After 1, 2, ... labels: the accuracy, and its gain over labels in turn on the same tasks; means over tasks with 95 % intervals."""

    accuracy: list[Estimate]
    gain: list[Estimate]


@torch.no_grad()
def asking_curves(
    learner: Asking, tasks: TaskDistribution, *, n: int = 500, labels: int | None = None, generator: torch.Generator | None = None, chunk: int = 25
) -> dict[str, Curve]:
    """The curves of every strategy on the same `n` unseen tasks, with so many labels (default: as the learner asks for)."""
    strategies: tuple[Strategy, ...] = get_args(Strategy)
    found: dict[Strategy, list[Tensor]] = {strategy: [] for strategy in strategies}
    learner.eval()
    for batch in chunks(learner, tasks, n, chunk, generator):
        for strategy in strategies:
            found[strategy].append(learner.mapped(partial(_curve, learner, strategy, labels), batch).cpu())
    every = {strategy: torch.cat(curves) for strategy, curves in found.items()}  # (n, labels)
    gains = {strategy: curves - every["in-turn"] for strategy, curves in every.items()}
    return {name: Curve(*([Estimate.of(values) for values in curves.T] for curves in (every[name], gains[name]))) for name in every}


def _curve(learner: Asking, strategy: Strategy, labels: int | None, task: Task) -> Tensor:
    """Accuracy on the query set (labels,) after every label."""
    z, asked, y = learner.embed(task.support.x), learner.embed(task.query.x), task.support.y
    apart = squared_distance(z, z)
    known = learner.asked_for(apart, y, strategy, labels).cumsum(0)  # (labels, n)
    outputs = logits(*to_means(squared_distance(asked, z), apart, y, known), apart.amax(), learner.log_scale.exp())  # (labels, m, ways)
    return (outputs.argmax(-1) == task.query.y.argmax(-1)).float().mean(-1)
