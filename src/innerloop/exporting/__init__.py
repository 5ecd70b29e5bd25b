"""Trained learners as programs that run without this package."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.experiment import Experiment, load
from innerloop.exporting.formats import ONNX, Format, TorchProgram
from innerloop.exporting.tracing import Programs, Traceable, traced
from innerloop.runs import write_atomically

FORMATS: dict[str, type[Format]] = {"onnx": ONNX, "torch": TorchProgram}
MOST = 1e-3  # difference of results, as a share of their size


@dataclass(frozen=True)
class Export:
    """What `export` has written.

    Args:
        adapt, predict: the files.
        about: what they expect and return, which is also stored in both.
        difference: the largest difference of their results from those of the learner,
            on random inputs, as a share of the largest result.
    """

    adapt: Path
    predict: Path
    about: dict[str, Any]
    difference: float


def export(
    learner: Learner | Path | str,
    folder: Path | str,
    format: Literal["onnx", "torch"] = "onnx",
    *,
    labels: Sequence[str] | None = None,
) -> Export:
    """Write `adapt` and `predict` of a learner as two programs that run without this
    package: adapt once to the support set of a task, then predict any number of times.

    `adapt` takes x (n, *x_shape) and one-hot or real y (n, y_dim), and returns the
    tensors of the state; `predict` takes these and x (m, *x_shape), and returns `mean`
    (class probabilities or predicted reals), `std` where the learner has one, and
    `outputs`, what the learner itself returns.

    Args:
        learner: a trained learner, or a run folder.
        folder: where to write adapt.onnx and predict.onnx, or adapt.pt2 and
            predict.pt2.
        format: "onnx" for onnxruntime and others, "torch" for `torch.export.load`.
        labels: what the classes are called, where all tasks have the same.

    Raises InnerloopError for a learner that cannot be exported, for labels of another
    number of classes, and for programs whose results differ from the learner's.
    """
    learner = learner if isinstance(learner, Learner) else load(learner)
    learner = copy.deepcopy(learner).eval().cpu()
    name = type(learner).__name__
    if learner.spec is None:
        raise InnerloopError(
            f"{name} cannot be exported: build it by {name}.build(spec, ...), so that "
            "it knows the shape of its inputs"
        )
    if format not in FORMATS:
        raise InnerloopError(
            f"format must be one of {', '.join(FORMATS)}; got {format!r}"
        )
    if labels is not None:
        _check_labels(learner, len(labels))
    writer = FORMATS[format]()
    functions, programs = traced(learner, learner.spec)
    about = description(learner, programs, labels)
    state = [leaf.name for leaf in programs.state]
    parts = {
        "adapt": (programs.adapt, ["x", "y"], state),
        "predict": (programs.predict, [*state, "x"], list(programs.outputs)),
    }
    made = {
        part: writer.content(*program, json.dumps({"program": part, **about}))
        for part, program in parts.items()
    }
    difference = compared(functions, writer, made)
    if not difference < MOST:
        raise InnerloopError(
            f"{name} cannot be exported: the results of the program differ by "
            f"{difference:.1e} of their size"
        )
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InnerloopFileError(
            f"cannot create the folder {folder}: {error.strerror}"
        ) from error
    files = {part: folder / f"{part}{writer.suffix}" for part in made}
    for part, content in made.items():
        write_atomically(files[part], content)
    return Export(files["adapt"], files["predict"], about, difference)


def _check_labels(learner: Learner, number: int) -> None:
    """Raises InnerloopError for so many names of classes where the learner has others,
    or none.
    """
    name, spec = type(learner).__name__, learner.spec
    assert spec is not None
    if spec.kind != "classes":
        raise InnerloopError(f"this {name} predicts {spec.kind}: it has no labels")
    if learner.fixed_ways and number != spec.y_dim:
        raise InnerloopError(
            f"this {name} has {spec.y_dim} classes: give one label for each, in "
            f"order; got {number}"
        )


def description(
    learner: Learner, programs: Programs, labels: Sequence[str] | None
) -> dict[str, Any]:
    """What the programs expect and return, as plain data."""
    from innerloop import __version__

    spec = learner.spec
    assert spec is not None
    reader = learner.reader
    return {
        "innerloop": __version__,
        "learner": type(learner).__name__,
        "targets": spec.kind,
        "x_shape": spec.x_shape,
        "vocabulary": spec.vocabulary,
        "ways": None if programs.any_ways else spec.y_dim,
        "labels": list(labels) if labels is not None else None,
        "reading": None if reader is None else reader.preprocessing(),
        "state": [asdict(leaf) for leaf in programs.state],
        "outputs": programs.outputs,
    }


@torch.no_grad()
def compared(functions: Traceable, writer: Format, made: dict[str, bytes]) -> float:
    """The largest difference of the results of the programs from those of the learner,
    as a share of the largest result, for two support sets and a single query, too.
    """
    adapt, predict = (writer.runner(made[part]) for part in ("adapt", "predict"))
    found = 0.0
    n, ways, m, other_n, other_ways = functions.sizes
    for examples, classes, queries in ((n, ways, m), (other_n, other_ways, 1)):
        support = functions.support(examples, classes)
        x = functions.inputs(queries, torch.Generator().manual_seed(0))
        expected = functions.predict(functions.adapt(*support), x)
        got = predict(*adapt(*support), x)
        for a, b in zip(expected, got, strict=True):
            found = max(found, _difference(a, b))
    return found


def _difference(expected: Tensor, got: Tensor) -> float:
    if expected.shape != got.shape:
        return float("inf")
    return float((expected - got).abs().max() / expected.abs().max().clamp_min(1e-6))


def common_labels(experiment: Experiment) -> list[str] | None:
    """What the classes are called, where all tasks of an experiment have the same in
    the same order, and the data are on this machine.
    """
    try:
        tasks = experiment.tasks_of("train")
        names = tasks.sample_names(8, torch.Generator().manual_seed(0))
    except (InnerloopError, OSError):
        return None
    if not names or any(other != names[0] for other in names):
        return None
    return names[0]
