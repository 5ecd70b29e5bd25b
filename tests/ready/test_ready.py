"""Networks for tables that are part of the package, and estimators without a learner.
Where the trained weights are missing, untrained ones stand in for them.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.estimator_checks import check_estimator

from innerloop import Experiment, FewShotClassifier, FewShotRegressor, ready
from innerloop.assembly import Choice
from innerloop.engine.errors import InnerloopError
from innerloop.learners.memory.pfn import PFN
from innerloop.runs import Run


def untrained(folder: Path, *, regression: bool) -> Path:
    """A run of the smallest network, before its first step."""
    learner = Choice("pfn", {"width": 8, "layers": 1, "heads": 2})
    tasks = Choice("tables", {"shots": 2, "columns": 3, "regression": regression})
    experiment, setup = Experiment(learner, tasks, steps=1).resolve()
    folder.mkdir()
    run = Run(folder)
    run.create(experiment.as_dict())
    run.save_weights(setup.learner.state_dict())
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    for regression, kind in ((False, "classes"), (True, "reals")):
        run = untrained(folder / f"run-{kind}", regression=regression)
        ready.pack(run, f"tables-{kind}", folder / "ready")
    return folder


@pytest.fixture
def packed(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    folder = tmp_path / "ready"
    shutil.copytree(made / "ready", folder)
    monkeypatch.setattr(ready, "HERE", folder)
    yield folder
    ready.loaded.cache_clear()


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "size": [1.0, 2.0, None, 4.0, 5.0, 6.0],
            "color": ["red", "red", "blue", "blue", "red", None],
        }
    )


def test_tables_are_classified_by_the_network(packed: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 5)), ["a", "b", "c"] * 4
    classifier = FewShotClassifier().fit(x, y)
    assert isinstance(classifier._learner, PFN)
    probabilities = classifier.predict_proba(x)
    assert probabilities.shape == (12, 3)
    # units do not matter, however large the numbers
    scale, offset = np.array([1.0, 10.0, 1e3, 1e-3, 1.0]), np.array([0, 1e9, 0, 5, -1])
    other = FewShotClassifier().fit(scale * x + offset, y)
    found = other.predict_proba(scale * x + offset)
    np.testing.assert_allclose(found, probabilities, atol=1e-4)
    classifier.save(tmp_path / "saved")
    again = FewShotClassifier.load(tmp_path / "saved").predict_proba(x)
    np.testing.assert_allclose(again, probabilities)


def test_words_and_gaps_of_a_data_frame_are_read(packed: Path, tmp_path: Path) -> None:
    x, y = frame(), ["a", "b"] * 3
    classifier = FewShotClassifier().fit(x, y)
    probabilities = classifier.predict_proba(x)
    assert isinstance(classifier._learner, PFN)
    turned = FewShotClassifier().fit(x[["color", "size"]], y)
    np.testing.assert_allclose(turned.predict_proba(x), probabilities, atol=1e-6)
    classifier.save(tmp_path / "saved")
    again = FewShotClassifier.load(tmp_path / "saved").predict_proba(x)
    np.testing.assert_allclose(again, probabilities)
    regressor = FewShotRegressor().fit(x, np.arange(6.0))
    assert regressor.predict(x).shape == (6,)


@pytest.mark.parametrize("targets", [1, 2])
def test_targets_of_any_scale_are_predicted(
    packed: Path, tmp_path: Path, targets: int
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 4)), rng.normal(size=(9, targets))
    regressor = FewShotRegressor().fit(x, y)
    mean, deviation = regressor.predict(x, return_std=True)
    assert mean.shape == deviation.shape == (9, targets)
    small = FewShotRegressor().fit(x, 1e-6 * y + 3.0)
    found = small.predict(x, return_std=True)
    np.testing.assert_allclose((found[0] - 3.0) * 1e6, mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[1] * 1e6, deviation, rtol=1e-4)
    regressor.save(tmp_path / "saved")
    again = FewShotRegressor.load(tmp_path / "saved").predict(x)
    np.testing.assert_allclose(again, mean)


def test_what_is_no_table_or_too_large_is_left_to_other_learners(packed: Path) -> None:
    small = np.zeros((3, 2))
    assert ready.table_learner(small, "classes") is not None
    sizes = (1001, 2), (300, 60), (3, 101), (3, 1, 8, 8)
    cases: list[Any] = [*map(np.zeros, sizes), ["a", "b"], None]
    cases += [np.full((3, 2), np.nan), np.array([["a", "b"]], dtype=object)]
    for case in cases:
        assert ready.table_learner(case, "classes") is None
    (packed / "tables-classes" / "weights.safetensors").unlink()
    assert ready.table_learner(small, "classes") is None
    # without the network, words and gaps are read too
    assert FewShotClassifier().fit(frame(), ["a", "b"] * 3).predict(frame()).shape
    (packed / "tables-reals" / "weights.safetensors").unlink()
    with pytest.raises(InnerloopError, match="needs a learner"):
        FewShotRegressor().fit(small, [0.0, 1.0, 2.0])


def test_weights_that_16_bits_cannot_hold_are_refused(
    made: Path, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(made / "run-classes", tmp_path / "run"))
    run.save_weights({n: w + 1e6 for n, w in run.load_weights().items()})
    with pytest.raises(InnerloopError, match="too large for 16 bits"):
        ready.pack(run.folder, "tables-classes", tmp_path / "ready")


@pytest.mark.parametrize("kind", ["classes", "reals"])
def test_the_network_of_the_package_is_better_than_chance(kind: Any) -> None:
    if not ready.has_tables(kind):
        pytest.skip("the trained weights are not part of this installation")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6))
    y = x[:, 0] - x[:, 3]
    if kind == "classes":
        classifier = FewShotClassifier().fit(x[:40], y[:40] > 0)
        assert isinstance(classifier._learner, PFN)
        assert classifier.score(x[40:], y[40:] > 0) > 0.75
    else:
        assert FewShotRegressor().fit(x[:40], y[:40]).score(x[40:], y[40:]) > 0.6


def test_check_estimator_with_the_network() -> None:
    if not ready.has_tables("classes"):
        pytest.skip("the trained weights are not part of this installation")
    columns = {"check_dataframe_column_names_consistency": "columns align by name"}
    check_estimator(FewShotClassifier(), expected_failed_checks=columns)
