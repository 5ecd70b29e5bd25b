"""Classes that arrive one after the other: the stream, what is measured, and who can go
on.
"""

from typing import Any

import pytest
import torch

from innerloop import MAML, OML, MatchingNet, ProtoNet, continual_test
from innerloop.evaluation.class_incremental import forgotten, further, one_stream, stream
from innerloop.core.learner import Learner
from innerloop.core.task import Examples
from innerloop.learners.class_incremental_learner import ClassIncremental
from innerloop.tasks.episodes import ClassBank, Episodes


def tasks(groups: int = 4, apart: float = 3.0) -> Episodes:
    """Groups of 3 to 5 classes of 8 vectors each, around centres of their own."""
    generator = torch.Generator().manual_seed(0)
    sizes = [3 + i % 3 for i in range(groups)]
    centres = apart * torch.randn(sum(sizes), 6, generator=generator)
    values = centres.repeat_interleave(8, 0) + 0.5 * torch.randn(
        8 * len(centres), 6, generator=generator
    )
    of = [g for g, size in enumerate(sizes) for _ in range(size)]
    return Episodes(
        ClassBank.of(
            values, [8] * len(centres), [f"{i}" for i in range(len(centres))], of
        ),
        2,
        1,
        1,
    )


class Forgetful(ClassIncremental):
    """Knows the class that came last, and says so. State: how many classes there are.
    Nobody 2026.
    """

    likelihood: Any = None

    def adapt(self, support: Examples) -> Any:
        return self.extend(None, support)

    def extend(self, state: Any, examples: Examples) -> Any:
        return torch.tensor(examples.y.shape[1])

    def predict(self, state: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.arange(int(state)).expand(len(x), -1).float()


def test_a_stream_is_of_whole_groups_and_shows_no_example_twice() -> None:
    arrivals = list(stream(tasks(), 3, 5, 3, torch.Generator().manual_seed(0)))
    assert [a.group for a in arrivals] == sorted(a.group for a in arrivals)
    assert {a.group for a in arrivals} == {0, 1, 2}
    x = torch.cat([torch.cat([a.support, a.query]) for a in arrivals])
    assert len(x.unique(dim=0)) == len(x) == 8 * len(arrivals)


def test_prototypes_grow_exactly() -> None:
    torch.manual_seed(0)
    learner = ProtoNet.build(tasks().spec)
    arrivals = list(stream(tasks(), 4, 5, 3, torch.Generator().manual_seed(0)))
    state = None
    for k, arrival in enumerate(arrivals):
        state = further(learner, state, arrival.support, k)
    labels = torch.eye(len(arrivals)).repeat_interleave(5, 0)
    whole = learner.adapt(Examples(torch.cat([a.support for a in arrivals]), labels))
    torch.testing.assert_close(state, whole)
    result = continual_test(learner, tasks(), groups=4, queries=3, streams=3)
    assert result.told_forgetting.mean == 0
    assert result.accuracy[-1].mean > 0.8
    assert result.classes[-1] == 15


def test_who_forgets_is_found_out() -> None:
    arrivals = list(stream(tasks(), 3, 5, 3, torch.Generator().manual_seed(0)))
    among_all, within, counts = one_stream(Forgetful(), arrivals)
    # the last class of the group alone
    assert among_all[0, 0] == pytest.approx(1 / float(counts[0]))
    assert among_all[2, :2].tolist() == [0, 0]
    assert within[2, 0] == pytest.approx(1 / float(counts[0]))
    result = continual_test(Forgetful(), tasks(), groups=3, queries=3, streams=4)
    assert result.forgetting.mean > 0.15
    assert result.told_forgetting.mean == 0
    assert result.accuracy[-1].mean == pytest.approx(
        sum(1 / n for n in [result.classes[-1]]), rel=0.1
    )


def test_forgetting_is_the_best_before_minus_the_last() -> None:
    accuracy = torch.tensor([[[0.9, 0, 0], [0.95, 0.8, 0], [0.5, 0.7, 1.0]]])
    torch.testing.assert_close(
        forgotten(accuracy), torch.tensor([((0.95 - 0.5) + (0.8 - 0.7)) / 2])
    )
    assert forgotten(accuracy[:, :1, :1]).tolist() == [0]


def test_oml_goes_through_a_stream() -> None:
    torch.manual_seed(0)
    result = continual_test(
        OML.build(tasks().spec), tasks(), groups=2, queries=3, streams=2
    )
    assert len(result.accuracy) == 2
    assert result.as_dict()["accuracy"][1]["mean"] == result.accuracy[1].mean


@pytest.mark.parametrize("learner", [MAML, MatchingNet])
def test_who_cannot_go_on_is_turned_down(learner: type[Learner]) -> None:
    with pytest.raises(
        ValueError, match=f"{learner.__name__} learns the classes of a task together"
    ):
        continual_test(
            learner.build(tasks().spec), tasks(), groups=2, queries=3, streams=1
        )


def test_data_without_groups_is_cut_into_some_and_too_little_is_turned_down() -> None:
    learner, some = ProtoNet.build(tasks().spec), tasks(1)
    assert continual_test(learner, some, groups=3, queries=3, streams=1).classes == [
        1,
        2,
        3,
    ]
    with pytest.raises(ValueError, match="3 classes cannot be cut into 4"):
        continual_test(learner, some, groups=4, queries=3)
    with pytest.raises(
        ValueError, match="there are 4 groups of classes, and 5 were asked for"
    ):
        continual_test(learner, tasks(), groups=5, queries=3)
    with pytest.raises(ValueError, match="needs 5 \\+ 10 examples, and one has 8"):
        continual_test(learner, tasks())
