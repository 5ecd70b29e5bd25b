"""Calibration as a measurement."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss
from torch import Tensor

from innerloop import ProtoNet, TaskSpec
from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopTypeError
from innerloop.evaluation import Calibration
from innerloop.evaluation.calibration import expected_calibration_error
from innerloop.measurements import TestPlan
from innerloop.tasks.sinusoid import Sinusoid
from innerloop.testing import Blobs


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_error_is_the_weighted_gap_of_every_bin(bins: int) -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(500, generator=generator)
    correct = (torch.rand(500, generator=generator) < confidence**2).float()
    c, a = confidence.numpy(), correct.numpy()
    edges, expected = np.linspace(0, 1, bins + 1), 0.0
    for low, high in pairwise(edges):
        inside = (c > low) & (c <= high)
        if inside.any():
            expected += inside.mean() * abs(c[inside].mean() - a[inside].mean())
    found = expected_calibration_error(confidence, correct, bins)
    assert found == pytest.approx(expected, abs=1e-6)


def test_error_of_right_probabilities_is_small_and_of_wrong_ones_their_gap() -> None:
    confidence = torch.rand(50_000, generator=torch.Generator().manual_seed(1))
    chance = torch.rand(50_000, generator=torch.Generator().manual_seed(2))
    right = (chance < confidence).float()
    assert expected_calibration_error(confidence, right) < 0.01
    sure = torch.ones(100)
    assert expected_calibration_error(sure, (torch.arange(100) < 70).float()) == (
        pytest.approx(0.3)
    )


class Constant(Learner):
    """The same logits (2,) for every input."""

    logit: float = 1.0
    likelihood: Likelihood = Categorical()
    kinds = ("classes",)

    def adapt(self, support: Examples) -> Tensor:
        return support.y.sum(0)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return torch.tensor([self.logit, 0.0]).expand(len(x), 2)


def test_the_report_holds_pooled_values_and_bins() -> None:
    tasks = Blobs(TaskSpec("classes", (3,), 2))
    learner = Constant.build(tasks.spec, logit=1.0)
    report = Calibration()(learner, tasks, TestPlan(n=30, labels={"ways": 2}))
    row, (bin_,) = report.tables[0].rows[0], report.tables[1].rows
    values = {value.name: value.mean for value in row.values}
    p = float(torch.tensor(1.0).sigmoid())
    assert row.labels == {"ways": 2}
    assert values["accuracy"] == pytest.approx(0.5)
    assert values["mean confidence"] == pytest.approx(p)
    assert values["expected calibration error"] == pytest.approx(p - 0.5)
    # scikit-learn's score is of one class, ours of both
    brier = 2 * brier_score_loss([1, 0], [p, p])
    assert values["Brier score"] == pytest.approx(brier)
    assert bin_.labels == {"ways": 2, "confidence of": "67-73 %"}
    assert [v.mean for v in bin_.values] == pytest.approx([1.0, p, 0.5])


def test_it_needs_classes() -> None:
    learner = ProtoNet.build(TaskSpec("classes", (3,), 2))
    with pytest.raises(InnerloopTypeError, match="it needs tasks of classes"):
        Calibration()(learner, Sinusoid(), TestPlan())
