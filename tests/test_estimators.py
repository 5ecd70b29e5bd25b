"""Few-shot learners as scikit-learn estimators."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.utils.estimator_checks import check_estimator
from torch import Tensor, nn

from innerloop import (
    ANP,
    CNP,
    DKT,
    MAML,
    NP,
    FewShotClassifier,
    FewShotRegressor,
    MetaSGD,
    Probe,
    ProtoNet,
    readers,
    ready,
)
from innerloop.core.learner import Learner
from innerloop.core.likelihood import Gaussian
from innerloop.core.task import TaskSpec
from innerloop.engine.errors import DivergenceError, InnerloopError, InnerloopTypeError
from innerloop.readers import ImageReader, Inputs, Reader

IMAGES = TaskSpec("classes", (1, 28, 28), 5)
ROWS = TaskSpec("classes", (3,), 5)
CURVES = TaskSpec("reals", (1,), 1)


@pytest.fixture(autouse=True)
def _without_networks_of_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ready, "HERE", tmp_path / "none")


def drawings(ways: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(99).integers(0, 200, (ways, 28, 28))
    x = np.repeat(base, each, 0) + rng.integers(0, 20, (ways * each, 28, 28))
    return x.astype(np.uint8), np.repeat(
        [f"letter {chr(97 + i)}" for i in range(ways)], each
    )


def rows(ways: int = 3, each: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.eye(3)[np.arange(ways).repeat(each) % 3] + 0.1 * rng.normal(
        size=(ways * each, 3)
    )
    return x.astype(np.float32), np.repeat([f"class {i}" for i in range(ways)], each)


def embedding_images() -> ProtoNet:
    torch.manual_seed(0)
    return ProtoNet.build(IMAGES, encoder="conv4")


def weights_of(learner: Learner) -> dict[str, Tensor]:
    return copy.deepcopy(learner.state_dict())


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


class Frame:
    """A data frame with what pandas and polars share."""

    def __init__(self, columns: dict[str, Any]):
        self.data, self.columns = columns, list(columns)

    def __len__(self) -> int:
        return len(next(iter(self.data.values())))

    def __getitem__(self, names: list[str]) -> "Frame":
        return Frame({name: self.data[name] for name in names})

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.stack([np.asarray(c) for c in self.data.values()], 1).astype(dtype)


@dataclass(frozen=True)
class Words(Reader):
    """Texts as how often each letter occurs."""

    kind: ClassVar[str] = "words"
    what: ClassVar[str] = "text"
    letters: str = "abc"

    def read(self, path: Path | str, *, labels: bool) -> Inputs:
        raise NotImplementedError

    def convert(self, X: Any) -> Tensor:
        return torch.tensor([[float(t.count(c)) for c in self.letters] for t in X])


def test_check_estimator() -> None:
    check_estimator(
        FewShotClassifier(),
        expected_failed_checks={
            "check_dataframe_column_names_consistency": "columns align by name"
        },
    )


def test_parameters_and_repr() -> None:
    learner = ProtoNet.build(ROWS)
    classifier = FewShotClassifier(learner, chunk=7)
    assert classifier.get_params() == {
        "learner": learner,
        "chunk": 7,
        "encoder": None,
        "reject": None,
    }
    assert repr(classifier) == (
        "FewShotClassifier(learner=ProtoNet, chunk=7, encoder=None, reject=None)"
    )
    assert repr(FewShotRegressor("runs/x")) == (
        "FewShotRegressor(learner='runs/x', chunk=512)"
    )
    with pytest.raises(InnerloopError, match="Invalid parameter 'size'"):
        classifier.set_params(chunk=3, size=2)
    assert classifier.chunk == 7
    assert clone(classifier).set_params(chunk=3).chunk == 3


def test_uneven_classes_and_more_ways_than_in_training() -> None:
    classifier = FewShotClassifier(embedding_images())
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
        lambda x: torch.from_numpy(x / 255).requires_grad_(),
        lambda x: x.astype(int),
        lambda x: x.astype(np.uint16) * 257,
        lambda x: x / 255,
        lambda x: (x / 255).astype(np.longdouble),
        lambda x: (x / 255).astype(">f8"),
        lambda x: list(x),
        lambda x: (x / 255).astype(object),
    ],
)
def test_image_layouts_and_types(convert: Any) -> None:
    classifier = FewShotClassifier(embedding_images())
    x, y = drawings(3, 2)
    expected = classifier.fit(x, y).predict_proba(x)
    np.testing.assert_allclose(
        classifier.fit(convert(x), y).predict_proba(convert(x)), expected, atol=1e-4
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tensors_are_read(dtype: torch.dtype) -> None:
    x, y = rows()
    classifier = FewShotClassifier(ProtoNet.build(ROWS))
    expected = classifier.fit(x, y).predict_proba(x)
    X = torch.from_numpy(x).to(dtype)
    np.testing.assert_allclose(classifier.predict_proba(X), expected, atol=0.05)
    assert classifier.fit(X, y).score(X, y) == 1


@pytest.mark.parametrize("chunk", [1, 3, 4, 512])
def test_predictions_do_not_depend_on_the_other_inputs(chunk: int) -> None:
    torch.manual_seed(0)
    x, y = drawings(5, 2)
    x[0] = x[0] > 90  # values 0 and 1 are dark bytes too
    for learner in (embedding_images(), MAML.build(IMAGES)):
        classifier = FewShotClassifier(learner).fit(x, y)
        together = classifier.predict_proba(x)
        classifier.set_params(chunk=chunk)
        np.testing.assert_allclose(classifier.predict_proba(x), together, atol=1e-5)
        alone = [classifier.predict_proba(x[i : i + 1]) for i in range(len(x))]
        np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-5)


def test_black_and_white_images_are_told_from_bytes_by_their_type() -> None:
    torch.manual_seed(0)
    x, y = drawings(3, 2)
    classifier = FewShotClassifier(embedding_images()).fit(x, y)
    black_and_white = x > 90
    expected = classifier.predict_proba(255 * black_and_white.astype(np.uint8))
    np.testing.assert_allclose(
        classifier.predict_proba(black_and_white), expected, atol=1e-5
    )
    dark = classifier.predict_proba(black_and_white.astype(np.uint8))
    assert np.abs(dark - expected).max() > 1e-4  # those of one type agree to 1e-5


def test_a_transductive_learner_predicts_all_inputs_at_once() -> None:
    torch.manual_seed(0)
    x, y = drawings(3, 2)
    learner = MAML.build(IMAGES, transductive=True)
    classifier = FewShotClassifier(learner).fit(x, y)
    expected = classifier.predict_proba(x)
    classifier.set_params(chunk=1)
    np.testing.assert_array_equal(classifier.predict_proba(x), expected)


@pytest.mark.parametrize("learner", [None, ProtoNet, MAML])
@pytest.mark.parametrize("chunk", [0, -1, 1.5, "2", None])
def test_bad_chunks_are_refused(learner: type[Learner] | None, chunk: Any) -> None:
    x, y = rows()
    built = learner.build(ROWS) if learner else None
    classifier = FewShotClassifier(built, chunk=chunk)
    with pytest.raises(InnerloopError, match="chunk of FewShotClassifier must be"):
        classifier.fit(x, y)
    classifier.set_params(chunk=2).fit(x, y).set_params(chunk=chunk)
    with pytest.raises(InnerloopError, match="chunk of FewShotClassifier must be"):
        classifier.predict(x)


def test_fixed_ways_take_fewer_classes_and_refuse_more() -> None:
    torch.manual_seed(0)
    classifier = FewShotClassifier(MAML.build(IMAGES))
    x, y = drawings(3, 2)
    assert classifier.fit(x, y).predict_proba(x).shape == (6, 3)
    x, y = drawings(6, 1)
    with pytest.raises(InnerloopError, match="built for 5 classes; got 6"):
        classifier.fit(x, y)
    assert FewShotClassifier(MAML.build(IMAGES, head="prototype")).fit(
        x, y
    ).predict_proba(x).shape == (6, 6)


def test_a_refused_fit_changes_nothing() -> None:
    torch.manual_seed(0)
    x, y = rows()
    classifier = FewShotClassifier(MAML.build(ROWS)).fit(x, y)
    before, attributes = classifier.predict_proba(x), dict(vars(classifier))
    many = np.arange(12).astype(str)
    for X, labels in [
        (x, many),  # too many classes
        (x, ["one"] * 12),
        (x, y[:-1]),
        (x[:, :2], y),
        (x * np.nan, y),
        (x, None),
    ]:
        with pytest.raises(InnerloopError):
            classifier.fit(X, labels)  # pyright: ignore[reportArgumentType]
        assert vars(classifier) == attributes
    np.testing.assert_array_equal(classifier.predict_proba(x), before)
    assert classifier.classes_.tolist() == ["class 0", "class 1", "class 2"]
    regressor = FewShotRegressor(MAML.build(CURVES)).fit(x[:, :1], x[:, 0])
    attributes = dict(vars(regressor))
    for targets in (x[:, :2], x[:5, 0], x[:, 0] * np.inf):
        with pytest.raises(InnerloopError):
            regressor.fit(x[:, :1], targets)
        assert vars(regressor) == attributes


class Fails(ProtoNet):
    """Raises after it has read the support set."""

    def adapt(self, support: Any) -> Any:
        raise RuntimeError("adapt failed")


def test_a_failed_adaptation_changes_nothing() -> None:
    x, y = rows()
    classifier = FewShotClassifier(ProtoNet.build(ROWS)).fit(x, y)
    before = classifier.predict_proba(x)
    classifier.set_params(learner=Fails.build(ROWS))
    with pytest.raises(RuntimeError, match="adapt failed"):
        classifier.fit(x[:8], y[:8])
    np.testing.assert_array_equal(classifier.predict_proba(x), before)


@pytest.mark.parametrize(
    ("shape", "one"),
    [
        ((3, 8, 8), (8, 8, 3)),
        ((3, 8, 8), (3, 8, 8)),
        ((1, 8, 8), (8, 8, 1)),
        ((1, 8, 8), (8, 8)),
        ((3,), (3,)),
    ],
)
def test_one_input_is_not_taken_for_many(
    shape: tuple[int, ...], one: tuple[int, ...]
) -> None:
    learner = ProtoNet.build(TaskSpec("classes", shape, 5), encoder="flatten")
    rng = np.random.default_rng(0)
    x, y = rng.random((4, *shape)), ["a", "b", "a", "b"]
    classifier = FewShotClassifier(learner).fit(x, y)
    single = rng.random(one)
    for ask in (classifier.predict, classifier.predict_proba):
        with pytest.raises(InnerloopError, match=r"X has the shape|Expected 2D array"):
            ask(single)
    labels = [f"class {i % 2}" for i in range(len(single))]
    with pytest.raises(InnerloopError, match=r"X has the shape|Expected 2D array"):
        classifier.fit(single, labels)
    assert len(classifier.predict(single.reshape(1, *one))) == 1


@pytest.mark.parametrize("learner", [None, ProtoNet])
def test_one_image_is_not_taken_for_many_without_a_shape(learner: Any) -> None:
    x = np.random.default_rng(0).random((4, 8, 8, 3))
    built = learner(nn.Flatten()) if learner else None
    classifier = FewShotClassifier(built).fit(x, [0, 1, 0, 1])
    with pytest.raises(InnerloopError, match="X has the shape"):
        classifier.predict(x[0])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 28, 28)), ["a"] * 4, "at least two classes"),
        (np.full((4, 28, 28), np.nan), ["a", "a", "b", "b"], "NaN"),
        (np.zeros((4, 3, 28, 28)), ["a", "a", "b", "b"], r"\(n, 1, 28, 28\)"),
        (np.zeros((4, 30, 30)), ["a", "a", "b", "b"], "resize"),
        (np.zeros((4, 28, 28)), ["a", "b"], "one label for each of the 4"),
        (np.zeros((0, 28, 28)), [], "0 sample"),
        (np.zeros((4, 28, 28), complex), ["a", "a", "b", "b"], "Complex data"),
        (np.full((4, 28, 28), -1), ["a", "a", "b", "b"], r"0\.\.255"),
        (np.full((4, 28, 28), 256), ["a", "a", "b", "b"], r"0\.\.255"),
        (np.full((4, 28, 28), 200.0), ["a", "a", "b", "b"], r"0\.\.1"),
        ([np.zeros((9, 9)), np.zeros((8, 9))], ["a", "b"], "all inputs of one shape"),
        ([["a", "b"], ["c", "d"]], ["a", "b"], "X holds texts"),
        (["a.png", "b.png"], ["a", "b"], "X holds texts"),
        (np.array([["a"], [1]], object), ["a", "b"], "X holds texts"),
        (np.zeros((4, 28), "M8[s]"), ["a", "a", "b", "b"], "real numbers"),
        (None, ["a", "b"], "Expected 2D|numbers"),
        (torch.eye(4).to_sparse(), ["a", "a", "b", "b"], "one array"),
    ],
)
def test_bad_inputs_are_refused(x: Any, y: list[str], message: str) -> None:
    with pytest.raises(InnerloopError, match=message) as caught:
        FewShotClassifier(embedding_images()).fit(x, y)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "target y is None"),
        (np.zeros((12, 2)), "one label for each"),
        (np.eye(3)[np.arange(12) % 3], "one label for each"),
        ("abc", "one label for each"),
        ([["a"]] * 11 + [["a", "b"]], "one array"),
        (["a", "b"] * 5 + ["a", None], "none missing"),
        ([None] * 12, "none missing"),
        (["a", "b"] * 5 + ["a", float("nan")], "one type|NaN"),
        (["a", 1] * 6, "one type"),
        (np.array(["a", "b"] * 5 + ["a", np.nan], object), "one type|NaN"),
        (np.array([1, 2] * 5 + [1, np.nan], object), "NaN"),
        ([0.0, 1.0] * 5 + [0.0, np.inf], "NaN or infinity"),
        ([0.5, 1.0] * 6, "Unknown label type"),
    ],
)
def test_bad_labels_are_refused(y: Any, message: str) -> None:
    x = np.random.default_rng(0).random((12, 3))
    with pytest.raises(InnerloopError, match=message):
        FewShotClassifier().fit(x, y)


def test_token_numbers_are_checked() -> None:
    spec = TaskSpec("classes", (4,), 3, vocabulary=9)
    torch.manual_seed(0)
    classifier = FewShotClassifier(ProtoNet.build(spec))
    X = np.arange(16).reshape(4, 4) % 9
    assert classifier.fit(X, [0, 1, 0, 1]).predict(X).tolist() == [0, 1, 0, 1]
    for bad in (X + 1, X - 1, X + 0.5):
        with pytest.raises(InnerloopError, match="integers from 0 to 8"):
            classifier.predict(bad)


def test_regression_learns_and_keeps_the_shape_of_y() -> None:
    torch.manual_seed(0)
    learner = MAML.build(CURVES, inner_lr=0.05, inner_steps=200)
    x = np.linspace(-1, 1, 20)[:, None]
    regressor = FewShotRegressor(learner).fit(x, 2 * x[:, 0])
    assert regressor.predict(x).shape == (20,)
    assert regressor.score(x, 2 * x[:, 0]) > 0.9
    assert regressor.fit(x, 2 * x).predict(x).shape == (20, 1)
    with pytest.raises(InnerloopError, match="learner of reals; got a ProtoNet"):
        FewShotRegressor(ProtoNet.build(IMAGES)).fit(x, x)
    with pytest.raises(InnerloopError, match="needs a learner"):
        FewShotRegressor().fit(x, x)
    with pytest.raises(InnerloopError, match="learner of classes; got a MAML of reals"):
        FewShotClassifier(learner).fit(x, np.arange(20) % 2)


@pytest.mark.parametrize("learner", [3, object(), ProtoNet])
def test_other_learners_are_refused(learner: Any) -> None:
    x, y = rows()
    with pytest.raises(InnerloopTypeError, match="learner must be"):
        FewShotClassifier(learner).fit(x, y)


@pytest.mark.parametrize("learner", [CNP, NP, ANP, DKT])
def test_standard_deviations(learner: type[Learner]) -> None:
    torch.manual_seed(0)
    x = np.linspace(-1, 1, 8)[:, None]
    regressor = FewShotRegressor(learner.build(CURVES)).fit(x, x[:, 0])
    mean, std = regressor.predict(x, return_std=True)
    np.testing.assert_array_equal(mean, regressor.predict(x))
    assert std.shape == (8,)
    assert (std > 0).all()
    mean, std = regressor.fit(x, x).predict(x, return_std=True)
    assert mean.shape == std.shape == (8, 1)


def test_standard_deviations_grow_away_from_the_data() -> None:
    torch.manual_seed(0)
    x = np.linspace(-1, 1, 8)[:, None]
    regressor = FewShotRegressor(DKT.build(CURVES)).fit(x, x[:, 0])
    _, std = regressor.predict(np.array([[0.0], [30.0]]), return_std=True)
    assert std[1] > std[0]


def test_learners_without_standard_deviations_say_so() -> None:
    x = np.linspace(-1, 1, 8)[:, None]
    regressor = FewShotRegressor(MAML.build(CURVES)).fit(x, x[:, 0])
    with pytest.raises(InnerloopTypeError, match="MAML predicts no standard deviation"):
        regressor.predict(x, return_std=True)
    scaled = MAML.build(CURVES, likelihood=Gaussian(learned_scale=True))
    _, std = FewShotRegressor(scaled).fit(x, x[:, 0]).predict(x, return_std=True)
    assert (std > 0).all()


@pytest.mark.parametrize(
    "labels",
    [
        ["x", "y"],
        [3, 7],
        [True, False],
        np.array(["x", "y"], np.dtypes.StringDType()),
        np.array(["x", "yyyy"], object),
        np.array([3, 7], np.uint8),
        np.array([3, 7], object),
        np.array([1.0, 2.0], np.float32),
        torch.tensor([4, 2]),
    ],
)
def test_a_loaded_estimator_answers_the_same(tmp_path: Path, labels: Any) -> None:
    x, _ = drawings(2, 3)
    y = labels[[0, 0, 0, 1, 1, 1]] if hasattr(labels, "dtype") else np.repeat(labels, 3)
    classifier = FewShotClassifier(embedding_images(), chunk=5).fit(x, y)
    classifier.save(tmp_path / "mine")
    twin = FewShotClassifier.load(tmp_path / "mine")
    assert twin.chunk == 5
    assert twin.classes_.dtype == classifier.classes_.dtype
    np.testing.assert_array_equal(twin.predict(x), classifier.predict(x))
    np.testing.assert_allclose(
        twin.predict_proba(x), classifier.predict_proba(x), atol=1e-6
    )
    assert twin.score(x, y) == classifier.score(x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_precision_is_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    x, y = rows()
    for learner in (None, ProtoNet.build(ROWS).to(dtype), MAML.build(ROWS).to(dtype)):
        classifier = FewShotClassifier(learner).fit(x.astype(float) + 1e5, y)
        classifier.save(tmp_path / "kept")
        twin = FewShotClassifier.load(tmp_path / "kept")
        np.testing.assert_array_equal(
            twin.predict_proba(x + 1e5), classifier.predict_proba(x + 1e5)
        )
    learner = MAML.build(CURVES).to(dtype)
    regressor = FewShotRegressor(learner).fit(x[:, :1], x[:, 0])
    regressor.save(tmp_path / "regressor")
    twin = FewShotRegressor.load(tmp_path / "regressor")
    np.testing.assert_array_equal(twin.predict(x[:, :1]), regressor.predict(x[:, :1]))


def test_foreign_and_damaged_files_are_refused(tmp_path: Path) -> None:
    x, y = rows()
    FewShotClassifier(ProtoNet.build(ROWS)).fit(x, y).save(tmp_path)
    with pytest.raises(InnerloopError, match="holds a FewShotClassifier"):
        FewShotRegressor.load(tmp_path)
    file = tmp_path / "estimator.safetensors"
    content = bytearray(file.read_bytes())
    for place in (-1, -len(content) // 2, 200):  # a weight, a weight, a label
        damaged = content.copy()
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(InnerloopError, match="no saved FewShotClassifier"):
            FewShotClassifier.load(tmp_path)
    for nonsense in (b"", b"nonsense", content[: len(content) // 2]):
        file.write_bytes(nonsense)
        with pytest.raises(InnerloopError, match="no saved FewShotClassifier"):
            FewShotClassifier.load(tmp_path)
    with pytest.raises(InnerloopError, match="there is no file"):
        FewShotClassifier.load(tmp_path / "nothing")
    with pytest.raises(InnerloopError, match="cannot create the folder"):
        FewShotClassifier().fit(x, y).save(file / "below")


def test_an_estimator_that_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    x, y = rows()
    classifier = FewShotClassifier(ProtoNet.build(ROWS)).fit(x, y)
    classifier.save(tmp_path)
    content = (tmp_path / "estimator.safetensors").read_bytes()
    dates = np.array(["2020-01-01", "2021-01-01"], "M8[D]")[np.arange(12) % 2]
    named = ProtoNet.build(ROWS)
    pairs = np.empty(12, dtype=object)
    pairs[:] = [(i % 2, 0) for i in range(12)]
    refused = {
        "by build": FewShotClassifier(ProtoNet(nn.Flatten())).fit(x, y),
        "chosen by name": FewShotClassifier(
            ProtoNet.build(ROWS, encoder=nn.Linear(3, 2))
        ).fit(x, y),
        "labels must be": FewShotClassifier(named).fit(x, dates),
        "no learner 'fine'": FewShotClassifier(Fine.build(ROWS)).fit(x, y),
        "loading would change its targets": FewShotClassifier(named).fit(x, pairs),
    }
    for message, estimator in refused.items():
        with pytest.raises(InnerloopError, match="cannot be saved") as caught:
            estimator.save(tmp_path)
        assert message in str(caught.value)
        assert len(str(caught.value)) < 300
        assert (tmp_path / "estimator.safetensors").read_bytes() == content


class Sorted(Words):
    """Loading changes it."""

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "Sorted":
        return cls("".join(sorted(settings["letters"])))


def test_a_reader_that_loading_would_change_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(readers.READERS, "words", Sorted)
    learner = ProtoNet.build(ROWS)
    learner.reader = Sorted("zyx")
    classifier = FewShotClassifier(learner).fit(["xx", "yy"], ["x", "y"])
    with pytest.raises(InnerloopError, match="loading would change its reader"):
        classifier.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_fields_that_changed_after_build_are_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = rows()
    learner = MAML.build(ROWS, inner_lr=0.1)
    learner.set_steps(5)
    classifier = FewShotClassifier(learner).fit(x, y)
    classifier.save(tmp_path)
    np.testing.assert_array_equal(
        FewShotClassifier.load(tmp_path).predict_proba(x), classifier.predict_proba(x)
    )


def test_likelihoods_are_saved(tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 6)[:, None]
    learner = MAML.build(CURVES, likelihood=Gaussian(learned_scale=True))
    regressor = FewShotRegressor(learner).fit(x, x[:, 0])
    regressor.save(tmp_path)
    loaded = FewShotRegressor.load(tmp_path)
    for a, b in zip(
        loaded.predict(x, return_std=True),
        regressor.predict(x, return_std=True),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_what_was_fitted_is_saved_whatever_the_parameters_are(tmp_path: Path) -> None:
    x, y = rows()
    learner = ProtoNet.build(ROWS)
    for fitted, other in ((learner, None), (None, learner)):
        classifier = FewShotClassifier(fitted).fit(x, y).set_params(learner=other)
        expected = classifier.predict_proba(x)
        classifier.save(tmp_path)
        loaded = FewShotClassifier.load(tmp_path)
        np.testing.assert_array_equal(loaded.predict_proba(x), expected)


class Fine(ProtoNet):
    """Not in the registry."""


def test_scores_compare_one_prediction_with_one_label() -> None:
    x, y = drawings(3, 2)
    classifier = FewShotClassifier(embedding_images()).fit(x, y)
    assert classifier.score(x, y[:, None]) == classifier.score(x, y)
    for wrong in (y[:1], y[:-1], np.stack([y, y], 1)):
        with pytest.raises(InnerloopError, match="one label for each of the 6"):
            classifier.score(x, wrong)
    torch.manual_seed(0)
    X = x[:, 0, :1] / 255
    regressor = FewShotRegressor(MAML.build(CURVES)).fit(X, np.arange(6.0))
    score = regressor.score(X, np.arange(6.0))
    assert score == pytest.approx(r2_score(np.arange(6.0), regressor.predict(X)))
    assert regressor.score(X, np.arange(6.0)[:, None]) == pytest.approx(score)
    assert regressor.score(X, np.zeros(6)) == r2_score(
        np.zeros(6), regressor.predict(X)
    )
    for wrong in ([1.0], np.zeros(5)):
        with pytest.raises(InnerloopError, match="one target for each of the 6"):
            regressor.score(X, wrong)
    with pytest.raises(InnerloopError, match="1 targets per example; got 2"):
        regressor.score(X, np.zeros((6, 2)))
    with pytest.raises(InnerloopError, match="built for 1 targets"):
        regressor.fit(X, np.zeros((6, 2)))


@pytest.mark.parametrize(
    "y", [["a", "b"] * 3, [1j] * 6, None, [None] * 6, [[1], [2, 3]] * 3]
)
def test_bad_targets_are_refused(y: Any) -> None:
    regressor = FewShotRegressor(MAML.build(CURVES))
    with pytest.raises(InnerloopError):
        regressor.fit(np.zeros((6, 1)), y)


def test_several_targets_are_scored_as_in_scikit_learn() -> None:
    torch.manual_seed(0)
    x = np.linspace(-1, 1, 9)[:, None]
    y = np.concatenate([x, 7 * x**2], 1)
    regressor = FewShotRegressor(MAML.build(TaskSpec("reals", (1,), 2))).fit(x, y)
    assert regressor.score(x, y) == pytest.approx(r2_score(y, regressor.predict(x)))


def test_large_features_that_differ_little_are_not_rounded() -> None:
    rng = np.random.default_rng(0)
    x = 1e7 + 0.1 * np.arange(8)[:, None] * [1.0, -1.0] + 0.01 * rng.random((8, 2))
    y = np.arange(8) // 2
    classifier = FewShotClassifier().fit(x, y)
    assert classifier.score(x, y) == 1
    expected = FewShotClassifier().fit(x - 1e7, y).predict_proba(x - 1e7)
    np.testing.assert_allclose(classifier.predict_proba(x), expected, atol=1e-6)


def test_the_precision_of_the_learner_is_kept() -> None:
    x = 1e3 + 1e-4 * np.arange(6)[:, None] * [1.0, 0.0, 0.0]
    learner = ProtoNet.build(ROWS, encoder="flatten", scale=1e8).double()
    y = np.arange(6)
    assert FewShotClassifier(learner).fit(x, y).score(x, y) == 1


@pytest.mark.parametrize("learner", [ProtoNet, MAML])
def test_values_beyond_float32_are_too_large(learner: type[Learner]) -> None:
    x, y = rows()
    x = x.astype(float)
    x[3, 1] = 1e39
    with pytest.raises(InnerloopError, match=r"too large for float32: 1e\+39"):
        FewShotClassifier(learner.build(ROWS)).fit(x, y)
    with pytest.raises(InnerloopError, match="too large for float32"):
        FewShotRegressor(MAML.build(CURVES)).fit(x[:, :1], x[:, 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_predictions_that_are_not_finite_are_refused(value: float) -> None:
    x, y = rows()
    broken = ProtoNet.build(ROWS)
    nn.init.constant_(next(broken.encoder.parameters()), value)
    classifier = FewShotClassifier(broken).fit(x, y)
    for ask in (classifier.predict, classifier.predict_proba):
        with pytest.raises(DivergenceError, match="12 of 12 predictions of ProtoNet"):
            ask(x)
    with pytest.raises(DivergenceError):
        classifier.score(x, y)
    regressor = FewShotRegressor(MAML.build(CURVES, inner_lr=1e30, inner_steps=3))
    regressor.fit(x[:, :1], x[:, 1])
    with pytest.raises(DivergenceError, match="predictions of MAML"):
        regressor.predict(x[:, :1])
    with pytest.raises(DivergenceError):
        regressor.score(x[:, :1], x[:, 1])


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("learner", [MAML, MetaSGD, ProtoNet])
def test_fit_and_predict_work_without_gradients(
    learner: type[Learner], mode: Any
) -> None:
    torch.manual_seed(0)
    x, y = rows()
    built = learner.build(ROWS)
    expected = FewShotClassifier(built).fit(x, y).predict_proba(x)
    with mode():
        X = torch.from_numpy(x).clone()
        found = FewShotClassifier(built).fit(X, y).predict_proba(X)
        outside = FewShotClassifier(built).fit(X, y)
        inside = FewShotClassifier(learner.build(ROWS)).fit(X, y)
        read = Inputs(X, [""] * 12)
    assert np.isfinite(inside.predict_proba(read)).all()
    again = FewShotClassifier(built).fit(read, y).predict_proba(read)
    np.testing.assert_array_equal(again, expected)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(outside.predict_proba(x), expected)


def test_the_learner_keeps_its_mode_and_weights() -> None:
    torch.manual_seed(0)
    x, y = drawings(3, 2)
    for learner in (embedding_images(), MAML.build(IMAGES)):
        expected = FewShotClassifier(learner.eval()).fit(x, y).predict_proba(x)
        learner.train()
        next(learner.children()).eval()  # a frozen part stays in evaluation mode
        modes = [module.training for module in learner.modules()]
        before, attributes = weights_of(learner), set(vars(learner))
        classifier = FewShotClassifier(learner).fit(x, y)
        np.testing.assert_allclose(classifier.predict_proba(x), expected, atol=1e-6)
        classifier.score(x, y)
        assert [module.training for module in learner.modules()] == modes
        assert set(vars(learner)) == attributes
        assert_equal(weights_of(learner), before)
        assert classifier.get_params()["learner"] is learner


def test_estimators_share_the_weights_of_a_learner() -> None:
    learner = ProtoNet.build(ROWS)
    x, y = rows()
    classifier = FewShotClassifier(learner).fit(x, y)
    pointers = {p.data_ptr() for p in learner.parameters()}
    assert {p.data_ptr() for p in classifier._learner.parameters()} == pointers


@pytest.mark.parametrize("learner", [MAML, ProtoNet])
def test_threads_get_the_same_answers(learner: type[Learner]) -> None:
    torch.manual_seed(0)
    spec = TaskSpec("classes", (1, 8, 8), 3)
    built = learner.build(spec)
    x = np.random.default_rng(0).random((9, 8, 8))
    y = np.arange(9) % 3
    before = weights_of(built)
    estimators = [FewShotClassifier(built).fit(x + i, y) for i in range(2)]
    expected = [estimator.predict_proba(x) for estimator in estimators]

    def ask(thread: int) -> int:
        torch.set_num_threads(1)
        one = thread % 2  # two estimators on one learner
        return sum(
            not np.array_equal(estimators[one].predict_proba(x), expected[one])
            for _ in range(50)
        )

    with ThreadPoolExecutor(8) as pool:
        wrong = list(pool.map(ask, range(8)))
    assert sum(wrong) == 0
    assert_equal(weights_of(built), before)


def test_threads_may_fit_estimators_of_one_learner() -> None:
    torch.manual_seed(0)
    x, y = rows()
    built = MAML.build(ROWS, inner_steps=3)
    before = weights_of(built)
    expected = FewShotClassifier(built).fit(x, y).predict_proba(x)

    def adapt(_: int) -> bool:
        found = FewShotClassifier(built).fit(x, y).predict_proba(x)
        return bool(np.array_equal(found, expected))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(adapt, range(80)))
    assert_equal(weights_of(built), before)


@pytest.mark.parametrize("learner", [None, ProtoNet])
def test_columns_of_data_frames_align_by_name(learner: Any) -> None:
    x, y = rows()
    frame = Frame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]})
    classifier = FewShotClassifier(learner.build(ROWS) if learner else None)
    classifier.fit(frame, y)
    expected = classifier.predict_proba(x)
    other = Frame({"c": x[:, 2], "more": y, "a": x[:, 0], "b": x[:, 1]})
    np.testing.assert_array_equal(classifier.predict_proba(other), expected)
    with pytest.raises(InnerloopError, match="lacks columns that it had in fit: b"):
        classifier.predict(Frame({"a": x[:, 0], "c": x[:, 2], "d": x[:, 1]}))
    twice = Frame({"a": x[:, 0]})
    twice.columns = ["a", "a"]
    with pytest.raises(InnerloopError, match="several columns called 'a'"):
        classifier.fit(twice, y)
    numbered = Frame({0: x[:, 0], 1: x[:, 1], 2: x[:, 2]})  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(classifier.predict_proba(numbered), expected)


def test_columns_are_saved(tmp_path: Path) -> None:
    x, y = rows()
    frame = Frame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]})
    other = Frame({"c": x[:, 2], "a": x[:, 0], "b": x[:, 1]})
    for learner in (None, ProtoNet.build(ROWS)):
        classifier = FewShotClassifier(learner).fit(frame, y)
        classifier.save(tmp_path)
        loaded = FewShotClassifier.load(tmp_path)
        np.testing.assert_array_equal(
            loaded.predict_proba(other), classifier.predict_proba(frame)
        )


def test_inputs_go_through_the_reader_of_the_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(readers.READERS, "words", Words)
    learner = ProtoNet.build(ROWS)
    learner.reader = Words("xyz")
    texts, y = ["xx", "yy", "zz", "xxx", "y", "z"], ["x", "y", "z"] * 2
    classifier = FewShotClassifier(learner).fit(texts, y)
    assert classifier.predict(["xx", "yyyy"]).tolist() == ["x", "y"]
    classifier.save(tmp_path)
    loaded = FewShotClassifier.load(tmp_path)
    assert loaded._reader == learner.reader
    np.testing.assert_array_equal(
        loaded.predict_proba(texts), classifier.predict_proba(texts)
    )
    assert clone(loaded).fit(texts, y).predict(["xx"]).tolist() == ["x"]
    learner.reader = Words("xyzv")  # another number of features
    with pytest.raises(InnerloopError, match=r"X has 4 features, but .* 3 features"):
        FewShotClassifier(learner).fit(texts, y)


def test_inputs_that_a_reader_returned_are_not_read_again() -> None:
    learner = ProtoNet.build(ROWS)
    learner.reader = Words("xyz")
    texts, y = ["xx", "yy", "zz"], ["x", "y", "z"]
    support = Inputs(learner.reader.convert(texts), texts, y)
    classifier = FewShotClassifier(learner).fit(support, y)
    np.testing.assert_array_equal(
        classifier.predict_proba(support), classifier.predict_proba(texts)
    )
    with pytest.raises(InnerloopError, match="is expecting 3 features"):
        classifier.predict(Inputs(torch.zeros(2, 4), ["a", "b"]))


def test_images_of_any_size_are_read_as_the_training_images(tmp_path: Path) -> None:
    learner = embedding_images()
    reader = ImageReader(1, (28, 28), dark_background=True, normalize_strokes=True)
    pages = np.full((4, 60, 50), 255, dtype=np.uint8)
    for i, page in enumerate(pages):
        page[10 : 20 + 8 * i, 5 + 3 * i : 12 + 3 * i] = 20
    labels = list("abcd")
    read = reader.convert(pages).numpy()
    expected = FewShotClassifier(learner).fit(read, labels).predict_proba(read)
    learner.reader = reader
    classifier = FewShotClassifier(learner).fit(pages, labels)
    different = [np.pad(pages[0], 0), *pages[1:]]
    for layout in (
        pages,
        pages[:, None],
        pages[..., None],
        pages.astype(int),
        read,
        different,
    ):
        np.testing.assert_allclose(
            classifier.predict_proba(layout), expected, atol=1e-5
        )
    for chunk in (1, 3, 512):
        classifier.set_params(chunk=chunk)
        np.testing.assert_allclose(classifier.predict_proba(pages), expected, atol=1e-5)
    black_and_white = pages > 100
    np.testing.assert_allclose(
        classifier.predict_proba(black_and_white),
        classifier.predict_proba(255 * black_and_white.astype(np.uint8)),
        atol=1e-5,
    )
    color = np.repeat(pages[0][..., None], 3, 2)
    for single in (color, color.transpose(2, 0, 1)):
        with pytest.raises(InnerloopError):
            classifier.predict(single)
    with pytest.raises(InnerloopError):
        classifier.predict(254.5 * read)
    classifier.save(tmp_path / "kept")
    loaded = FewShotClassifier.load(tmp_path / "kept")
    np.testing.assert_allclose(loaded.predict_proba(pages), expected, atol=1e-5)
    np.testing.assert_allclose(
        clone(loaded).fit(pages, labels).predict_proba(pages), expected, atol=1e-5
    )


def test_nearest_class_means_take_images_as_they_are() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, (6, 3, 8, 8))
    y = ["a", "b", "c", "a", "b", "c"]
    assert FewShotClassifier().fit(x[:3], y[:3]).predict(x[:3]).tolist() == y[:3]


def test_a_learner_without_a_spec_says_what_inputs_are() -> None:
    learner = ProtoNet(encoder=nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()))
    photographs = np.zeros((4, 8, 8, 3), np.uint8)
    with pytest.raises(InnerloopError, match=r"Images are \(n, channels, height"):
        FewShotClassifier(learner).fit(photographs, [0, 1, 0, 1])


def spread(noise: float = 0.2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs of three classes and of one that is not among them, and labels."""
    generator = np.random.default_rng(0)
    centers = 3 * np.eye(4, 6)
    at = np.repeat(np.arange(4), 12)
    x = centers[at] + noise * generator.normal(size=(48, 6))
    return x[:36], np.array(["ant", "bee", "cat"])[at[:36]], x[36:]


@pytest.mark.parametrize("learner", [None, "probe"])
def test_rejected_inputs_have_the_label_none(learner: str | None) -> None:
    x, y, unknown = spread()
    built = Probe.build(TaskSpec("classes", (6,), 3)) if learner else None
    classifier = FewShotClassifier(built, reject=0.1).fit(x[::2], y[::2])
    labels = classifier.predict(x[1::2])
    assert labels.dtype == object
    assert (labels == y[1::2]).mean() > 0.8
    assert all(label is None for label in classifier.predict(unknown))
    assert classifier.novelty(unknown).min() > classifier.novelty(x[1::2]).mean()
    plain = FewShotClassifier(built).fit(x[::2], y[::2])
    assert plain.threshold_ == float("inf")
    assert set(plain.predict(unknown)) <= {"ant", "bee", "cat"}


def test_a_saved_estimator_rejects_the_same(tmp_path: Path) -> None:
    x, y, unknown = spread()
    classifier = FewShotClassifier(reject=0.1).fit(x, y)
    classifier.save(tmp_path)
    twin = FewShotClassifier.load(tmp_path)
    assert twin.reject == 0.1
    assert twin.threshold_ == classifier.threshold_
    assert all(label is None for label in twin.predict(unknown))


def test_rejecting_needs_two_examples_and_a_share() -> None:
    x, y, _ = spread()
    with pytest.raises(InnerloopError, match="at least two examples of a class"):
        FewShotClassifier(reject=0.1).fit(x[::12], y[::12])
    with pytest.raises(InnerloopError, match="reject of FewShotClassifier must be"):
        FewShotClassifier(reject=2).fit(x, y)


def test_held_out_probabilities_find_a_wrong_label() -> None:
    x, y, _ = spread()
    labels = [*y, "dog"]
    labels[5] = "cat" if y[5] != "cat" else "ant"
    inputs = np.concatenate([x, np.zeros_like(x[:1])])
    classifier = FewShotClassifier().fit(inputs, labels)
    p = classifier.held_out_proba()
    assert p.shape == (37, 4)
    assert np.isnan(p[-1]).all()  # the only dog
    own = p[np.arange(36), np.searchsorted(classifier.classes_, labels[:36])]
    assert own.argmin() == 5
    order = np.argsort(np.array(labels), kind="stable")
    # the examples that were left out together with it
    out = {int(i) for i in order[np.flatnonzero(order == 5)[0] % 20 :: 20]}
    kept = [i for i in range(37) if i not in out]
    other = FewShotClassifier(classifier._learner)
    other.fit(inputs[kept], [labels[i] for i in kept])
    np.testing.assert_allclose(p[5], other.predict_proba(inputs[5:6])[0], atol=1e-9)
    assert y[5] == classifier.classes_[p[5].argmax()]


def test_sets_of_labels_hold_the_true_one() -> None:
    x, y, _ = spread(noise=1.5)
    classifier = FewShotClassifier(Probe.build(TaskSpec("classes", (6,), 3)))
    sets = classifier.fit(x[::2], y[::2]).predict_sets(x[1::2], error=0.2)
    assert sets.shape == (18, 3)
    assert sets.dtype == bool
    assert sets.any(1).all()
    held = [
        label in classifier.classes_[row]
        for label, row in zip(y[1::2], sets, strict=True)
    ]
    assert np.mean(held) > 0.6
    with pytest.raises(InnerloopError, match="error"):
        classifier.predict_sets(x, error=-1)
