"""Classes that arrive one after the other: the stream, what is measured, and which
learners can add a class.
"""

import json
from typing import Any

import pytest
import torch

from innerloop import MAML, OML, MatchingNet, ProtoNet
from innerloop.core.learner import Learner
from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.evaluation import EVALUATIONS, ClassIncrementalTest
from innerloop.evaluation.class_incremental import (
    class_incremental_test,
    extended,
    forgetting,
    one_stream,
    stream,
)
from innerloop.learners.class_incremental_learner import ClassIncremental
from innerloop.measurements import TestPlan
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.tasks.sinusoid import Sinusoid


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tasks(groups: int = 4, apart: float = 3.0) -> Episodes:
    """Groups of 3 to 5 classes of 8 vectors each, around different centers."""
    generator = seeded()
    sizes = [3 + i % 3 for i in range(groups)]
    centers = apart * torch.randn(sum(sizes), 6, generator=generator)
    values = centers.repeat_interleave(8, 0) + 0.5 * torch.randn(
        8 * len(centers), 6, generator=generator
    )
    of = [g for g, size in enumerate(sizes) for _ in range(size)]
    names = [f"{i}" for i in range(len(centers))]
    return Episodes(ClassBank.of(values, [8] * len(centers), names, of), 2, 1, 1)


class Forgetful(ClassIncremental):
    """Predicts the class that came last. State: the number of classes. Nobody 2026."""

    likelihood: Any = None

    def adapt(self, support: Examples) -> Any:
        return self.extend(None, support)

    def extend(self, state: Any, examples: Examples) -> Any:
        return torch.tensor(examples.y.shape[1])

    def predict(self, state: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.arange(int(state)).expand(len(x), -1).float()


def test_a_stream_has_whole_groups_and_no_example_twice() -> None:
    arrivals = list(stream(tasks(), 3, 5, 3, seeded()))
    assert [a.group for a in arrivals] == sorted(a.group for a in arrivals)
    assert {a.group for a in arrivals} == {0, 1, 2}
    x = torch.cat([torch.cat([a.support, a.query]) for a in arrivals])
    assert len(x.unique(dim=0)) == len(x) == 8 * len(arrivals)


def test_prototypes_are_extended_exactly() -> None:
    torch.manual_seed(0)
    learner = ProtoNet.build(tasks().spec)
    arrivals = list(stream(tasks(), 4, 5, 3, seeded()))
    state = None
    for k, arrival in enumerate(arrivals):
        state = extended(learner, state, arrival.support, k)
    labels = torch.eye(len(arrivals)).repeat_interleave(5, 0)
    whole = learner.adapt(Examples(torch.cat([a.support for a in arrivals]), labels))
    torch.testing.assert_close(state, whole)
    result = class_incremental_test(learner, tasks(), groups=4, queries=3, streams=3)
    assert result.task_aware_forgetting.mean == 0
    assert result.accuracy[-1].mean > 0.8
    assert result.task_aware_accuracy.mean >= result.accuracy[-1].mean
    assert result.classes[-1] == 15


def test_a_learner_that_forgets_is_found_out() -> None:
    arrivals = list(stream(tasks(), 3, 5, 3, seeded()))
    incremental, aware, counts = one_stream(Forgetful(), arrivals)
    # the last class of the group alone
    assert incremental[0, 0] == pytest.approx(1 / float(counts[0]))
    assert incremental[2, :2].tolist() == [0, 0]
    assert aware[2, 0] == pytest.approx(1 / float(counts[0]))
    result = class_incremental_test(
        Forgetful(), tasks(), groups=3, queries=3, streams=4
    )
    assert result.forgetting.mean > 0.15
    assert result.task_aware_forgetting.mean == 0
    assert result.accuracy[-1].mean == pytest.approx(1 / result.classes[-1], rel=0.1)


def test_forgetting_is_the_best_before_minus_the_last() -> None:
    accuracy = torch.tensor([[[0.9, 0, 0], [0.95, 0.8, 0], [0.5, 0.7, 1.0]]])
    torch.testing.assert_close(
        forgetting(accuracy), torch.tensor([((0.95 - 0.5) + (0.8 - 0.7)) / 2])
    )
    assert forgetting(accuracy[:, :1, :1]).tolist() == [0]


def test_intervals_are_over_streams_which_depend_on_the_seed() -> None:
    torch.manual_seed(0)
    learner = ProtoNet.build(tasks().spec)

    def accuracy(streams: int, seed: int) -> Any:
        return class_incremental_test(
            learner,
            tasks(apart=0.5),
            groups=3,
            queries=3,
            streams=streams,
            generator=seeded(seed),
        ).accuracy[-1]

    # with two streams, the interval is Student's t with one degree of freedom
    assert accuracy(1, 0).interval is None
    gap = 2 * abs(accuracy(2, 0).mean - accuracy(1, 0).mean)
    assert gap > 0
    assert accuracy(2, 0).interval == pytest.approx(12.706205 * gap / 2)
    assert accuracy(4, 0) == accuracy(4, 0) != accuracy(4, 1)


def test_oml_goes_through_a_stream() -> None:
    torch.manual_seed(0)
    result = class_incremental_test(
        OML.build(tasks().spec), tasks(), groups=2, queries=3, streams=2
    )
    assert len(result.accuracy) == 2
    assert result.classes[0] < result.classes[1]
    assert 0 <= result.accuracy[1].mean <= result.task_aware_accuracy.mean <= 1


@pytest.mark.parametrize("learner", [MAML, MatchingNet])
def test_a_learner_that_cannot_add_a_class_is_refused(learner: type[Learner]) -> None:
    with pytest.raises(
        InnerloopTypeError,
        match=f"{learner.__name__} learns the classes of a task together",
    ):
        class_incremental_test(
            learner.build(tasks().spec), tasks(), groups=2, queries=3, streams=1
        )


def test_data_without_groups_are_cut_and_too_few_are_refused() -> None:
    learner, some = ProtoNet.build(tasks().spec), tasks(1)
    result = class_incremental_test(learner, some, groups=3, queries=3, streams=1)
    assert result.classes == [1, 2, 3]
    with pytest.raises(InnerloopError, match="3 classes cannot be divided into 4"):
        class_incremental_test(learner, some, groups=4, queries=3)
    with pytest.raises(InnerloopError, match="have 4 groups of classes; got groups=5"):
        class_incremental_test(learner, tasks(), groups=5, queries=3)
    with pytest.raises(InnerloopError, match="needs 5 \\+ 10 examples; got one with 8"):
        class_incremental_test(learner, tasks())
    with pytest.raises(InnerloopError, match="streams of class_incremental_test must"):
        class_incremental_test(learner, tasks(), streams=0)


def test_the_evaluation_reports_both_settings() -> None:
    torch.manual_seed(0)
    learner = ProtoNet.build(tasks().spec)
    evaluation = EVALUATIONS["class-incremental"](groups=3, queries=3, streams=3)
    report = evaluation(learner, tasks(), TestPlan(seed=1))
    progress, end = report.tables
    result = class_incremental_test(
        learner, tasks(), groups=3, queries=3, streams=3, generator=seeded(1)
    )
    assert [row.values[0].mean for row in progress.rows] == [
        e.mean for e in result.accuracy
    ]
    assert [row.labels["setting"] for row in end.rows] == [
        "class-incremental",
        "task-aware",
    ]
    assert end.rows[1].values[0].mean == result.task_aware_accuracy.mean
    assert end.rows[0].values[1].mean == result.forgetting.mean
    assert {(v.n, v.unit) for row in end.rows for v in row.values} == {(3, "%")}
    json.dumps(report.as_dict(), allow_nan=False)
    assert "same groups" not in str(report)


def test_streams_with_the_same_groups_are_named_and_one_group_forgets_nothing() -> None:
    learner = ProtoNet.build(tasks().spec)
    all_groups = ClassIncrementalTest(groups=4, queries=3, streams=2)
    assert "every stream has the same groups" in str(
        all_groups(learner, tasks(), TestPlan())
    )
    one = ClassIncrementalTest(groups=1, queries=3, streams=1)
    report = one(learner, tasks(), TestPlan())
    assert "±" not in str(report)
    assert [v.name for v in report.tables[1].rows[0].values] == ["accuracy"]


def test_the_evaluation_needs_classes() -> None:
    learner = ProtoNet.build(tasks().spec)
    assert ClassIncrementalTest.supports(learner, tasks()) is None
    with pytest.raises(InnerloopTypeError, match="fixed set of classes"):
        ClassIncrementalTest()(learner, Sinusoid(), TestPlan())
    with pytest.raises(InnerloopError, match="groups of ClassIncrementalTest must be"):
        ClassIncrementalTest(groups=0)
