"""The scikit-learn face."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

import innerloop
from innerloop import MAML, FewShotClassifier, FewShotRegressor, ProtoNet
from innerloop.core.likelihood import Gaussian
from innerloop.core.task import TaskSpec
from innerloop.runs import Run, RunError, Settings
from innerloop.tasks import Preprocess

IMAGES = TaskSpec("classes", (1, 28, 28), 5)


def drawings(ways: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(99).integers(0, 200, (ways, 28, 28))
    x = np.repeat(base, each, 0) + rng.integers(0, 20, (ways * each, 28, 28))
    return x.astype(np.uint8), np.repeat(
        [f"letter {chr(97 + i)}" for i in range(ways)], each
    )


def test_it_is_a_scikit_learn_classifier() -> None:
    check_estimator(FewShotClassifier())


def test_string_labels_uneven_classes_and_more_ways_than_in_training() -> None:
    torch.manual_seed(0)
    classifier = FewShotClassifier(ProtoNet.build(IMAGES, encoder="conv4"))
    x, y = drawings(20, 2)
    keep = np.arange(len(x)) != 3
    queries, truth = drawings(20, 3, seed=1)
    assert classifier.fit(x[keep], y[keep]).score(queries, truth) > 0.9
    proba = classifier.predict_proba(queries)
    assert proba.shape == (60, 20)
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-6)
    assert set(classifier.predict(queries)) <= set(y)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x,
        lambda x: x[:, None],
        lambda x: x[..., None],
        lambda x: torch.from_numpy(x),
        lambda x: x / 255,
    ],
)
def test_images_are_taken_in_every_usual_layout(convert) -> None:
    torch.manual_seed(0)
    classifier = FewShotClassifier(ProtoNet.build(IMAGES, encoder="conv4"))
    x, y = drawings(3, 2)
    expected = classifier.fit(x, y).predict_proba(x)
    np.testing.assert_allclose(
        classifier.fit(convert(x), y).predict_proba(convert(x)), expected, atol=1e-4
    )


def test_one_image_at_a_time_gives_the_same_answers() -> None:
    torch.manual_seed(0)
    x, y = drawings(5, 1)
    for learner in (ProtoNet.build(IMAGES, encoder="conv4"), MAML.build(IMAGES)):
        classifier = FewShotClassifier(learner).fit(x, y)
        together = classifier.predict_proba(x)
        np.testing.assert_allclose(
            np.concatenate([classifier.predict_proba(x[i : i + 1]) for i in range(5)]),
            together,
            atol=1e-4,
        )


def test_fixed_ways_take_fewer_classes_and_refuse_more() -> None:
    torch.manual_seed(0)
    classifier = FewShotClassifier(MAML.build(IMAGES))
    x, y = drawings(3, 2)
    assert classifier.fit(x, y).predict_proba(x).shape == (6, 3)
    x, y = drawings(6, 1)
    with pytest.raises(ValueError, match="built for 5 classes and got 6"):
        classifier.fit(x, y)
    assert FewShotClassifier(MAML.build(IMAGES, head="prototype")).fit(
        x, y
    ).predict_proba(x).shape == (6, 6)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 28, 28)), ["a"] * 4, "at least two classes"),
        (np.full((4, 28, 28), np.nan), ["a", "a", "b", "b"], "NaN"),
        (np.zeros((4, 3, 28, 28)), ["a", "a", "b", "b"], "takes \\(1, 28, 28\\)"),
        (np.zeros((4, 30, 30)), ["a", "a", "b", "b"], "resize"),
        (np.zeros((4, 28, 28)), ["a", "b"], "one label for each of the 4"),
        (np.zeros((0, 28, 28)), [], "0 sample"),
    ],
)
def test_bad_input_is_refused_in_words(
    x: np.ndarray, y: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FewShotClassifier(ProtoNet.build(IMAGES, encoder="conv4")).fit(x, y)


def test_regression_learns_and_keeps_the_shape_of_y() -> None:
    torch.manual_seed(0)
    learner = MAML.build(TaskSpec("reals", (1,), 1), inner_lr=0.05, inner_steps=200)
    x = np.linspace(-1, 1, 20)[:, None]
    regressor = FewShotRegressor(learner).fit(x, 2 * x[:, 0])
    assert regressor.predict(x).shape == (20,)
    assert regressor.score(x, 2 * x[:, 0]) > 0.9
    assert regressor.fit(x, 2 * x).predict(x).shape == (20, 1)
    with pytest.raises(ValueError, match="learner of reals"):
        FewShotRegressor(ProtoNet.build(IMAGES)).fit(x, x)
    with pytest.raises(ValueError, match="needs a learner"):
        FewShotRegressor().fit(x, x)


@pytest.mark.parametrize("labels", [["x", "y"], [3, 7], [True, False]])
def test_saved_and_loaded_it_answers_the_same(
    tmp_path: Path, labels: list[object]
) -> None:
    torch.manual_seed(0)
    x, _ = drawings(2, 3)
    classifier = FewShotClassifier(ProtoNet.build(IMAGES, encoder="conv4")).fit(
        x, np.repeat(labels, 3)
    )
    classifier.save(tmp_path / "mine")
    twin = FewShotClassifier.load(tmp_path / "mine")
    np.testing.assert_array_equal(twin.predict(x), classifier.predict(x))
    np.testing.assert_allclose(
        twin.predict_proba(x), classifier.predict_proba(x), atol=1e-6
    )
    with pytest.raises(RunError, match="holds a FewShotClassifier"):
        FewShotRegressor.load(tmp_path / "mine")
    (tmp_path / "mine" / "estimator.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RunError, match="no saved FewShotClassifier"):
        innerloop.FewShotClassifier.load(tmp_path / "mine")


def test_scores_compare_like_with_like() -> None:
    torch.manual_seed(0)
    x, y = drawings(3, 2)
    classifier = FewShotClassifier(ProtoNet.build(IMAGES, encoder="conv4")).fit(x, y)
    assert classifier.score(x, y[:, None]) == classifier.score(x, y)
    regressor = FewShotRegressor(MAML.build(TaskSpec("reals", (1,), 1))).fit(
        x[:, 0, :1] / 255, np.arange(6.0)
    )
    assert regressor.score(x[:, 0, :1] / 255, np.arange(6.0)[:, None]) == pytest.approx(
        regressor.score(x[:, 0, :1] / 255, np.arange(6.0))
    )
    with pytest.raises(ValueError, match="built for 1 targets"):
        regressor.fit(x[:, 0, :1] / 255, np.zeros((6, 2)))


def test_images_that_are_not_in_range_are_refused() -> None:
    x, y = drawings(3, 2)
    classifier = FewShotClassifier(ProtoNet.build(IMAGES, encoder="conv4"))
    np.testing.assert_array_equal(
        classifier.fit(x.astype(int), y).predict_proba(x),
        classifier.fit(x, y).predict_proba(x),
    )
    with pytest.raises(ValueError, match=r"reals 0\.\.1"):
        classifier.fit(x.astype(float), y)


def test_bytes_of_any_size_are_read_as_the_run_s_training_images(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    preprocess = Preprocess(1, (28, 28), dark_background=True, normalize_strokes=True)
    spec = {"kind": "classes", "x_shape": [1, 28, 28], "y_dim": 5}
    settings = Settings(
        "protonet",
        {"encoder": "conv4"},
        spec,
        "omniglot",
        {},
        {},
        preprocess=preprocess.settings(),
    )
    run = Run(tmp_path / "run")
    run.create(settings)
    run.save_weights(settings.build())
    pages = np.full((4, 60, 50), 255, dtype=np.uint8)
    for i, page in enumerate(pages):
        page[10 : 20 + 8 * i, 5 + 3 * i : 12 + 3 * i] = 20
    labels = list("abcd")
    read = preprocess.convert_all(pages).numpy() / np.float32(255)
    expected = FewShotClassifier(run.learner()).fit(read, labels).predict_proba(read)
    for learner in (run.folder, run.learner()):
        classifier = FewShotClassifier(learner).fit(pages, labels)
        for layout in (
            pages,
            pages[:, None],
            pages[..., None],
            pages.astype(int),
            read,
        ):
            np.testing.assert_allclose(
                classifier.predict_proba(layout), expected, atol=1e-5
            )
        black_and_white = pages > 100
        for layout in (
            black_and_white,
            black_and_white.astype(np.uint8),
            black_and_white.astype(int),
            255 * black_and_white.astype(np.uint8),
        ):
            found = clone(classifier).fit(pages, labels).predict_proba(layout)
            np.testing.assert_allclose(
                found,
                clone(classifier)
                .fit(pages, labels)
                .predict_proba(255 * black_and_white.astype(np.uint8)),
                atol=1e-5,
            )
        with pytest.raises(ValueError, match=r"reals 0\.\.1"):
            classifier.predict(254.5 * read)
        np.testing.assert_allclose(
            clone(classifier)
            .set_params(chunk=3)
            .fit(pages, labels)
            .predict_proba(pages),
            expected,
            atol=1e-5,
        )
    classifier.save(tmp_path / "kept")
    loaded = FewShotClassifier.load(tmp_path / "kept")
    np.testing.assert_allclose(loaded.predict_proba(pages), expected, atol=1e-5)
    np.testing.assert_allclose(
        clone(loaded).fit(pages, labels).predict_proba(pages), expected, atol=1e-5
    )


def test_what_would_not_come_back_is_not_saved(tmp_path: Path) -> None:
    learner = MAML.build(
        TaskSpec("reals", (1,), 1), likelihood=Gaussian(learned_scale=True)
    )
    x = np.linspace(-1, 1, 6)[:, None]
    with pytest.raises(ValueError, match="cannot be saved"):
        FewShotRegressor(learner).fit(x, x[:, 0]).save(tmp_path / "kept")


def test_nearest_means_take_images_as_they_are() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, (6, 3, 8, 8))
    y = ["a", "b", "c", "a", "b", "c"]
    assert FewShotClassifier().fit(x[:3], y[:3]).predict(x[:3]).tolist() == y[:3]
