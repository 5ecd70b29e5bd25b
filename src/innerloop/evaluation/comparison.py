"""Learners compared on the same tasks: the difference of their scores, task by task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from innerloop.core.learner import Learner
from innerloop.core.task import TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.evaluation.few_shot import task_scores
from innerloop.measurements import (
    Estimate,
    Measurement,
    Report,
    Row,
    Table,
    TaskScores,
    TestPlan,
)

BETTER, WORSE, UNCLEAR = "better", "worse", "interval holds 0"


def scores_on(learner: Learner, tasks: TaskDistribution, plan: TestPlan) -> TaskScores:
    """The score of a learner on every task of a test. With the same plan, two learners
    are tested on the same tasks.

    Raises InnerloopError for tasks that have no score for each task.
    """
    learner.eval()
    return tasks.task_scores(learner, plan) or task_scores(learner, tasks, plan)


def paired_difference(scores: TaskScores, baseline: TaskScores) -> Estimate:
    """The mean over tasks of score minus baseline, with its 95 % interval (Student's t
    over the differences).

    Raises InnerloopError where they are different metrics, or of another number of
    tasks.
    """
    if scores.name != baseline.name or scores.unit != baseline.unit:
        raise InnerloopError(
            f"its score is {scores.name}, and that of the first run {baseline.name}"
        )
    if len(scores.values) != len(baseline.values):
        raise InnerloopError(
            f"paired scores are of the same tasks; got {len(scores.values)} and "
            f"{len(baseline.values)}"
        )
    return Estimate.of(scores.values.double() - baseline.values.double())


def verdict(difference: Estimate, higher_is_better: bool) -> str:
    """ "better" or "worse" where the 95 % interval does not hold 0."""
    interval = difference.interval
    if interval is None or not abs(difference.mean) > interval:
        return UNCLEAR
    return BETTER if (difference.mean > 0) == higher_is_better else WORSE


def compared(
    scores: Mapping[str, TaskScores], labels: Mapping[str, Any] | None = None
) -> Report:
    """The scores of several learners on the same tasks, and the paired difference of
    each to the first.

    Args:
        scores: by the name of the learner.
        labels: precede the names in the rows of the tables.

    Raises InnerloopError where they are different metrics, or of another number of
    tasks.
    """
    own = dict(labels or {})
    first, *others = scores
    baseline = scores[first]
    rows = [
        Row({**own, "run": name}, (each.measurement(),))
        for name, each in scores.items()
    ]
    pairs = []
    for name in others:
        found = paired_difference(scores[name], baseline)
        n = len(baseline.values)
        value = Measurement.of(f"{baseline.name}, difference", found, n, baseline.unit)
        known = verdict(found, baseline.higher_is_better)
        pairs.append(Row({**own, "run": name, "tasks": n, "it is": known}, (value,)))
    title = f"difference to {first}, paired by task"
    tables = (Table("score on the same tasks", tuple(rows)), Table(title, tuple(pairs)))
    return Report(tuple(table for table in tables if table.rows))
