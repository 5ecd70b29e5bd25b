"""`innerloop compare`, and scalars for TensorBoard."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.cli.conftest import cli

Fails = Callable[..., str]
SIZES = "--ways 3 --shots 1 --queries 2"


def rows(file: Path, table: int) -> list[dict[str, Any]]:
    """The rows of a table: labels, and measurements by name."""
    found = json.loads(file.read_text())["tables"][table]["rows"]
    return [r["labels"] | {v["name"]: v for v in r["values"]} for r in found]


@pytest.fixture(scope="session")
def maml_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "maml"
    line = "train maml strokes --net mlp --steps 2 --ways 3 --queries 2 --out"
    assert cli(line, folder) == 0
    return folder


def test_runs_are_tested_on_the_same_tasks(
    proto_run: Path, maml_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "compared.json"
    line = f"compare {proto_run} {maml_run} --tasks 7 {SIZES} --json"
    assert cli(line, file) == 0
    out = capsys.readouterr().out
    assert "difference to proto, paired by task" in out
    first, second = rows(file, 0)
    (gap,) = rows(file, 1)
    assert [first["run"], second["run"], gap["run"]] == ["proto", "maml", "maml"]
    assert gap["tasks"] == gap["accuracy, difference"]["n"] == 7
    expected = second["accuracy"]["mean"] - first["accuracy"]["mean"]
    assert gap["accuracy, difference"]["mean"] == pytest.approx(expected)
    # as `innerloop test` says
    assert cli(f"test {maml_run} --tasks 7 {SIZES} --json", tmp_path / "test.json") == 0
    (alone,) = rows(tmp_path / "test.json", 0)
    assert alone["accuracy"] == second["accuracy"]


def test_a_copy_of_a_run_does_not_differ(proto_run: Path, tmp_path: Path) -> None:
    copy, file = tmp_path / "copy", tmp_path / "compared.json"
    shutil.copytree(proto_run, copy)
    assert cli(f"compare {proto_run} --tasks 5 {SIZES}", copy, "--json", file) == 0
    (gap,) = rows(file, 1)
    assert gap["it is"] == "interval holds 0"
    value = gap["accuracy, difference"]
    assert (value["mean"], value["interval"]) == (0.0, 0.0)


def test_the_usual_settings_are_compared_where_both_runs_can(
    proto_run: Path, maml_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "compared.json"
    line = f"compare {maml_run} {proto_run} --tasks 2 --queries 1 --json"
    assert cli(line, file) == 0
    assert [row["ways"] for row in rows(file, 1)] == [3]  # those of the first run
    capsys.readouterr()
    message = "maml is not compared: this maml was trained for 3 ways"
    assert cli(f"compare {proto_run} {maml_run} --tasks 2 --queries 1") == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_runs_that_cannot_be_compared_are_explained(
    proto_run: Path, maml_run: Path, tmp_path: Path, fails: Fails
) -> None:
    other = tmp_path / "sine"
    assert cli("train cnp sinusoid --steps 1 --out", other) == 0
    assert "but strokes has" in fails(f"compare {proto_run} {other} --tasks 2 {SIZES}")
    assert "at least two runs" in fails(f"compare {proto_run}")
    assert "named twice" in fails(f"compare {proto_run} {proto_run}")
    assert "no run folder" in fails(f"compare {proto_run}", tmp_path)


def test_the_first_run_says_what_the_tasks_are(
    proto_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert cli("train cnp sinusoid --steps 1 --shots 5 --queries 4 --out", one) == 0
    assert cli("train cnp gp-curves --steps 1 --out", two) == 0
    capsys.readouterr()
    assert cli(f"compare {one} {two} --tasks 3") == 0
    assert "two was trained on gp-curves, one on sinusoid" in capsys.readouterr().out


def test_seen_classes_are_pointed_out(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "train protonet folder --encoder mlp --size 8 --ways 3 --queries 1 --steps 1"
    runs = [tmp_path / "one", tmp_path / "two"]
    for seed, out in enumerate(runs):
        assert cli(f"{line} --seed {seed} --root", pictures, "--out", out) == 0
    capsys.readouterr()
    line = "compare --tasks 2 --ways 3 --shots 1 --queries 1 --split train"
    assert cli(line, *runs) == 0
    found = re.search(r"one was trained on (\d+) of these", capsys.readouterr().out)
    assert found
    assert 3 <= int(found[1]) <= 12


class Writer:
    """What is written for TensorBoard, instead of a file."""

    scalars: list[tuple[str, str, float, int]]
    closed = False

    def __init__(self, folder: str, flush_secs: int):
        assert flush_secs <= 10  # a killed training loses no more
        self.folder, self.scalars = folder, []
        Writer.last = self

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((self.folder, name, value, step))

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_steps_and_validations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    line = f"train protonet strokes --encoder mlp --steps 3 {SIZES} --tensorboard board"
    assert cli(line, "--out", tmp_path / "run") == 0
    found = {(name, step): value for _, name, value, step in Writer.last.scalars}
    log = [json.loads(li) for li in (tmp_path / "run/log.jsonl").open()]
    for entry in log:
        step = entry["step"]
        assert found["train/loss", step] == entry["loss"]
        assert found["validation/score", step] == entry["validation"]
        assert found["time/seconds", step] > 0
    assert Writer.last.closed


def test_without_tensorboard_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    message = fails(
        f"train protonet strokes --steps 1 --tensorboard {tmp_path} --out",
        tmp_path / "run",
    )
    assert "pip install 'innerloop[tensorboard]'" in message
    assert not (tmp_path / "run").exists()
