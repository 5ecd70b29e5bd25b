"""Faults that generated input has found, each as its kind."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from innerloop.assembly import Choice
from innerloop.cli import main
from innerloop.core.task import TaskSpec
from innerloop.engine.errors import DivergenceError, InnerloopError
from innerloop.engine.solvers import ridge
from innerloop.experiment import Experiment
from innerloop.measurements import Measurement
from innerloop.readers import ImageReader, TableReader, TextReader
from innerloop.runs import Run
from innerloop.tasks.sinusoid import Sinusoid
from tests.fuzz.law import state
from tests.fuzz.world import CLASSES, SHORT

Refused = Callable[..., str]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run a command line that must fail; returns its one line."""

    def run(*words: str | Path) -> str:
        capfd.readouterr()
        assert main([str(word) for word in words]) == 2
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert len(lines[0]) < 300
        assert lines[0].isprintable()
        return lines[0]

    return run


@pytest.fixture
def copied(base: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a run, by name."""

    def copy(name: str) -> Path:
        return shutil.copytree(base / "runs" / name, tmp_path / name)

    return copy


def changed(run: Path, *place: str | int, value: Any) -> None:
    """Change one value of experiment.json."""
    file = run / "experiment.json"
    data = found = json.loads(file.read_text())
    for key in place[:-1]:
        found = found[key]
    found[place[-1]] = value
    file.write_text(json.dumps(data))


def test_errors_are_short_and_steer_no_terminal(refused: Refused) -> None:
    assert refused("cite", "x" * 5000).endswith("...")
    assert "\\x1b[31m" in refused("synthesize", "--examples", "/no/\x1b[31mred" * 50)


def test_brackets_in_names_are_no_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "[" / "x]"
    words = f"train maml sinusoid {SHORT} --out".split()
    assert main([*words, str(run)]) == 0
    assert f"saved in {run};" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        "demo --scale nan",
        "demo --scale inf",
        "train maml sinusoid --out x --minutes nan",
        "synthesize --examples x --seconds nan",
    ],
)
def test_nan_is_in_no_range(line: str, refused: Refused) -> None:
    assert "--" in refused(*line.split())


def test_runs_without_a_reader_read_no_files(base: Path, refused: Refused) -> None:
    run, pictures = base / "runs" / "sine", base / "data" / "pictures"
    assert "not read from files" in refused("select", run, "--pool", pictures)
    words = ["--support", pictures, "--out", base / "none"]
    assert "not read from files" in refused("generate", run, *words)
    run = base / "runs" / "images"
    message = refused("select", run, "--pool", pictures, "--strategy", "entropy")
    assert "has no query strategy" in message


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("learner",), -1),
        (("learner", "name"), ["x"]),
        (("learner", "options"), "x"),
        (("learner", "options", "unknown"), 1),
        (("tasks",), []),
        (("tasks", "name"), {"": None}),
        (("tasks", "options", "file"), 1.5),
        (("likelihood",), 10**30),
        (("meta_gradient", "name"), True),
        (("reader", "options"), "\0"),
        (("reader", "options", "symbols", 0), {}),
        (("reader", "options", "merges", 0), [None, "a"]),
        (("reader", "options", "length"), "24"),
        (("reader", "options", "text_column"), {}),
        (("spec", "x_shape"), "\0"),
        (("spec", "x_shape"), ["24"]),
        (("spec", "x_shape"), [10**30]),
        (("spec", "y_dim"), math.nan),
        (("spec", "vocabulary"), None),
        (("spec", "vocabulary"), -1),
        (("training", "batch"), "many"),
        (("training",), None),
        (("steps",), "x"),
        (("minutes",), [1]),
        (("seed",), True),
        (("seed",), 10**30),
        (("device",), 1e308),
        (("precision",), {}),
    ],
)
def test_values_of_other_types_are_named(
    place: tuple[str, ...],
    value: Any,
    copied: Callable[[str], Path],
    base: Path,
    refused: Refused,
) -> None:
    run, file = copied("texts"), base / "data" / "text.csv"
    changed(run, "experiment", *place, value=value)
    refused("adapt", run, "--support", file, "--query", file, "--out", run / "x.csv")


def test_columns_of_a_table_have_types(base: Path) -> None:
    experiment = Experiment.load(base / "runs" / "rows")
    assert experiment.reader is not None
    settings = experiment.reader.options
    same = TableReader.from_settings(settings).settings()
    assert json.loads(json.dumps(same)) == settings
    for name, value in (("name", {}), ("kind", math.inf), ("mean", None)):
        columns = [{**settings["columns"][0], name: value}, *settings["columns"][1:]]
        with pytest.raises(InnerloopError, match=name):
            TableReader.from_settings({**settings, "columns": columns})


def test_a_reader_must_fit_the_networks(base: Path) -> None:
    experiment = Experiment.load(base / "runs" / "texts")
    assert experiment.reader is not None
    settings = experiment.reader.options
    for name, value in (("symbols", [*settings["symbols"], "€"]), ("length", 99)):
        reader = TextReader.from_settings({**settings, name: value})
        other = Experiment.from_dict(
            {
                **experiment.as_dict(),
                "reader": {"name": "text", "options": reader.settings()},
            }
        )
        with pytest.raises(InnerloopError, match="does not fit the networks"):
            other.build_learner()


@pytest.mark.parametrize("kind", ["foreign", "step", "gone"])
def test_a_checkpoint_that_does_not_fit_changes_nothing(
    kind: str, copied: Callable[[str], Path], base: Path, refused: Refused
) -> None:
    path = copied("sine")
    run = Run(path)
    checkpoint = run.load_checkpoint()
    if kind == "foreign":
        shutil.copy(base / "runs" / "curves" / "checkpoint.bin", path)
    else:
        odd = {"step": {**checkpoint, "step": math.nan}, "gone": {"learner": {}}}
        run.save_checkpoint(odd[kind])
    before = state(path)
    words = f"train maml sinusoid {SHORT} --resume --out".split()
    assert "does not fit experiment.json" in refused(*words, path)
    assert state(path) == before


def test_a_folder_in_the_place_of_a_file_is_refused_at_first(
    copied: Callable[[str], Path], refused: Refused
) -> None:
    run = copied("sine")
    (run / "weights.safetensors").unlink()
    (run / "weights.safetensors").mkdir()
    (run / "log.jsonl").write_text("not whole")
    before = state(run)
    words = f"train maml sinusoid {SHORT} --resume --out".split()
    assert "no regular file" in refused(*words, run)
    assert state(run) == before


def test_a_finished_training_writes_weights_that_are_missing(
    copied: Callable[[str], Path],
) -> None:
    run = copied("sine")
    (run / "weights.safetensors").unlink()
    words = f"train maml sinusoid {SHORT} --resume --out".split()
    assert main([*words, str(run)]) == 0
    assert Run(run).load_weights()


def test_a_score_that_is_not_finite_is_null_and_never_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([math.nan, 3.0, 2.0])
    monkeypatch.setattr(
        Sinusoid, "score", lambda *_: Measurement("mse", next(scores), 0.0)
    )
    experiment = Experiment(
        Choice("maml"), Choice("sinusoid"), training={"batch": 1}, steps=3
    )
    for _ in experiment.train_events(tmp_path / "run"):
        pass
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert "NaN" not in log
    lines = [json.loads(line)["validation"] for line in log.splitlines()]
    assert lines == [None, 3.0, 2.0]
    assert Run(tmp_path / "run").load_checkpoint()["best"][0] == 2.0


def test_warnings_of_decoders_are_silent(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    file = tmp_path / "x.tiff"
    Image.new("RGB", (20, 20)).save(file)
    content = file.read_bytes()
    reader = ImageReader(1, (8, 8))
    for cut in range(8, len(content), 7):
        file.write_bytes(content[:cut])
        reader.pixels([file], ["x"])
        reader.for_data([file])
    assert not recwarn.list


def test_singular_equations_are_divergence() -> None:
    z = torch.full((3, 2), 1e10)
    with pytest.raises(DivergenceError, match="no finite solution"):
        ridge(z, torch.eye(3), torch.tensor(1e-3))


def test_arrays_that_are_no_rows_are_refused(base: Path, tmp_path: Path) -> None:
    reader = TableReader.from_settings(
        Experiment.load(base / "runs" / "arrays").reader.options  # pyright: ignore
    )
    np.savez(tmp_path / "x.npz", X=np.array(3.0), y=np.arange(3))
    with pytest.raises(InnerloopError, match="shape"):
        reader.read(tmp_path / "x.npz", labels=True)


def test_supervised_training_of_fixed_ways_validates_at_its_own(
    base: Path, tmp_path: Path
) -> None:
    words = f"train lstm arrays --file {base}/data/table.csv {CLASSES} --hidden 4"
    run = tmp_path / "run"
    assert main([*words.split(), "--supervised", "--out", str(run)]) == 0


def test_sizes_that_no_integer_holds_are_too_large(
    tmp_path: Path, refused: Refused
) -> None:
    words = f"train lstm sinusoid {SHORT} --hidden {10**30} --out".split()
    assert "hidden must be less than 2^63" in refused(*words, tmp_path / "run")


def test_first_order_steps_can_be_recomputed(tmp_path: Path) -> None:
    words = f"train cavia sinusoid {SHORT} --first-order --recompute --out"
    assert main([*words.split(), str(tmp_path / "run")]) == 0


def test_sizes_of_a_task_are_integers() -> None:
    assert TaskSpec("classes", (np.int64(3),), 2).x_shape == (3,)  # pyright: ignore
    for sizes in ((1.5,), ("3",), (None,)):
        with pytest.raises(InnerloopError, match="integers"):
            TaskSpec("classes", sizes, 2)  # pyright: ignore
