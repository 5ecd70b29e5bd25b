"""Open-set recognition, thresholds from the support set and prediction sets."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

from innerloop import Examples, InnerloopError, Probe, ProtoNet, TaskSpec
from innerloop.engine.errors import InnerloopTypeError
from innerloop.evaluation import OpenSet
from innerloop.evaluation.chunks import chunks
from innerloop.evaluation.held_out import (
    held_out,
    prediction_sets,
    rejection_threshold,
)
from innerloop.measurements import TestPlan
from innerloop.tasks.sinusoid import Sinusoid
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (8,), 4)


def noisy(
    counts: list[int], noise: float, seed: int, queries: int = 50
) -> tuple[Examples, Examples]:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(len(counts), 8, generator=generator)

    def examples(labels: Tensor) -> Examples:
        x = torch.randn(len(labels), 8, generator=generator)
        y = F.one_hot(labels, len(counts)).float()
        return Examples(centers[labels] + noise * x, y)

    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    order = torch.randperm(len(labels), generator=generator)
    return examples(labels[order]), examples(torch.arange(len(counts)).repeat(queries))


@pytest.mark.parametrize("learner", [Probe, ProtoNet])
def test_area_is_scikit_learns_on_the_same_scores(learner: type) -> None:
    built = learner.build(SPEC)
    tasks = Blobs(SPEC)
    report = OpenSet(unknown=2)(built, tasks, TestPlan(n=6, labels={"shots": 2}))
    row = report.tables[0].rows[0]
    expected = []
    wide = tasks.with_ways(6)
    (batch,) = chunks(built, wide, 6, 25, TestPlan().generator())
    for task in batch.unbind():
        known = task.support.y[:, :4].sum(-1) > 0
        support = Examples(task.support.x[known], task.support.y[known, :4])
        novelty = built.novelty(built.adapt(support), task.query.x).detach()
        unknown = task.query.y[:, 4:].sum(-1)
        expected.append(roc_auc_score(unknown.numpy(), novelty.numpy()))
    assert row.labels == {"shots": 2, "unknown classes": 2}
    assert row.values[0].mean == pytest.approx(sum(expected) / 6, abs=1e-5)
    names = [value.name for value in row.values]
    assert "known rejected by the support threshold" in names


def test_unknown_classes_are_found_where_classes_are_apart_and_one_shot_works() -> None:
    tasks = Blobs(SPEC, shots=1)
    row = OpenSet()(Probe.build(SPEC), tasks, TestPlan(n=20)).tables[0].rows[0]
    assert row.values[0].mean > 0.9
    assert len(row.values) == 2


def test_it_needs_a_fixed_set_of_classes() -> None:
    with pytest.raises(InnerloopTypeError, match="a fixed set of classes"):
        OpenSet()(Probe.build(SPEC), Sinusoid(), TestPlan())


@pytest.mark.parametrize("counts", [[3, 3, 3, 3], [1, 4, 2, 6], [20, 9, 1, 15]])
def test_held_out_predictions_are_those_of_adapting_without_the_example(
    counts: list[int],
) -> None:
    support, _ = noisy(counts, 1.0, 0)
    learner = Probe.build(SPEC)
    found = held_out(learner, support)
    order = support.y.argmax(-1).argsort(stable=True)
    x, y = support.x[order], support.y[order]
    assert torch.equal(found.y, y)
    for i in range(len(x)):
        kept = found.fold != found.fold[i]
        state = learner.adapt(Examples(x[kept], y[kept]))
        alone = learner.predict(state, x[i : i + 1])[0]
        assert torch.allclose(found.outputs[i], alone, atol=1e-4)
        assert bool(found.known[i]) == (counts[int(y[i].argmax())] > 1)
    if sum(counts) <= 20:
        assert found.fold.tolist() == list(range(sum(counts)))


def test_the_threshold_rejects_at_most_about_the_wished_rate() -> None:
    learner, rejected = Probe.build(SPEC), []
    for seed in range(15):
        support, query = noisy([20] * 4, 0.8, seed)
        threshold = rejection_threshold(learner, support, rate=0.2)
        novelty = learner.novelty(learner.adapt(support), query.x)
        rejected.append((novelty > threshold).float().mean())
    assert 0.1 < float(torch.stack(rejected).mean()) < 0.25


def test_the_threshold_is_infinite_where_no_class_has_two_examples() -> None:
    support, _ = noisy([1] * 4, 1.0, 0)
    assert float(rejection_threshold(Probe.build(SPEC), support)) == float("inf")


@pytest.mark.parametrize("error", [0.1, 0.3])
@pytest.mark.parametrize("count", [6, 30])
def test_sets_hold_the_label_as_often_as_wished_and_are_small(
    error: float, count: int
) -> None:
    learner, covered, sizes = Probe.build(SPEC), [], []
    for seed in range(15):
        support, query = noisy([count] * 4, 1.2, seed)
        sets = prediction_sets(learner, support, query.x, error=error)
        covered.append((sets * query.y).sum(-1).mean())
        sizes.append(sets.float().sum(-1).mean())
    coverage = float(torch.stack(covered).mean())
    assert 1 - error - 0.05 < coverage
    assert float(torch.stack(sizes).mean()) < 3.5


def test_nothing_is_excluded_with_too_few_examples() -> None:
    support, query = noisy([2] * 4, 0.1, 0)  # 8 < 1 / 0.1 - 1
    assert bool(prediction_sets(Probe.build(SPEC), support, query.x, error=0.1).all())
    fewer = prediction_sets(Probe.build(SPEC), support, query.x, error=0.2)
    assert not bool(fewer.all())


def test_sets_need_independent_predictions_and_an_error_between_0_and_1() -> None:
    support, query = noisy([3] * 4, 0.1, 0)
    learner = Probe.build(SPEC, transductive=True)
    with pytest.raises(InnerloopError, match="transductive=False"):
        prediction_sets(learner, support, query.x)
    with pytest.raises(InnerloopError, match="error"):
        prediction_sets(Probe.build(SPEC), support, query.x, error=1.5)
