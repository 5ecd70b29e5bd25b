"""Learners compared task by task."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from innerloop import MAML, ProtoNet, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.evaluation.comparison import (
    BETTER,
    UNCLEAR,
    WORSE,
    compared,
    paired_difference,
    scores_on,
    verdict,
)
from innerloop.evaluation.few_shot import evaluate, task_scores
from innerloop.measurements import Estimate, TaskScores, TestPlan
from innerloop.registry import find
from innerloop.rl.bandits import bandits
from innerloop.tasks.programs import string_programs
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (4,), 3)
TASKS = Blobs(SPEC)
T29 = 2.045229642132703  # the 97.5 % quantile of Student's t with 29 degrees of freedom


def learner(seed: int) -> ProtoNet:
    torch.manual_seed(seed)
    return ProtoNet.build(SPEC, encoder="mlp")


def by_hand(one: ProtoNet, n: int, seed: int) -> np.ndarray:
    """The accuracy on every task, one task after the other."""
    first = torch.Generator().manual_seed(seed)
    start = int(torch.randint(2**32, (), generator=first))
    found = []
    for block in range(-(-n // 25)):
        generator = torch.Generator().manual_seed((start + block) % 2**32)
        for task in TASKS.sample(min(25, n - 25 * block), generator).unbind():
            with torch.no_grad():
                outputs = one.predict(one.adapt(task.support), task.query.x)
            right = outputs.argmax(-1) == task.query.y.argmax(-1)
            found.append(right.double().mean().item())
    return np.array(found)


def test_paired_difference_is_that_of_numpy() -> None:
    one, two = learner(0), learner(1)
    plan = TestPlan(n=30, seed=5)
    gap = paired_difference(scores_on(two, TASKS, plan), scores_on(one, TASKS, plan))
    values = by_hand(two, 30, 5) - by_hand(one, 30, 5)
    assert values.std() > 0
    assert gap.mean == pytest.approx(values.mean(), abs=1e-6)
    assert gap.interval == pytest.approx(
        T29 * values.std(ddof=1) / np.sqrt(30), rel=1e-4
    )


def test_mean_of_the_scores_is_that_of_a_test() -> None:
    maml = MAML.build(SPEC, net="mlp")
    for one, plan in ((learner(0), TestPlan(n=30)), (maml, TestPlan(n=7, steps=2))):
        first = evaluate(one, TASKS, plan).tables[0].rows[0].values[0]
        assert scores_on(one, TASKS, plan).measurement() == first


def test_a_learner_does_not_differ_from_itself() -> None:
    scores = scores_on(learner(0), TASKS, TestPlan(n=9))
    assert paired_difference(scores, scores) == (0.0, 0.0)
    assert verdict(Estimate(0.0, 0.0), True) == UNCLEAR


def test_verdict_depends_on_what_is_better() -> None:
    assert verdict(Estimate(0.2, 0.1), True) == BETTER
    assert verdict(Estimate(0.2, 0.1), False) == WORSE
    assert verdict(Estimate(-0.2, 0.1), False) == BETTER
    assert verdict(Estimate(0.2, 0.3), True) == UNCLEAR
    assert verdict(Estimate(0.2, None), True) == UNCLEAR


def test_other_metrics_and_other_numbers_of_tasks_are_not_paired() -> None:
    three = torch.zeros(3)
    with pytest.raises(InnerloopError, match="its score is mse"):
        paired_difference(TaskScores("mse", three), TaskScores("accuracy", three))
    with pytest.raises(InnerloopError, match="got 3 and 2"):
        paired_difference(TaskScores("mse", three), TaskScores("mse", three[:2]))


def test_tables_name_the_first_as_baseline() -> None:
    values = torch.tensor([0.5, 0.7, 0.6])
    scores = {
        "a": TaskScores("accuracy", values, "%"),
        "b": TaskScores("accuracy", values + torch.tensor([0.1, 0.12, 0.1]), "%"),
    }
    first, second = compared(scores, {"ways": 5}).tables
    assert [row.labels for row in first.rows] == [
        {"ways": 5, "run": "a"},
        {"ways": 5, "run": "b"},
    ]
    (row,) = second.rows
    assert row.labels == {"ways": 5, "run": "b", "tasks": 3, "it is": BETTER}
    assert row.values[0].mean == pytest.approx(0.32 / 3)
    assert "difference to a" in second.title


def test_environments_give_the_reward_of_every_trial() -> None:
    tasks = bandits("test", arms=2, pulls=4)
    one = find("learner", "rl2").factory.build(
        tasks.spec, hidden=8, likelihood=tasks.likelihood()
    )
    plan = TestPlan(n=6)
    scores = scores_on(one, tasks, plan)
    first = tasks.evaluate(one, plan).tables[0].rows[0].values[0]
    assert (scores.name, len(scores.values)) == ("reward", 6)
    assert scores.measurement().mean == pytest.approx(first.mean)
    assert scores.measurement().interval == pytest.approx(first.interval)


def test_searches_for_programs_have_no_score_to_pair() -> None:
    tasks = string_programs("test")
    one = find("learner", "robustfill").factory.build(tasks.spec, hidden=8)
    with pytest.raises(InnerloopError, match="no score to compare task by task"):
        scores_on(one, tasks, TestPlan(n=2))


def test_another_metric_is_chosen_by_name() -> None:
    spec = TaskSpec("classes", (4,), 2)
    one = ProtoNet.build(spec, encoder="mlp")
    scores = task_scores(one, Blobs(spec), TestPlan(n=4), "roc_auc")
    assert (scores.name, scores.unit, scores.higher_is_better) == ("roc_auc", "", True)
