"""Few-shot learners as scikit-learn estimators: `fit` adapts a meta-trained learner to
a new task, with any labels and any numbers of classes and examples.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Kind, TaskSpec
from innerloop.engine.errors import (
    DivergenceError,
    InnerloopError,
    InnerloopFileError,
    InnerloopTypeError,
)
from innerloop.engine.options import Count, Fraction, checked
from innerloop.evaluation.held_out import (
    held_out,
    prediction_sets,
    rejection_threshold,
)
from innerloop.experiment import Choice, load, make_reader
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.learners.transfer.probe import Probe
from innerloop.readers.base import Inputs, Reader
from innerloop.readers.detect import kind_in_memory
from innerloop.readers.encoded import encoded_reader, usual_reader
from innerloop.ready import table_learner, table_network, table_reader
from innerloop.registry import find
from innerloop.runs import RunError, digest, write_atomically

FILE = "estimator.safetensors"


class _FewShot:
    """What the classifier and the regressor share: parameters, inputs, saving.

    The learner that is passed in is never changed: it keeps its mode. Estimators share
    its weights with it and with each other. Predictions may run in several threads.
    """

    kind: ClassVar[Kind]
    _choosing: ClassVar[tuple[str, ...]] = ("learner",)  # the parameters that choose it
    state_: Any
    n_features_in_: int
    _learner: Learner
    _reader: Any
    _support: Examples
    _built_in: bool  # whether the learner is the nearest class mean

    def __init__(
        self, learner: Learner | Path | str | None = None, *, chunk: Count = 512
    ):
        self.learner = learner
        self.chunk = chunk

    def _suiting(self, X: Any) -> Learner | None:
        """The learner to use where none was passed: for tables, one that is part of the
        package; None where there is none.
        """
        return table_learner(X, self.kind)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor."""
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Self:
        """Change arguments of the constructor.

        Raises InnerloopError for an unknown name.
        """
        known = self.get_params()
        for name in params:
            if name not in known:
                raise InnerloopError(
                    f"Invalid parameter {name!r} for estimator {self!r}: valid "
                    f"parameters are {', '.join(known)}"
                )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        shown = {name: repr(value) for name, value in self.get_params().items()}
        if self._shared:
            shown["learner"] = type(self.learner).__name__
        arguments = ", ".join(f"{name}={value}" for name, value in shown.items())
        return f"{type(self).__name__}({arguments})"

    @property
    def _shared(self) -> bool:
        """Whether the learner was passed in and may be in use elsewhere."""
        return isinstance(self.learner, Learner)

    def _resolve(self, X: Any = None) -> Learner | None:
        """The learner for inputs X in evaluation mode, None where there is none.

        Raises InnerloopError for one that cannot be used here.
        """
        checked(type(self).__init__, {"chunk": self.chunk}, type(self).__name__)
        if self.learner is None:
            return self._suiting(X)
        if self._shared:
            learner = _in_evaluation_mode(self.learner)  # pyright: ignore[reportArgumentType]
        else:
            try:
                folder = Path(self.learner)  # pyright: ignore[reportArgumentType]
            except TypeError as error:
                raise InnerloopTypeError(
                    f"learner must be a learner, a run folder or None; got "
                    f"{type(self.learner).__name__}"
                ) from error
            learner = load(folder)
        name = type(learner).__name__
        kinds = learner.kinds if learner.spec is None else (learner.spec.kind,)
        if self.kind not in kinds:
            raise InnerloopError(
                f"{type(self).__name__} needs a learner of {self.kind}; got a {name} "
                f"of {' and '.join(kinds)}"
            )
        return learner

    def _inputs(
        self, X: Any, reader: Any, like: Tensor, shape: tuple[int, ...] | None
    ) -> Tensor:
        """Inputs (n, *shape) in the dtype of `like`; any shape where it is None.

        Raises InnerloopError for inputs that are empty, not finite or of another shape.
        """
        x = X.x if isinstance(X, Inputs) else reader.convert(X)
        if 0 in x.shape:
            raise InnerloopError(
                f"Found array with {len(x)} sample(s) and {x.shape[1]} feature(s) "
                f"(shape={tuple(x.shape)}) while a minimum of 1 is required."
            )
        if shape is None or tuple(x.shape[1:]) == shape:
            return _finite(x, like.dtype, "X")
        if len(shape) == 1 and x.dim() == 2:
            raise InnerloopError(
                f"X has {x.shape[1]} features, but {type(self).__name__} is expecting "
                f"{shape[0]} features as input"
            )
        raise InnerloopError(
            f"X has the shape {tuple(x.shape)}; expected (n, "
            f"{', '.join(map(str, shape))}): resize or convert the inputs; a single "
            "input is a batch of one"
        )

    def _adapt(
        self, learner: Learner | None, reader: Any, x: Tensor, y: Tensor, **fitted: Any
    ) -> None:
        """Adapt to the support set; nothing is assigned before all has succeeded."""
        built_in = learner is None
        learner = learner or _nearest_class_mean(x)
        like, name = _like(learner), type(learner).__name__
        support = Examples(x, y)
        room = learner.spec.y_dim - y.shape[1] if learner.spec is not None else 0
        if self.kind == "reals" and room and not learner.any_columns:
            raise InnerloopError(
                f"this {name} was built for {y.shape[1] + room} targets per example; "
                f"got {y.shape[1]}"
            )
        if self.kind == "classes" and learner.fixed_ways:
            if room < 0:
                raise InnerloopError(
                    f"this {name} was built for {y.shape[1] + room} classes; got "
                    f"{y.shape[1]}: meta-train it with --ways {y.shape[1]}, or use a "
                    "learner for any number of classes, such as ProtoNet, or MAML with "
                    "--head prototype"
                )
            y = F.pad(y, (0, room))
        # learners that read examples one by one were trained on a random order
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(x), generator=generator, device="cpu")
        try:
            state = learner.adapt(Examples(x[order].to(like), y[order].to(like)))
        except RuntimeError as error:
            if learner.spec is not None:
                raise
            # only a learner that was built for a spec says what its inputs are
            raise InnerloopError(
                f"{name} cannot read inputs of shape {tuple(x.shape)}: "
                f"{_first_line(error)}. Images are (n, channels, height, width); "
                f"{name}.build(spec, ...) takes other layouts too"
            ) from error
        self.state_, self.n_features_in_ = state, int(x.shape[1])
        self._built_in = built_in
        self._learner, self._reader, self._support = learner, reader, support
        for attribute, value in fitted.items():
            setattr(self, attribute, value)

    def _check_fitted(self) -> None:
        if not hasattr(self, "state_"):
            raise _sklearn("NotFittedError", InnerloopError)(
                f"This {type(self).__name__} instance is not fitted yet: call "
                "fit(X, y) first"
            )

    def _outputs(self, X: Any) -> Tensor:
        """The learner's outputs (n, out_dim), in double precision."""
        self._check_fitted()
        return self._by_chunks(partial(self._learner.predict, self.state_), X).double()

    def _by_chunks(self, function: Callable[[Tensor], Tensor], X: Any) -> Tensor:
        """`function` of the inputs (n, *x_shape), chunk by chunk."""
        checked(type(self).__init__, {"chunk": self.chunk}, type(self).__name__)
        like = _like(self._learner)
        x = self._inputs(X, self._reader, like, tuple(self._support.x.shape[1:]))
        parts = x.split(len(x) if self._learner.transductive else self.chunk)
        return torch.cat([function(part.to(like)).cpu() for part in parts])

    def _check_predictions(self, values: Tensor) -> NDArray[np.float64]:
        """Raises DivergenceError for predictions that are not finite."""
        bad = int((~torch.isfinite(values)).any(-1).sum())
        if bad:
            raise DivergenceError(
                f"{bad} of {len(values)} predictions of {type(self._learner).__name__} "
                "are not finite: scale X to the range of the training tasks, lower "
                "inner_lr, or train again if its weights diverged"
            )
        return values.numpy()

    def save(self, folder: Path | str) -> None:
        """Save the fitted estimator in a folder, with its learner and support set.

        Raises InnerloopError, and writes nothing, for what `load` could not restore.
        """
        self._check_fitted()
        name = type(self).__name__
        if self._learner.spec is None:
            raise InnerloopError(
                f"this {name} cannot be saved: build its learner by build(spec, ...), "
                "with networks chosen by name, or by FILE.py:NAME"
            )
        try:
            text, tensors = self._content()
        except TypeError as error:
            raise InnerloopError(
                f"this {name} cannot be saved ({error}): labels must be texts or "
                "numbers, and the networks of the learner be chosen by name, or by "
                "FILE.py:NAME, a function of yours from a TaskSpec to the network"
            ) from error
        try:
            other_text, other = self._restore(json.loads(text), tensors)._content()
        except Exception as error:  # a learner of a user may raise anything
            raise InnerloopError(
                f"this {name} cannot be saved, since it could not be loaded: "
                f"{_first_line(error)}"
            ) from error
        before, after = json.loads(text), json.loads(other_text)
        changed = [key for key in before if after[key] != before[key]]
        changed += [] if digest(other) == digest(tensors) else ["weights"]
        if changed:
            raise InnerloopError(
                f"this {name} cannot be saved, since loading would change its "
                f"{', '.join(changed)}"
            )
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InnerloopFileError(
                f"cannot create the folder {folder}: {error.strerror}"
            ) from error
        metadata = {"estimator": text, "sha256": _checksum(text, tensors)}
        write_atomically(folder / FILE, save(tensors, metadata))

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """A saved estimator, fitted as it was.

        Raises RunError where the folder holds none, or a damaged one.
        """
        file = Path(folder) / FILE
        try:
            if not file.is_file():
                raise InnerloopFileError(f"there is no file {file}")
            with safe_open(file, "pt") as opened:
                metadata = opened.metadata()
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            text = metadata["estimator"]
            if metadata["sha256"] != _checksum(text, tensors):
                raise InnerloopError(f"{file} is damaged")
            content = json.loads(text)
            if content["estimator"] != cls.__name__:
                raise InnerloopError(f"it holds a {content['estimator']}")
            return cls._restore(content, tensors)
        except Exception as error:  # of damaged files: of any type
            raise RunError(
                f"{folder} holds no saved {cls.__name__}: {_first_line(error)}"
            ) from error

    def _content(self) -> tuple[str, dict[str, Tensor]]:
        """What is saved: plain data as JSON, and tensors by name."""
        learner, reader = self._learner, self._reader
        content = {
            "estimator": type(self).__name__,
            "parameters": {
                name: value
                for name, value in self.get_params().items()
                if name not in self._choosing
            },
            "learner": None,
            "targets": self._saved_targets(),
        }
        tensors = {"support.x": self._support.x, "support.y": self._support.y}
        if not self._built_in:
            assert learner.spec is not None
            content["learner"] = type(learner).__name__.lower()
            fields = set(learner.options()) - set(learner.network_fields())
            now = {name: getattr(learner, name) for name in sorted(fields)}
            content["options"] = {**learner.build_args, **now}
            content["spec"] = asdict(learner.spec)
            likelihood = type(learner.likelihood).__name__.lower()
            content["likelihood"] = likelihood, vars(learner.likelihood)
            weights = learner.state_dict()
            tensors |= {f"learner.{name}": t for name, t in weights.items()}
        if learner.reader is None:
            content["columns"] = reader.columns
        else:
            content["reader"] = {"name": reader.kind, "options": reader.settings()}
        return json.dumps(content), {
            name: t.detach().cpu().contiguous() for name, t in tensors.items()
        }

    @classmethod
    def _restore(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        learner = None
        if content["learner"] is not None:
            factory = find("learner", content["learner"]).factory
            name, fields = content["likelihood"]
            likelihood = find("likelihood", name).factory(**fields)
            spec, options = TaskSpec(**content["spec"]), content["options"]
            learner = factory.build(spec, **options, likelihood=likelihood)
            weights = {
                name.removeprefix("learner."): t
                for name, t in tensors.items()
                if name.startswith("learner.")
            }
            learner.load_state_dict(weights, assign=True)
            if "reader" in content:
                learner.reader = make_reader(Choice(**content["reader"]))
        # files of earlier versions hold nothing but the chunk
        saved = content.get("parameters") or {"chunk": content["chunk"]}
        self = cls(learner, **saved)
        support = Examples(tensors["support.x"], tensors["support.y"])
        with _evaluating():
            learner = self._resolve()
            reader = _reader(learner, content.get("columns"))
            self._adapt(
                learner, reader, *support, **self._fitted_targets(content["targets"])
            )
        return self

    def _saved_targets(self) -> Any:
        """What is saved of the targets."""
        raise NotImplementedError

    def _fitted_targets(self, saved: Any) -> dict[str, Any]:
        """The fitted attributes that `_saved_targets` describes."""
        raise NotImplementedError


class FewShotClassifier(_FewShot):
    """A classifier that learns new classes from a few examples of each.

    A fitted estimator shares the weights of the learner that was passed in. Do not
    train that learner further while the estimator is in use: predictions would change,
    and `state_` would no longer match the weights. A learner that was loaded from a run
    folder is not shared.

    Args:
        learner: a meta-trained learner, a run folder, or None: for images and texts
            `Probe` on the vectors of a pretrained encoder, which needs no training; for
            tables, arrays (n, features) of numbers and data frames, the `PFN` of the
            installation where there is one (see `innerloop.ready`). Else, for larger
            tables and for other arrays, the nearest class mean, and `Probe` for data
            frames with words or gaps.
        chunk: number of inputs that are predicted at once.
        encoder: where `learner` is None, the pretrained encoder of images or texts, see
            `innerloop list encoders`; by default those that are installed. Images are
            lists of paths or Pillow images, and bytes (n, height, width, 3); texts are
            lists, arrays or data frame columns of texts.
        reject: share of examples of the classes that may be rejected wrongly: `predict`
            returns None for inputs that are too unlike all classes. It needs two
            examples of a class. None rejects nothing.

    Attributes after `fit`: `classes_`, the sorted labels (n_classes,); `state_`, the
    learner's state; `threshold_`, the novelty above which an input is rejected.
    """

    kind = "classes"
    _choosing = ("learner", "encoder")
    classes_: NDArray[Any]
    threshold_: float
    _estimator_type = "classifier"

    def __init__(
        self,
        learner: Learner | Path | str | None = None,
        *,
        chunk: Count = 512,
        encoder: str | None = None,
        reject: Fraction | None = None,
    ):
        super().__init__(learner, chunk=chunk)
        self.encoder = encoder
        self.reject = reject

    def _suiting(self, X: Any) -> Learner | None:
        if self.encoder is not None:
            return untrained(encoded_reader(self.encoder))
        what = kind_in_memory(X)
        if what is not None:
            return untrained(usual_reader(what))
        reader = table_reader(X)
        return super()._suiting(X) if reader is None else untrained(reader, len(X))

    def _resolve(self, X: Any = None) -> Learner | None:
        if self.learner is not None and self.encoder is not None:
            raise InnerloopError(
                f"the learner has its own encoder: leave out encoder={self.encoder!r}, "
                "or the learner"
            )
        return super()._resolve(X)

    def fit(self, X: Any, y: ArrayLike | Tensor) -> Self:
        """Adapt to labeled examples.

        X: arrays, tensors or data frames (n, *x_shape); for a learner from a run also
        what its reader takes, such as images of any size, texts or rows of a table; or
        the `Inputs` that the reader returned. y: labels (n,), texts or numbers.

        Raises InnerloopError for fewer than two classes, or inputs that do not fit the
        learner; the estimator is then as it was.
        """
        with _evaluating():
            learner = self._resolve(X)
            reader = _reader(learner, _column_names(X))
            x = self._inputs(X, reader, _like(learner), _shape(learner))
            labels = _labels(y, len(x))
            if np.ndim(_array(y, "y")) == 2:
                warnings.warn(
                    "A column-vector y was passed when a 1d array was expected",
                    _sklearn("DataConversionWarning", UserWarning),
                    stacklevel=2,
                )
            classes, places = np.unique(labels, return_inverse=True)
            if len(classes) < 2:
                raise InnerloopError(
                    "y must hold at least two classes; got one class, "
                    f"{classes.tolist()[0]!r}"
                )
            targets = F.one_hot(torch.from_numpy(places), len(classes)).float()
            if self.reject is not None and targets.sum(0).max() < 2:
                raise InnerloopError(
                    "reject needs at least two examples of a class; got one of each"
                )
            self._adapt(learner, reader, x, targets, classes_=classes)
        return self

    def _adapt(
        self, learner: Learner | None, reader: Any, x: Tensor, y: Tensor, **fitted: Any
    ) -> None:
        name = type(self).__name__
        checked(type(self).__init__, {"reject": self.reject}, name)
        super()._adapt(learner, reader, x, y, **fitted)
        self.threshold_ = float("inf")
        if self.reject is not None:
            support = self._examples()
            threshold = rejection_threshold(self._learner, support, rate=self.reject)
            self.threshold_ = float(threshold)

    def _examples(self) -> Examples:
        """The support set as the learner reads it."""
        (x, y), like = self._support, _like(self._learner)
        spec = self._learner.spec
        room = spec.y_dim - y.shape[1] if spec and self._learner.fixed_ways else 0
        return Examples(x.to(like), F.pad(y, (0, room)).to(like))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities (m, n_classes), columns in the order of `classes_`."""
        with _evaluating():
            outputs = self._outputs(X)
            outputs = outputs[:, : len(self.classes_)]
            return self._check_predictions(self._learner.likelihood.mean(outputs))

    def predict(self, X: Any) -> NDArray[Any]:
        """Labels (m,); with `reject` an array of objects, in which None stands for none
        of the classes.
        """
        probabilities = self.predict_proba(X)
        labels = self.classes_[probabilities.argmax(-1)]
        if self.reject is None:
            return labels
        labels = labels.astype(object)
        labels[self.novelty(X) > self.threshold_] = None
        return labels

    def predict_sets(self, X: Any, error: Fraction = 0.1) -> NDArray[np.bool_]:
        """Which labels (m, n_classes) may be the true one, in the order of `classes_`:
        `classes_[row]` holds it for about a share of 1 - `error` of new examples that
        are distributed as those of `fit`. With few examples, all labels may.

        By cross-validation+, see `innerloop.evaluation.held_out.prediction_sets`.
        """
        self._check_fitted()
        with _evaluating():
            predictor = partial(
                prediction_sets, self._learner, self._examples(), error=error
            )
            return self._by_chunks(predictor, X)[:, : len(self.classes_)].numpy()

    def held_out_proba(self) -> NDArray[np.float64]:
        """The probabilities of the classes (n, n_classes) for every example of `fit`,
        by the learner adapted without it; NaN for the only example of a class. An
        example whose own label has a small probability may be mislabeled.

        With more than 20 examples, 20 parts are left out in turn. Northcutt, Jiang and
        Chuang 2021, "Confident learning: estimating uncertainty in dataset labels",
        arXiv:1911.00068, section 3, find wrong labels in such probabilities.
        """
        self._check_fitted()
        with _evaluating():
            found = held_out(self._learner, self._examples())
            outputs = found.outputs[:, : len(self.classes_)].double()
            values = self._learner.likelihood.mean(outputs).cpu()
            p = self._check_predictions(values)
            p[~found.known.cpu().numpy()] = np.nan
            return p[found.order.argsort().cpu().numpy()]

    def novelty(self, X: Any) -> NDArray[np.float64]:
        """How unlike all classes the inputs are (m,); larger values are more unlike."""
        self._check_fitted()
        with _evaluating():
            values = self._by_chunks(partial(self._learner.novelty, self.state_), X)
            return self._check_predictions(values.double()[:, None])[:, 0]

    def score(self, X: Any, y: ArrayLike | Tensor) -> float:
        """The accuracy on labeled examples."""
        predictions = self.predict(X)
        return float(np.mean(predictions == _labels(y, len(predictions))))

    def _saved_targets(self) -> Any:
        values = self.classes_.tolist()
        return {
            "dtype": self.classes_.dtype.str,
            "types": sorted({type(value).__name__ for value in values}),
            "values": values,
        }

    def _fitted_targets(self, saved: Any) -> dict[str, Any]:
        classes = np.empty(len(saved["values"]), dtype=saved["dtype"])
        classes[:] = saved["values"]
        return {"classes_": classes}

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

    A fitted estimator shares the weights of the learner that was passed in. Do not
    train that learner further while the estimator is in use: predictions would change,
    and `state_` would no longer match the weights. A learner that was loaded from a run
    folder is not shared.

    Args:
        learner: a meta-trained learner of reals, a run folder, or None: for tables the
            `PFN` of the installation where there is one (see `innerloop.ready`), for
            standardized targets.
        chunk: number of inputs that are predicted at once.

    Attributes after `fit`: `state_`, the learner's state.
    """

    kind = "reals"
    _flat: bool  # whether y had the shape (n,)
    # what the learner's targets are multiplied by, and then what is added
    _scaling: tuple[NDArray[np.float64], NDArray[np.float64]]
    _estimator_type = "regressor"

    def fit(self, X: Any, y: ArrayLike | Tensor) -> Self:
        """Adapt to examples X (n, *x_shape) with targets y (n,) or (n, y_dim).

        Raises InnerloopError for shapes that do not fit the learner, or values that are
        not finite; the estimator is then as it was.
        """
        with _evaluating():
            learner = self._resolve(X)
            if learner is None:
                raise InnerloopError(
                    "FewShotRegressor needs a learner: a run folder, or a learner such "
                    "as MAML.build(spec)"
                )
            reader, like = _reader(learner, _column_names(X)), _like(learner)
            x = self._inputs(X, reader, like, _shape(learner))
            values = _targets(y, len(x))
            flat = values.ndim == 1
            values = values.reshape(len(values), -1)
            ones = np.ones(values.shape[1])
            scaling = reader.deviation * ones, reader.center * ones
            if self.learner is None:
                deviation = values.std(0)
                scaling = np.where(deviation > 0, deviation, 1.0), values.mean(0)
            targets = torch.from_numpy((values - scaling[1]) / scaling[0])
            targets = _finite(targets, like.dtype, "y")
            self._adapt(learner, reader, x, targets, _flat=flat, _scaling=scaling)
        return self

    def predict(
        self, X: Any, return_std: bool = False
    ) -> NDArray[np.float64] | tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predicted means (m,) or (m, y_dim), as y was in `fit`; with `return_std` also
        their standard deviations, of the same shape.

        Raises InnerloopTypeError for `return_std` with a learner that predicts none.
        """
        with _evaluating():
            outputs = self._outputs(X)
            likelihood = self._learner.likelihood
            moments = [likelihood.mean(outputs)]
            if return_std:
                std = likelihood.std(outputs)
                if std is None:
                    raise InnerloopTypeError(
                        f"{type(self._learner).__name__} predicts no standard "
                        "deviation: use CNP, NP, ANP or DKT, or build a learner with "
                        "likelihood=Gaussian(learned_scale=True)"
                    )
                moments.append(std)
            mean, *std = (self._check_predictions(values) for values in moments)
        scale, offset = self._scaling
        mean, std = scale * mean + offset, [scale * values for values in std]
        if self._flat:
            mean, std = mean[:, 0], [values[:, 0] for values in std]
        return (mean, std[0]) if return_std else mean

    def score(self, X: Any, y: ArrayLike | Tensor) -> float:
        """The coefficient of determination R^2, averaged over the targets."""
        predictions = self.predict(X)
        predictions = np.reshape(predictions, (len(predictions), -1))
        truth = _targets(y, len(predictions)).reshape(len(predictions), -1)
        if truth.shape != predictions.shape:
            raise InnerloopError(
                f"y must have {predictions.shape[1]} targets per example; got "
                f"{truth.shape[1]}"
            )
        residual = np.square(truth - predictions).sum(0)
        total = np.square(truth - truth.mean(0)).sum(0)
        # as in scikit-learn: for constant targets, 1 where they are met and else 0
        unexplained = np.where(
            total > 0, residual / np.where(total > 0, total, 1), residual > 0
        )
        return float(1 - unexplained.mean())

    def _saved_targets(self) -> Any:
        scaling = [part.tolist() for part in self._scaling]
        return {"flat": self._flat, "scaling": scaling}

    def _fitted_targets(self, saved: Any) -> dict[str, Any]:
        # files of earlier versions hold no scaling
        scale, offset = map(np.array, saved.get("scaling", (1.0, 0.0)))
        return {"_flat": saved["flat"], "_scaling": (scale, offset)}

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


def untrained(reader: Reader, rows: int = 0, transductive: bool = False) -> Learner:
    """A classifier of what a reader reads that needs no training: for a table of so
    many labeled `rows` the `PFN` of the installation, where it suits, else `Probe` on
    the reader's vectors; `transductive`: all inputs that are labeled together refine
    the classes.
    """
    shape = reader.x_shape
    assert shape is not None
    if reader.tabular and not transductive:
        network = table_network("classes", rows, shape[0], reader)
        if network is not None:
            return network
    learner = Probe.build(
        TaskSpec("classes", shape, 2), head=reader.head, transductive=transductive
    )
    learner.reader = reader
    return learner


@dataclass(frozen=True)
class _ArrayReader:
    """Converts numeric arrays, for learners without a reader of raw inputs.

    Args:
        shape: shape of one input, or None for any.
        vocabulary: number of tokens where inputs are rows of token numbers.
        columns: the columns of the data frame that was passed to `fit`, in order.
    """

    shape: tuple[int, ...] | None = None
    vocabulary: int = 0
    columns: tuple[str, ...] | None = None
    center: ClassVar[float] = Reader.center
    deviation: ClassVar[float] = Reader.deviation

    def convert(self, X: Any) -> Tensor:
        """Inputs (n, *shape). Images may lack the channel axis or have it last; images
        of integers are scaled to 0..1.
        """
        x = self._scaled(_array(self._selected(X), "X"))
        shape = self.shape
        if shape is None or tuple(x.shape[1:]) == shape:
            return x
        if len(shape) == 3 and shape[0] == 1 and tuple(x.shape[1:]) == shape[1:]:
            return x[:, None]
        if len(shape) == 3 and tuple(x.shape[1:]) == (*shape[1:], shape[0]):
            return x.permute(0, 3, 1, 2).contiguous()
        return x

    def _selected(self, X: Any) -> Any:
        """The columns of a data frame in the order that they had in `fit`."""
        names = _column_names(X)
        if names is None or self.columns is None:
            return X
        missing = [name for name in self.columns if name not in names]
        if missing:
            raise InnerloopError(
                f"X lacks columns that it had in fit: {', '.join(missing)}"
            )
        return X[list(self.columns)]

    def _scaled(self, array: NDArray[Any]) -> Tensor:
        if array.dtype == object and not any(type(v) is str for v in array.flat):
            try:
                array = array.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise InnerloopTypeError(f"X must hold numbers: {error}") from error
        if array.dtype.kind in "USTO":
            raise InnerloopError(
                "X holds texts, which only a learner from a run on texts can read "
                "(tasks clinc, text)"
            )
        if array.dtype.kind not in "buif":
            raise InnerloopError(
                "Complex data not supported"
                if array.dtype.kind == "c"
                else f"X must hold real numbers; got {array.dtype}"
            )
        if array.ndim < 2:
            raise InnerloopError(
                f"Expected 2D array, got {array.ndim}D array instead. Reshape your "
                "data: the first axis of X counts the inputs"
            )
        images = len(self.shape) == 3 if self.shape else array.ndim in (3, 4)
        exact = array.dtype in (np.uint8, np.float32)
        values = torch.from_numpy(
            np.ascontiguousarray(array if exact else array.astype(np.float64))
        )
        if not array.size:
            return values
        if images and array.dtype.kind in "ui":
            white = 65535 if array.dtype == np.uint16 else 255
            if array.min() < 0 or array.max() > white:
                raise InnerloopError(
                    f"images of integers must lie in 0..{white}, and of reals in 0..1; "
                    f"got {array.dtype} from {array.min()} to {array.max()}"
                )
            return (values if values.is_floating_point() else values.float()) / white
        if images and self.shape and array.dtype.kind == "f":
            each = values.flatten(1)
            whole = (each == each.round()).all(1) & (each.amax(1) > 1.5)
            if bool(whole.any()):
                raise InnerloopError(
                    "images of reals must lie in 0..1, and images of integers have an "
                    f"integer type; got {array.dtype} up to {array.max():.6g}: divide "
                    "by 255, or use uint8"
                )
        if self.vocabulary and not bool(
            (
                (values >= 0) & (values < self.vocabulary) & (values == values.round())
            ).all()
        ):
            raise InnerloopError(
                f"X must hold token numbers, integers from 0 to {self.vocabulary - 1}"
            )
        return values if values.is_floating_point() else values.double()


class _Centered(nn.Module):
    """Inputs as vectors (n, features), minus a mean."""

    def __init__(self, mean: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) - self.get_buffer("mean")


def _nearest_class_mean(x: Tensor) -> Learner:
    """Classification by the nearest class mean, in double precision and with centered
    inputs: large values that differ little are not rounded.
    """
    spec = TaskSpec("classes", tuple(x.shape[1:]), 2)
    encoder = _Centered(x.double().flatten(1).mean(0))
    return ProtoNet.build(spec, encoder=encoder, scale=1.0).double()


def _reader(learner: Learner | None, columns: tuple[str, ...] | None) -> Any:
    """What converts inputs for the learner."""
    if learner is not None and learner.reader is not None:
        return learner.reader
    columns = None if columns is None else tuple(columns)
    if learner is None or learner.spec is None:
        return _ArrayReader(columns=columns)
    return _ArrayReader(_shape(learner), learner.spec.vocabulary, columns)


def _shape(learner: Learner | None) -> tuple[int, ...] | None:
    """The shape of one input of the learner, None for any."""
    if learner is None or learner.spec is None or learner.any_columns:
        return None
    return learner.spec.x_shape


def _in_evaluation_mode(learner: Learner) -> Learner:
    """A copy of the learner in evaluation mode that shares its weights and reader."""
    tensors = [*learner.parameters(), *learner.buffers()]
    # tensors made under inference mode cannot be differentiated: these are copied
    shared = [learner.reader, *(t for t in tensors if not t.is_inference())]
    # a module has a dozen dictionaries of hooks, and copying each takes time
    for module in learner.modules():
        shared += [kept for name, kept in vars(module).items() if "_hooks" in name]
    return copy.deepcopy(learner, {id(part): part for part in shared}).eval()


def _like(learner: Learner | None) -> Tensor:
    """A tensor with the dtype and device of the learner's weights."""
    if learner is None:  # the nearest class mean
        return torch.empty(0, dtype=torch.float64, device="cpu")
    return next(learner.parameters(), torch.empty(0))


@contextmanager
def _evaluating() -> Iterator[None]:
    """Without gradients; adaptation may compute its own, under inference mode too."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _finite(values: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """`values` in a dtype. Raises InnerloopError for values that are not finite."""
    if not bool(torch.isfinite(values).all()):
        raise InnerloopError(
            f"Input {name} contains NaN or infinity: fill or drop those examples first"
        )
    converted = values.to(dtype)
    if not bool(torch.isfinite(converted).all()):
        raise InnerloopError(
            f"{name} holds a value too large for {str(dtype).removeprefix('torch.')}: "
            f"{float(values.abs().max()):.3g}; scale {name} first"
        )
    return converted


def _array(values: Any, name: str) -> NDArray[Any]:
    """An array of whatever can be read as one."""
    if hasattr(values, "toarray"):
        raise InnerloopTypeError(
            f"sparse input is not supported: pass {name}.toarray()"
        )
    try:
        if not torch.is_tensor(values):
            return np.asarray(values)
        if values.is_floating_point() and values.element_size() < 4:
            values = values.float()  # NumPy has no bfloat16
        return values.numpy(force=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InnerloopTypeError(
            f"{name} cannot be read as one array, all inputs of one shape: "
            f"{_first_line(error)}"
        ) from error


def _column_names(X: Any) -> tuple[str, ...] | None:
    """The columns of a data frame whose columns are named by texts, otherwise None."""
    names = list(getattr(X, "columns", ()))
    if not names or any(type(name) is not str for name in names):
        return None
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InnerloopError(f"X has several columns called {twice!r}: rename them")
    return tuple(names)


def _labels(y: Any, n: int) -> NDArray[Any]:
    """Labels (n,).

    Raises InnerloopError for a wrong shape, missing labels or real numbers.
    """
    if y is None:
        raise InnerloopError("requires y to be passed, but the target y is None")
    labels = _array(y, "y")
    shape = labels.shape
    if labels.ndim == 2 and shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or len(labels) != n:
        raise InnerloopError(
            f"y must hold one label for each of the {n} examples; got shape {shape}"
        )
    kind = labels.dtype.kind
    if kind == "f" and not np.isfinite(labels).all():
        raise InnerloopError("Input y contains NaN or infinity")
    if kind == "f" and (labels != np.round(labels)).any():
        raise InnerloopError(
            "Unknown label type: continuous. Classes are needed; for real numbers use "
            "FewShotRegressor"
        )
    if kind in "OTU":
        # NumPy turns a list of texts and numbers, NaN too, into texts
        entries = labels if hasattr(y, "dtype") else np.array(y, dtype=object)
        entries = entries.reshape(n).tolist()
        try:
            missing = any(v != v for v in entries)
            sorted(entries)
        except (TypeError, ValueError) as error:
            raise InnerloopError(
                "y must hold labels of one type, all texts or all numbers, and none "
                f"missing: {error}"
            ) from error
        if missing:
            raise InnerloopError("Input y contains NaN: every example needs a label")
    return np.array(labels.tolist()) if kind == "T" else labels


def _targets(y: Any, n: int) -> NDArray[np.float64]:
    """Targets (n,) or (n, y_dim). Raises InnerloopError for a wrong shape or type."""
    if y is None:
        raise InnerloopError("requires y to be passed, but the target y is None")
    values = _array(y, "y")
    try:
        if values.dtype.kind not in "buifO":
            raise TypeError(f"got {values.dtype}")
        targets = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InnerloopTypeError(f"y must hold real numbers: {error}") from error
    if targets.ndim not in (1, 2) or len(targets) != n or not targets.size:
        raise InnerloopError(
            f"y must hold one target for each of the {n} examples; got shape "
            f"{targets.shape}"
        )
    if not np.isfinite(targets).all():
        raise InnerloopError("Input y contains NaN or infinity")
    return targets


def _checksum(text: str, tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256((text + digest(tensors)).encode()).hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:150]


def _sklearn(name: str, otherwise: type[Any]) -> type[Any]:
    """The exception or warning of scikit-learn, where that is installed."""
    try:
        return getattr(import_module("sklearn.exceptions"), name)
    except ImportError:
        return otherwise
