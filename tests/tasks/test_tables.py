"""Random tables."""

import sys
from typing import Any

import pytest
import torch

from innerloop import Examples, ProtoNet
from innerloop.engine.errors import InnerloopError
from innerloop.learners.memory.pfn import PFN
from innerloop.tasks.tables import Tables, tables


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_test_has_the_same_number_of_rows_of_every_class() -> None:
    tasks = tables("test", ways=4, shots=3, queries=2, columns=6)
    task = tasks.sample(30, seeded())
    tasks.spec.check(task, 30)
    assert bool((task.support.y.sum(1) == 3).all())
    assert bool((task.query.y.sum(1) == 2).all())


def test_columns_are_chosen_for_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    def correlation(share: float) -> float:
        """Of the column that is most correlated with the target."""
        monkeypatch.setattr(sys.modules[Tables.__module__], "RELATED", share)
        tasks = tables("test", shots=40, columns=4, regression=True)
        x, y = tasks.sample(200, seeded()).support
        x, y = (v - v.mean(1, keepdim=True) for v in (x, y))
        both = (x.std(1) * y.std(1)).clamp_min(1e-6)
        return float(((x * y).mean(1).abs() / both).amax(1).mean())

    assert correlation(1.0) > correlation(0.0) + 0.1


def test_training_tables_have_other_sizes_and_fit_the_spec() -> None:
    tasks, generator = tables(ways=5, shots=6, columns=8), seeded()
    sizes = set()
    for _ in range(40):
        task = tasks.sample(3, generator)
        tasks.spec.check(task, 3)
        assert all(bool(t.isfinite().all()) for e in task for t in e)
        shown = task.support.y.sum(1)  # (tasks, ways)
        classes = (shown > 0).sum(-1)
        assert bool((classes == classes[0]).all())
        assert bool((task.query.y.sum(-1) == 1).all())
        # no class is asked for that was not shown
        assert not bool((task.query.y.sum(1)[shown == 0] > 0).any())
        columns = (task.support.x != 0).any(1).sum(-1)
        sizes.add((task.support.x.shape[1], int(classes[0]), int(columns.max())))
    rows, classes, columns = zip(*sizes, strict=True)
    assert max(rows) <= 30
    assert len(set(rows)) > 5
    assert {2, 3} < set(classes)
    assert max(columns) > 4


@pytest.mark.parametrize("regression", [False, True])
def test_columns_tell_of_the_target(regression: bool) -> None:
    """A least-squares fit is better than the mean of the target, on most tables."""
    size: Any = {"shots": 60, "queries": 40, "columns": 6}
    tasks = tables("test", ways=2, regression=regression, **size)
    better = []
    for (x, y), (query_x, query_y) in tasks.sample(60, seeded()).unbind():
        ridge = 3 * torch.eye(6)
        weights = torch.linalg.solve(x.T @ x + ridge, x.T @ (y - y.mean(0)))
        error = (query_x @ weights + y.mean(0) - query_y).square().mean()
        better.append(bool(error < 0.95 * (query_y - y.mean(0)).square().mean()))
    assert 0.4 < sum(better) / len(better) < 1


def test_numbers_are_standardized_and_words_are_columns_of_zeros_and_ones() -> None:
    x = tables("test", ways=2, shots=40, columns=12).sample(40, seeded()).support.x
    binary = ((x == 0) | (x == 1)).all(1)  # (tasks, columns)
    used = (x != 0).any(1)
    assert 0.1 < float((binary & used).sum() / used.sum()) < 0.7
    numbers = x.transpose(1, 2)[used & ~binary]
    torch.testing.assert_close(
        numbers.mean(1), torch.zeros(len(numbers)), atol=1e-4, rtol=0
    )
    spread = numbers.std(1, correction=0)
    torch.testing.assert_close(spread, torch.ones(len(spread)), atol=1e-3, rtol=0)


def test_classes_are_symbols_and_tables_differ() -> None:
    task = tables("test", ways=3, shots=5).sample(50, seeded()).support
    assert len(task.x.flatten(1).unique(dim=0)) == 50
    again = tables("test", ways=3, shots=5).sample(50, seeded()).support
    assert torch.equal(task.x, again.x)
    # the first class is no larger in the first column than the others
    first = (task.y * task.x[..., :1]).sum(1) / 5  # (tasks, ways)
    assert bool((first.mean(0).abs() < 4 * first.std(0) / 50**0.5).all())


@pytest.mark.parametrize("regression", [False, True])
def test_tables_of_two_columns_are_drawn(regression: bool) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    tasks = tables("test", ways=3, shots=4, columns=2, regression=regression)
    assert isinstance(tasks, Tables)
    learner = PFN.build(tasks.spec, width=8, heads=2, layers=1)
    figure = figures.Figure()
    tasks.plot_task(learner, tasks.sample(1, seeded()).unbind()[0], figure)
    assert len(figure.axes) == 1
    wide = tables("test", columns=3)
    task = wide.sample(1, seeded()).unbind()[0]
    with pytest.raises(InnerloopError, match="two columns"):
        wide.plot_task(learner, task, figure)


def test_any_learner_of_vectors_reads_them() -> None:
    tasks = tables("test", ways=3, shots=4, columns=5)
    learner = ProtoNet.build(tasks.spec)
    task = tasks.sample(1, seeded()).unbind()[0]
    state = learner.adapt(Examples(*task.support))
    assert learner.predict(state, task.query.x).shape == (9, 3)
