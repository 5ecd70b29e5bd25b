"""Active learning curves: the accuracy after every label, by query strategy."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.options import Count
from innerloop.evaluation.base import Evaluation
from innerloop.evaluation.chunks import measured
from innerloop.learners.active.active_learner import ActiveLearner
from innerloop.learners.active.policy import Strategy
from innerloop.learners.active.pool_features import logits, to_means
from innerloop.learners.metric.distances import squared_distance
from innerloop.measurements import Estimate, Measurement, Report, Row, Table, TestPlan


class Curve(NamedTuple):
    """After 1, 2, ... labels: the accuracy, and how far it is below that of the learned
    policy on the same tasks.
    """

    accuracy: list[Estimate]
    deficit: list[Estimate]


@torch.no_grad()
def labeling_curves(
    learner: ActiveLearner,
    tasks: TaskDistribution,
    *,
    n: Count = 500,
    labels: Count | None = None,
    generator: torch.Generator | None = None,
    chunk: Count = 25,
) -> dict[str, Curve]:
    """The curves of every strategy on the same `n` unseen tasks, up to `labels` labels
    (default: the number that the learner asks for).
    """

    def on_batch(batch: Task) -> dict[str, Tensor]:
        found = learner.mapped(partial(_curves, learner, labels), batch)
        return {name: values.cpu() for name, values in found.items()}

    learner.eval()
    parts = measured(learner, tasks, on_batch, n=n, chunk=chunk, generator=generator)
    # (n, labels)
    every = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
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
    z, query, y = (
        learner.embed(task.support.x),
        learner.embed(task.query.x),
        task.support.y,
    )
    within, across = squared_distance(z, z), squared_distance(query, z)
    strategies: tuple[Strategy, ...] = get_args(Strategy)
    curves = {}
    for strategy in strategies:
        # (labels, n): which examples have a label
        labeled = learner.selection_order(within, y, strategy, labels).cumsum(0)
        distances = to_means(across, within, y, labeled)
        # (labels, m, ways)
        outputs = logits(*distances, within.amax(), learner.log_scale.exp())
        correct = outputs.argmax(-1) == task.query.y.argmax(-1)
        curves[strategy] = correct.float().mean(-1)
    return curves


class Labeling(Evaluation):
    """Active learning curves: accuracy after every label, for all query strategies.

    Args:
        labels: labels to acquire; by default as many as the learner was trained for.
    """

    labels: Count | None = None

    @classmethod
    def supports(cls, learner: Learner, tasks: TaskDistribution) -> str | None:
        if not isinstance(learner, ActiveLearner):
            return "it needs a learner that chooses which labels to acquire"
        return None

    def measure(
        self, learner: Learner, tasks: TaskDistribution, plan: TestPlan
    ) -> Report:
        assert isinstance(learner, ActiveLearner)
        curves = labeling_curves(
            learner, tasks, n=plan.n, labels=self.labels, generator=plan.generator()
        )
        titles = {
            "accuracy": "accuracy by number of labels and strategy",
            "deficit": "accuracy of the learned policy minus that of another strategy",
        }
        tables = []
        for part, title in titles.items():
            columns = {
                name: getattr(curve, part)
                for name, curve in curves.items()
                if part == "accuracy" or name != "learned"
            }
            rows = tuple(
                Row(
                    {**plan.labels, "labels": i + 1},
                    tuple(
                        Measurement.of(name, estimates[i], plan.n, "%")
                        for name, estimates in columns.items()
                    ),
                )
                for i in range(len(curves["learned"].accuracy))
            )
            tables.append(Table(title, rows))
        return Report(tuple(tables), (), {"tasks": plan.n, "seed": plan.seed})
