"""Assays of molecules."""

import os

import pytest
import torch
from sklearn.metrics import roc_auc_score

from innerloop.engine.scores import roc_auc
from innerloop.tasks import tox21
from innerloop.tasks.molecules import ASSAYS, Assays, molecules

real = pytest.mark.skipif(
    not os.environ.get("INNERLOOP_DATA"),
    reason="INNERLOOP_DATA does not say where Tox21 is",
)


def test_roc_auc_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        scores = torch.randint(0, 6, (30,), generator=generator).float()  # with ties
        positive = (torch.rand(30, generator=generator) < 0.4).float()
        assert float(roc_auc(scores, positive)) == pytest.approx(
            roc_auc_score(positive.numpy(), scores.numpy())
        )
    assert float(roc_auc(scores, torch.ones(30))) == 0.5


def test_a_task_is_of_one_assay_and_its_parts_are_disjoint() -> None:
    results = torch.tensor(
        [[0.0, 1.0, float("nan")] * 10, [1.0, float("nan"), 0.0] * 10]
    )
    x = torch.arange(30)[:, None]  # every molecule is its own number
    tasks = Assays(x, results, ("a", "b"), shots=3, queries=4).sample(
        50, torch.Generator().manual_seed(0)
    )
    seen = set()
    for task in tasks.unbind():
        rows, y = (
            torch.cat([task.support.x, task.query.x])[:, 0].long(),
            torch.cat([task.support.y, task.query.y]),
        )
        assert len(set(rows.tolist())) == 14
        fits = [bool((results[assay][rows] == y[:, 1]).all()) for assay in range(2)]
        assert sum(fits) == 1  # what was not measured is never drawn
        seen.add(fits.index(True))
        assert task.support.y.sum(0).tolist() == [3, 3]
        assert task.query.y.sum(0).tolist() == [4, 4]
    assert seen == {0, 1}
    with pytest.raises(ValueError, match="an assay has 10 active ones"):
        Assays(x, results, ("a", "b"), shots=3, queries=8)


@real
def test_tox21_splits_by_assay() -> None:
    x, results = molecules()
    assert x.shape == (8014, 2048)
    assert set(results) == set(ASSAYS["train"]) | set(ASSAYS["test"])
    assert not set(ASSAYS["train"]) & set(ASSAYS["test"])
    assert len(tox21("train", holdout=True).names) == 7
    assert int(tox21("test").kinds[1, 1].sum()) == 936  # active in SR-MMP
