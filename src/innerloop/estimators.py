"""The scikit-learn face: `fit` is adapting to a new task, with any labels, any number
of classes and any number of examples of each.
"""

from __future__ import annotations

import inspect
import json
import warnings
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save
from torch import Tensor

from innerloop.core.learner import Learner, Streaming
from innerloop.core.likelihood import Categorical, Gaussian
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.learners import LEARNERS
from innerloop.learners.metric import ProtoNet
from innerloop.readers.image import Preprocess
from innerloop.readers.table import Columns
from innerloop.readers.text import Tokenizer
from innerloop.runs import RunError, load, reader, write_atomically


class _FewShot:
    """What classifier and regressor share: parameters, inputs, saving."""

    kind: ClassVar[str]

    def __init__(
        self, learner: Learner | Path | str | None = None, *, chunk: int = 512
    ):
        self.learner = learner
        self.chunk = chunk

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            name: getattr(self, name)
            for name in inspect.signature(type(self).__init__).parameters
            if name != "self"
        }

    def set_params(self, **params: Any) -> Self:
        """Change the constructor's arguments. Raises ValueError for one that does not
        exist.
        """
        for name, value in params.items():
            if name not in self.get_params():
                raise InnerloopError(
                    f"Invalid parameter {name!r} for estimator {self!r}: it has {', '.join(self.get_params())}"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}(learner={self.learner if isinstance(self.learner, str | Path | None) else type(self.learner).__name__})"

    def _resolve(self) -> Learner | None:
        """The learner given, or that of the run folder given. Raises ValueError for one
        of another kind.
        """
        if self.learner is None:
            return None
        learner = (
            self.learner.eval()
            if isinstance(self.learner, Learner)
            else load(self.learner)
        )
        if learner.spec is not None and learner.spec.kind != self.kind:
            what = f"this {type(learner).__name__} was built for {learner.spec.kind}"
            raise InnerloopError(
                f"{type(self).__name__} needs a learner of {self.kind}, but {what}"
            )
        return learner

    def _inputs(self, X: ArrayLike | Tensor, learner: Learner | None) -> Tensor:
        """Inputs for the learner as float32 (n, *x_shape): a missing channel axis is
        added, one at the end is moved, texts become tokens, and the rows of a table
        vectors.

        Images as bytes are scaled to 0..1; for a learner from a run they are first read
        as its training images were, whatever their size. Raises ValueError for inputs
        that are empty, not finite, or of another shape than the learner was built for.
        """
        shape = (
            learner.spec.x_shape
            if learner is not None and learner.spec is not None
            else None
        )
        if hasattr(X, "toarray"):
            raise InnerloopTypeError("sparse input is not supported: pass X.toarray()")
        if isinstance(
            read_as := getattr(learner, "read_as", None), Columns
        ) and not isinstance(X, Tensor | np.ndarray):
            rows = X.to_dict("records") if hasattr(X, "to_dict") else X  # pyright: ignore[reportAttributeAccessIssue]
            return read_as.read_all(rows)  # pyright: ignore[reportArgumentType]
        array = X.detach().cpu().numpy() if isinstance(X, Tensor) else np.asarray(X)
        if isinstance(read_as, Columns) and array.ndim == 2:
            if read_as.words or array.shape[1] != len(read_as.numbers):
                raise InnerloopError(
                    f"this learner reads a table: pass a data frame, or dicts, with {', '.join((*read_as.numbers, *read_as.words))}"
                )
            return read_as.read_all(
                [dict(zip(read_as.numbers, row, strict=True)) for row in array.tolist()]
            )
        if isinstance(read_as, Tokenizer) and array.ndim == 1:
            for place, entry in enumerate(array.tolist()):
                if not isinstance(entry, str) or not entry.strip():
                    raise InnerloopError(
                        f"X[{place}] is {entry!r}, and a text is needed"
                    )
        if (
            array.ndim == 1
            and len(array)
            and all(isinstance(entry, str) for entry in array)
        ):
            if not isinstance(read_as, Tokenizer):
                raise InnerloopError(
                    "X holds texts, which only a learner from a run on texts can read (tasks clinc, text)"
                )
            return read_as.read_all(array.tolist())
        if np.iscomplexobj(array):
            raise InnerloopError("Complex data not supported")
        if array.dtype == object:
            array = array.astype(np.float64)
        if array.ndim < 2:
            raise InnerloopError(
                f"Expected 2D array or images, got {array.ndim}D array instead. Reshape your data: one row, or one image, an example"
            )
        if array.shape[0] == 0 or 0 in array.shape[1:]:
            found = f"{array.shape[0]} sample(s) and {array.shape[1]} feature(s)"
            raise InnerloopError(
                f"Found array with {found} (shape={array.shape}) while a minimum of 1 is required."
            )
        bytes_of_images = (
            array.ndim in (3, 4)
            and array.dtype.kind in "bui"
            and array.min() >= 0
            and array.max() <= 255
        )
        if bytes_of_images and array.max() <= 1:  # black and white
            array = array.astype(np.uint8) * 255
        if bytes_of_images and isinstance(read_as, Preprocess):
            array = read_as.convert_all(array.astype(np.uint8)).numpy()
        if not np.isfinite(array).all():
            raise InnerloopError(
                "Input X contains NaN or infinity: fill or drop those examples first"
            )
        x = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) / (
            255.0 if bytes_of_images else 1.0
        )
        if (
            shape is not None
            and len(shape) == 3
            and float(x.max()) > 1.5
            and (getattr(learner, "read_as", None) or bool((x == x.round()).all()))
        ):
            raise InnerloopError(
                f"images are bytes 0..255 or reals 0..1, but these are {array.dtype} up to {array.max():.6g}: divide them, or use uint8"
            )
        if shape is None or tuple(x.shape[1:]) == shape:
            return x
        if len(shape) == 3 and x.dim() == 3 and shape[0] == 1:
            x = x[:, None]
        elif len(shape) == 3 and x.dim() == 4 and x.shape[3] == shape[0]:
            x = x.permute(0, 3, 1, 2)
        if tuple(x.shape[1:]) == shape:
            return x
        if len(shape) == 1 and x.dim() == 2:
            raise InnerloopError(
                f"X has {x.shape[1]} features, but {type(self).__name__} is expecting {shape[0]} features as input"
            )
        raise InnerloopError(
            f"X has inputs of shape {tuple(array.shape[1:])}, but this learner takes {shape}: resize or convert them first"
        )

    def _check_fitted(self) -> None:
        if not hasattr(self, "state_"):
            raise _sklearn("NotFittedError", ValueError)(
                f"This {type(self).__name__} instance is not fitted yet: call fit(X, y) first"
            )

    def _adapt(self, learner: Learner, x: Tensor, y: Tensor) -> None:
        """Learn the support set, and keep it for saving."""
        self._learner = learner
        like = next(learner.parameters(), torch.empty(0))
        self._support = Examples(x, y)
        if (
            self.kind == "reals"
            and learner.spec is not None
            and y.shape[1] != learner.spec.y_dim
        ):
            raise InnerloopError(
                f"this {type(learner).__name__} was built for {learner.spec.y_dim} targets an example and got {y.shape[1]}"
            )
        if (
            self.kind == "classes"
            and learner.spec is not None
            and not learner.any_ways(vars(learner))
        ):
            room = learner.spec.y_dim - y.shape[1]
            if room < 0:
                raise InnerloopError(
                    f"this {type(learner).__name__} was built for {learner.spec.y_dim} classes and got {y.shape[1]}: meta-train it with "
                    f"--ways {y.shape[1]}, or a MAML with --head prototype, or a metric learner such as ProtoNet, for any number of classes"
                )
            y = F.pad(y, (0, room))
        with torch.no_grad():
            order = torch.arange(len(x))
            # which has learned from examples in random order
            if isinstance(learner, Streaming):
                order = torch.randperm(
                    len(x), generator=torch.Generator().manual_seed(0)
                )
            self.state_ = learner.adapt(Examples(x[order].to(like), y[order].to(like)))

    def _outputs(self, X: ArrayLike | Tensor) -> Tensor:
        self._check_fitted()
        x = self._inputs(X, self._learner)
        if tuple(x.shape[1:]) != tuple(self._support.x.shape[1:]):
            raise InnerloopError(
                f"X has {x.shape[1]} features, but {type(self).__name__} is expecting {self._support.x.shape[1]} features as input"
            )
        like = next(self._learner.parameters(), torch.empty(0))
        parts = (
            x.split(self.chunk)
            if not getattr(self._learner, "transductive", False)
            else [x]
        )
        with torch.no_grad():
            return torch.cat(
                [
                    self._learner.predict(self.state_, part.to(like)).cpu()
                    for part in parts
                ]
            )

    def save(self, folder: Path | str) -> None:
        """Keep the learner and what it was fitted to in a folder. Raises ValueError for
        a learner that was not made by `build`.
        """
        self._check_fitted()
        learner, folder = self._learner, Path(folder)
        if learner.spec is None or not all(
            isinstance(v, bool | int | float | str) for v in learner.given.values()
        ):
            raise InnerloopError(
                "only learners made by build(spec, ...), with networks by name, can be saved as an estimator"
            )
        if learner.likelihood != (
            Categorical()
            if self.kind == "classes"
            else learner.regression_defaults.get("likelihood", Gaussian())
        ):
            raise InnerloopError(
                f"an estimator with the likelihood {learner.likelihood} cannot be saved"
            )
        read_as = getattr(learner, "read_as", None)
        folder.mkdir(parents=True, exist_ok=True)
        told = {
            "estimator": type(self).__name__,
            "learner": type(learner).__name__.lower(),
            "fields": learner.given,
            "spec": asdict(learner.spec),
            "read_as": read_as.settings() if read_as else None,
            "classes": self._classes_as_json(),
        }
        try:
            text = json.dumps(told, indent=2)
        except TypeError as error:
            raise InnerloopError(
                f"labels that are neither strings nor numbers cannot be saved: {error}"
            ) from error
        tensors = {
            f"learner.{name}": t.detach().cpu().contiguous()
            for name, t in learner.state_dict().items()
        }
        tensors |= {
            "support.x": self._support.x.contiguous(),
            "support.y": self._support.y.contiguous(),
        }
        write_atomically(folder / "estimator.safetensors", save(tensors))
        write_atomically(folder / "estimator.json", text.encode() + b"\n")

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """A saved estimator, fitted as it was. Raises RunError where the folder holds
        none.
        """
        folder = Path(folder)
        try:
            told = json.loads((folder / "estimator.json").read_text())
            tensors = load_file(folder / "estimator.safetensors")
            if told["estimator"] != cls.__name__:
                raise InnerloopError(f"it holds a {told['estimator']}")
            spec = TaskSpec(**told["spec"])
            learner = LEARNERS[told["learner"]].build(spec, **told["fields"])
            learner.read_as = reader(told["read_as"])  # pyright: ignore[reportArgumentType]
            learner.load_state_dict(
                {
                    name.removeprefix("learner."): t
                    for name, t in tensors.items()
                    if name.startswith("learner.")
                }
            )
        except Exception as error:
            raise RunError(
                f"{folder} holds no saved {cls.__name__}: {error}"
            ) from error
        self = cls(learner)
        self._restore(told["classes"], tensors["support.x"], tensors["support.y"])
        return self

    def _classes_as_json(self) -> Any:
        return None

    def _restore(self, classes: Any, x: Tensor, y: Tensor) -> None:
        self.n_features_in_ = int(x.shape[1])
        learner = self._resolve()
        assert learner is not None
        self._adapt(learner, x, y)


class FewShotClassifier(_FewShot):
    """A classifier that learns new classes from a few examples each.

    learner: a meta-trained learner, a run folder, or None for nearest class means of
    the inputs as they are.
    chunk: how many inputs are predicted at once.
    After `fit`: `classes_`, the labels in order (n_classes,); `state_`, what the
    learner made of the examples.
    """

    kind = "classes"
    _estimator_type = "classifier"

    def fit(self, X: ArrayLike | Tensor, y: ArrayLike | Tensor) -> Self:
        """Learn from X (n, *x_shape), a list of n texts, or the n rows of a table as
        dicts or a data frame, and labels y (n,) of any type.

        Raises ValueError for fewer than two classes, or inputs that do not fit the
        learner.
        """
        learner = self._resolve()
        x = self._inputs(X, learner)
        if y is None:
            raise InnerloopError("requires y to be passed, but the target y is None")
        labels = _array(y)
        if labels.ndim == 2 and labels.shape[1] == 1:
            warnings.warn(
                "A column-vector y was passed when a 1d array was expected",
                _sklearn("DataConversionWarning", UserWarning),
                stacklevel=2,
            )
            labels = labels[:, 0]
        if labels.ndim != 1 or len(labels) != len(x):
            raise InnerloopError(
                f"y needs one label for each of the {len(x)} examples, got an array of shape {labels.shape}"
            )
        if labels.dtype.kind == "f":
            if not np.isfinite(labels).all():
                raise InnerloopError("Input y contains NaN or infinity")
            if (labels != np.round(labels)).any():
                raise InnerloopError(
                    "Unknown label type: continuous. A classifier needs classes, for numbers use FewShotRegressor"
                )
        try:
            classes, numbers = np.unique(labels, return_inverse=True)
        except TypeError as error:
            raise InnerloopError(
                f"labels of one kind are needed, all strings or all numbers: {error}"
            ) from error
        if len(classes) < 2:
            raise InnerloopError(
                f"a classifier needs at least two classes, but all labels are one class, {classes[0]!r}"
            )
        self.classes_, self.n_features_in_ = classes, int(x.shape[1])
        if learner is None:
            learner = ProtoNet.build(
                TaskSpec("classes", tuple(x.shape[1:]), 2), encoder="flatten", scale=1.0
            ).double()  # or rounding depends on the batch
        self._adapt(
            learner, x, F.one_hot(torch.from_numpy(numbers), len(classes)).float()
        )
        return self

    def predict_proba(self, X: ArrayLike | Tensor) -> NDArray[np.float64]:
        """Probabilities (m, n_classes), columns in the order of `classes_`."""
        outputs = self._outputs(X).double()[:, : len(self.classes_)]
        return self._learner.likelihood.mean(outputs).numpy()

    def predict(self, X: ArrayLike | Tensor) -> NDArray[Any]:
        """Labels (m,)."""
        outputs = self._outputs(X)
        return self.classes_[outputs[:, : len(self.classes_)].argmax(-1).numpy()]

    def score(self, X: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
        """The accuracy on labelled examples."""
        return float(np.mean(self.predict(X) == _array(y).reshape(-1)))

    def _classes_as_json(self) -> Any:
        return {"dtype": self.classes_.dtype.str, "values": self.classes_.tolist()}

    def _restore(self, classes: Any, x: Tensor, y: Tensor) -> None:
        self.classes_ = np.array(classes["values"], dtype=classes["dtype"])
        super()._restore(classes, x, y)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            "classifier",
            TargetTags(required=True),
            None,
            ClassifierTags(multi_label=False),
            input_tags=InputTags(three_d_array=True),
        )


class FewShotRegressor(_FewShot):
    """A regressor that learns a new function from a few points.

    learner: a meta-trained learner of reals, or a run folder. chunk: how many inputs
    are predicted at once.
    """

    kind = "reals"
    _estimator_type = "regressor"

    def fit(self, X: ArrayLike | Tensor, y: ArrayLike | Tensor) -> Self:
        """Learn from X (n, *x_shape) and targets y (n,) or (n, y_dim). Raises
        ValueError for shapes that do not fit, or NaN.
        """
        learner = self._resolve()
        if learner is None:
            raise InnerloopError(
                "FewShotRegressor needs a learner: a run folder, or a learner such as MAML.build(spec)"
            )
        x = self._inputs(X, learner)
        targets = torch.from_numpy(_array(y).astype(np.float32))
        self._flat = targets.dim() == 1
        targets = targets[:, None] if self._flat else targets
        if (
            targets.dim() != 2
            or len(targets) != len(x)
            or not torch.isfinite(targets).all()
        ):
            raise InnerloopError(
                f"y needs one finite target for each of the {len(x)} examples, got shape {tuple(targets.shape)}"
            )
        self.n_features_in_ = int(x.shape[1])
        self._adapt(learner, x, targets)
        return self

    def predict(self, X: ArrayLike | Tensor) -> NDArray[np.float64]:
        """Predicted means (m,) or (m, y_dim), as y was given."""
        outputs = self._outputs(X)
        means = self._learner.likelihood.mean(outputs).double().numpy()
        return means[:, 0] if self._flat else means

    def score(self, X: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
        """The coefficient of determination R^2."""
        truth, found = _array(y).astype(np.float64), self.predict(X)
        truth, found = truth.reshape(len(truth), -1), found.reshape(len(found), -1)
        if truth.shape != found.shape:
            raise InnerloopError(
                f"y has shape {truth.shape}, the predictions have {found.shape}"
            )
        return float(
            1 - ((truth - found) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum()
        )

    def _classes_as_json(self) -> Any:
        return {"flat": self._flat}

    def _restore(self, classes: Any, x: Tensor, y: Tensor) -> None:
        self._flat = classes["flat"]
        super()._restore(classes, x, y)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            "regressor",
            TargetTags(required=True),
            None,
            None,
            RegressorTags(),
            input_tags=InputTags(three_d_array=True),
        )


def _array(y: ArrayLike | Tensor) -> NDArray[Any]:
    return y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)


def _sklearn(name: str, otherwise: type[Any]) -> type[Any]:
    """scikit-learn's own exception or warning where it is installed."""
    try:
        return getattr(import_module("sklearn.exceptions"), name)
    except ImportError:
        return otherwise
