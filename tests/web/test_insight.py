"""Predictions, maps and held-out examples of vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from innerloop import ProtoNet
from innerloop.core.learner import Learner
from innerloop.core.task import TaskSpec
from innerloop.learners.transfer.probe import Probe
from innerloop.web import insight
from innerloop.web.insight import Fitted, make_map
from innerloop.web.models import parted

SIZE = 12


def vectors(labels: list[int], seed: int = 0) -> Tensor:
    """Vectors around a center of their class."""
    generator = torch.Generator().manual_seed(seed)
    centers = 3 * torch.eye(SIZE)
    return centers[torch.tensor(labels)] + 0.3 * torch.randn(
        len(labels), SIZE, generator=generator
    )


def fitted(labels: list[int], learner: type[Learner] = Probe) -> Fitted:
    head = learner.build(TaskSpec("classes", (SIZE,), 2))
    if isinstance(head, ProtoNet):
        head.encoder = torch.nn.Identity()
        head.log_scale.data.fill_(0.0)
    ids = [f"e{i}" for i in range(len(labels))]
    return Fitted(head, ids, [f"class {c}" for c in labels], vectors(labels))


@pytest.mark.parametrize(
    ("learner", "shots"), [(ProtoNet, 2), (ProtoNet, 20), (Probe, 20)]
)
def test_what_is_far_from_all_classes_is_rejected(
    learner: type[Learner], shots: int
) -> None:
    found = fitted([0] * shots + [1] * shots, learner)
    assert found.rejected(vectors([0, 1] * 20, seed=1)).mean() < 0.15
    assert found.rejected(vectors([2, 3] * 20, seed=2)).mean() > 0.85


def test_few_examples_reject_nothing() -> None:
    for labels in ([0, 1], [0, 0, 1], [0, 1, 2, 3, 4]):
        assert not fitted(labels, ProtoNet).rejected(vectors([5, 6, 7])).any()
    assert not fitted([0, 0, 1, 1], Probe).rejected(vectors([5, 6, 7])).any()


def test_classes_of_one_example_are_not_held_out() -> None:
    found = fitted([0, 1, 2])
    assert found.accuracy is None
    assert found.doubtful == {}
    assert fitted([0, 0, 1]).accuracy == {"correct": 2, "of": 2}


def test_held_out_predictions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = insight.held_out
    monkeypatch.setattr(insight, "held_out", lambda *a: calls.append(a[2]) or real(*a))
    fitted([0, 1] * 110, ProtoNet).accuracy  # noqa: B018
    assert calls == [10]
    assert fitted([0, 1] * 501, ProtoNet).accuracy is None
    assert calls == [10]


@pytest.mark.parametrize("n", [2, 3, 40, 300])
def test_a_map_shows_the_principal_components(n: int) -> None:
    z = vectors([i % 3 for i in range(n)])
    ids = [f"e{i}" for i in range(n)]
    found = make_map(ids, z, None)
    points = np.array([found.points[e] for e in ids])
    assert np.abs(points).max() == pytest.approx(1, abs=1e-4)
    values = torch.linalg.svdvals((z - z.mean(0)).double())
    share = float(values[:2].square().sum() / values.square().sum())
    # the part of all distances that the map keeps is the largest possible
    scale = float(found.basis.norm(dim=0).amax())
    kept = float(np.square(points / scale).sum() / values.square().sum())
    assert kept == pytest.approx(share, abs=1e-3)
    assert found.point(z[0]) == pytest.approx(list(found.points["e0"]), abs=1e-3)


def test_components_are_the_same_by_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    z = vectors([i % 3 for i in range(60)])
    ids = [f"e{i}" for i in range(60)]
    exact = make_map(ids, z, None)
    monkeypatch.setattr(insight, "EXACT", 0)
    other = make_map(ids, z, exact)
    for e in ids:
        assert other.points[e] == pytest.approx(exact.points[e], abs=2e-3)


def test_the_next_map_is_neither_mirrored_nor_turned() -> None:
    labels = [i % 3 for i in range(30)]
    ids = [f"e{i}" for i in range(30)]
    z = vectors(labels)
    first = make_map(ids, z, None)
    mirrored = insight.Map(
        first.center, -first.basis, {e: (-x, y) for e, (x, y) in first.points.items()}
    )
    more = torch.cat([z, vectors([0, 1], seed=3)])
    for before in (first, mirrored):
        after = make_map([*ids, "new 1", "new 2"], more, before)
        for e in ids:
            assert after.points[e] == pytest.approx(before.points[e], abs=0.2)


def test_a_learner_is_parted_where_that_changes_nothing() -> None:
    spec = TaskSpec("classes", (1, 28, 28), 5)
    x = torch.rand(6, 1, 28, 28)
    encode, head = parted(ProtoNet.build(spec, encoder="conv4"))
    assert encode(x).dim() == 2
    assert head.spec is not None
    assert head.spec.x_shape == tuple(encode(x).shape[1:])

    class Other(ProtoNet):
        """Looks at the inputs again."""

        def predict(self, state: Tensor, x: Tensor) -> Tensor:
            return super().predict(state, x) * (1 + x.flatten(1).mean(1, keepdim=True))

    other = Other.build(spec, encoder="conv4")
    encode, head = parted(other)
    assert head is other
    assert torch.equal(encode(x), x)
