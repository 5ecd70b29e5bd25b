"""Testing, adapting, generating, listing: commands end to end on small data."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import innerloop
from innerloop.cli import main
from innerloop.papers import papers
from innerloop.registry import PRESETS, SOURCES, entries
from innerloop.runs import Run, RunError
from tests.cli.conftest import SMALL, cli

Fails = Callable[..., str]


def result_of(line: str, run: Path, file: Path, *further: str | Path) -> dict[str, Any]:
    """The JSON that a test writes."""
    assert cli(f"test {line} --json", file, run, *further) == 0
    return json.loads(file.read_text())


def rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the first table: labels, and measurements by name."""
    return [
        {**row["labels"], **{value["name"]: value for value in row["values"]}}
        for row in result["tables"][0]["rows"]
    ]


def test_a_test_is_stored_in_the_run_and_where_asked(
    proto_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "--tasks 6 --ways 3 --shots 1 --queries 2"
    result = result_of(line, proto_run, tmp_path / "result.json")
    (row,) = rows_of(result)
    assert (row["ways"], row["shots"]) == (3, 1)
    assert 0 <= row["accuracy"]["mean"] <= 1
    assert (row["accuracy"]["n"], row["accuracy"]["transductive"]) == (6, False)
    stored = list((proto_run / "tests").glob("strokes-test-*.json"))
    assert json.loads(stored[0].read_text()) == result
    assert "accuracy" in capsys.readouterr().out


def test_one_task_has_no_interval_and_is_valid_json(
    proto_run: Path, tmp_path: Path
) -> None:
    result = result_of(
        "--tasks 1 --ways 3 --queries 2", proto_run, tmp_path / "one.json"
    )
    assert rows_of(result)[0]["accuracy"]["interval"] is None
    assert "Infinity" not in (tmp_path / "one.json").read_text()


def test_without_sizes_the_four_usual_settings_are_tested(
    proto_run: Path, tmp_path: Path
) -> None:
    result = result_of("--tasks 2 --queries 1", proto_run, tmp_path / "result.json")
    sizes = [(row["ways"], row["shots"]) for row in rows_of(result)]
    assert sizes == [(5, 1), (5, 5), (20, 1), (20, 5)]


def test_evaluations_are_switches(
    proto_run: Path, tmp_path: Path, fails: Fails
) -> None:
    switches = {
        "clustering": "--tasks 3 --ways 3 --queries 2",
        "class-incremental": "--streams 1 --groups 2",
    }
    for name, options in switches.items():
        line = f"--{name} {options}"
        result = result_of(line, proto_run, tmp_path / f"{name}.json")
        assert result["evaluation"]["name"] == name
        assert result["tables"]
    line = f"test {proto_run} --clustering --class-incremental"
    assert "choose one of" in fails(line)


@pytest.mark.parametrize(
    ("tasks", "shown"),
    [
        ("omniglot", {"--ways": "60", "--shots": "1", "--queries": "4"}),
        ("tox21", {"--shots": "10", "--queries": "32"}),
        ("sinusoid", {"--shots": "10", "--queries": "10"}),
    ],
)
def test_help_shows_the_sizes_of_tasks_that_training_uses(
    tasks: str, shown: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(f"train protonet {tasks} --help") == 0
    words = " ".join(capsys.readouterr().out.split())
    for flag, value in shown.items():
        text = words.split(f"{flag} INTEGER")[1].split("]")[0]
        assert text.endswith(f"default: {value}")


@pytest.mark.parametrize("switch", ["--resume", "--paper", "--supervised", "--help"])
def test_a_switch_may_precede_the_learner(
    switch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli(f"train {switch} maml sinusoid --help")
    assert "--inner-lr" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        "maml sinusoid --inner-lr 0.01 --batch 4",
        "maml strokes --ways 3 --queries 2 --batch 2 --first-order",
        "protonet strokes --ways 3 --queries 2 --meta-gradient es --encoder conv4",
        "finetune strokes --batch 8 --head cosine",
        "centrelossnet strokes --batch 8",
        "matchingnet sinusoid --contextual --batch 2 --reads 2",
        "ntm copy --length 3 --slots 8",
        "cnp gp-curves --kernel matern",
        "rl2 bandits --arms 2 --pulls 5 --hidden 8 --batch 8",
        "neat bandits --arms 2 --pulls 5 --population 6 --batch 8",
    ],
)
def test_learners_train_and_test_by_command(line: str, tmp_path: Path) -> None:
    assert cli(f"train {line} --steps 2 --out", tmp_path / "run") == 0
    result = result_of("--tasks 3", tmp_path / "run", tmp_path / "result.json")
    assert rows_of(result)


def test_a_learner_with_fixed_ways_is_tested_at_these(
    tmp_path: Path, fails: Fails
) -> None:
    run = tmp_path / "run"
    line = "train maml strokes --ways 3 --queries 2 --batch 1 --steps 1 --out"
    assert cli(line, run) == 0
    result = result_of("--tasks 2 --steps 2", run, tmp_path / "result.json")
    assert [row["ways"] for row in rows_of(result)] == [3]
    assert "was trained for 3 ways" in fails(f"test {run} --ways 4 --tasks 2")
    assert "was trained for 3 classes" in fails(f"test {run} --on sinusoid --tasks 2")


def test_curves_and_sequences_report_more(tmp_path: Path, fails: Fails) -> None:
    cnp, ntm, plot = tmp_path / "cnp", tmp_path / "ntm", tmp_path / "plot.png"
    assert cli("train cnp gp-curves --steps 2 --out", cnp) == 0
    result = result_of("--tasks 10", cnp, tmp_path / "curves.json", "--plot", plot)
    assert [row["shots"] for row in rows_of(result)] == [5, 10, 20]
    assert "posterior" in json.dumps(result)
    with Image.open(plot) as image:
        assert min(image.size) > 300
    assert cli("train ntm copy --steps 2 --length 3 --slots 8 --out", ntm) == 0
    assert "bits" in json.dumps(result_of("--tasks 4", ntm, tmp_path / "copy.json"))
    assert "have no picture" in fails(f"test {ntm} --tasks 2 --plot", plot)
    message = fails(f"test {cnp} --tasks 2 --plot", tmp_path / "no" / "plot.png")
    assert "there is no folder" in message
    assert "--plot writes" in fails(f"test {cnp} --tasks 2 --plot", tmp_path / "plot")


def test_sizes_beyond_memory_are_one_line(tmp_path: Path, fails: Fails) -> None:
    line = "train lstm sinusoid --hidden 10000000000 --steps 1 --out"
    assert "error" in fails(line, tmp_path / "run")
    assert "tasks" in fails(f"test {tmp_path} --tasks 1000000000000")


def write_classes(root: Path, classes: int) -> None:
    rng = np.random.default_rng(0)
    for c in range(classes):
        (root / "support" / f"class {c}").mkdir(parents=True)
        ink = Image.fromarray((rng.random((105, 105)) > 0.2).astype(np.uint8) * 255)
        ink.save(root / "support" / f"class {c}" / "one.png")
        (root / "query" / "deep").mkdir(parents=True, exist_ok=True)
        ink.convert("RGB").save(root / "query" / "deep" / f"{c:02d}.png")


def adapt(run: Path, root: Path, *further: str | Path) -> int:
    words = ["--support", root / "support", "--query", root / "query"]
    return cli(f"adapt {run}", *words, "--out", root / "labels.csv", *further)


def test_adapt_labels_unseen_images_of_twenty_classes(
    proto_run: Path, tmp_path: Path
) -> None:
    write_classes(tmp_path, 20)
    assert adapt(proto_run, tmp_path) == 0
    with (tmp_path / "labels.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert list(rows[0])[:3] == ["file", "label", "probability"]
    assert [row["label"] for row in rows] == [f"class {c}" for c in range(20)]
    assert rows[0]["file"] == "deep/00.png"
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)


def test_adapt_labels_what_it_can_read_and_names_the_rest(
    proto_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    write_classes(tmp_path, 3)
    (tmp_path / "query" / "broken.png").write_bytes(b"not an image")
    (tmp_path / "query" / os.fsdecode(b"caf\xe9.png")).write_bytes(
        (tmp_path / "query" / "deep" / "00.png").read_bytes()
    )
    assert adapt(proto_run, tmp_path) == 1
    assert "broken.png" in capsys.readouterr().err
    content = (tmp_path / "labels.csv").read_bytes()
    assert content.count(b"\n") == 1 + 4
    assert b"caf" in content
    (tmp_path / "labels.csv").unlink()
    assert adapt(proto_run, tmp_path, "--strict") == 2
    assert not (tmp_path / "labels.csv").exists()


def test_output_that_nobody_reads_does_not_stop_a_command(
    proto_run: Path, tmp_path: Path
) -> None:
    write_classes(tmp_path, 3)
    words = [
        *("adapt", proto_run, "--support", tmp_path / "support"),
        *("--query", tmp_path / "query", "--out", tmp_path / "labels.csv"),
    ]
    command = [sys.executable, "-m", "innerloop", *map(str, words)]
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "labels.csv").read_text().count("\ndeep/") == 3
    test = ["test", proto_run, "--tasks", "2", "--ways", "3", "--queries", "1"]
    command = [sys.executable, "-m", "innerloop", *map(str, test)]
    done = subprocess.run(command, capture_output=True, env=env, check=False)
    assert done.returncode == 0
    assert b"+-" in done.stdout


def test_adapt_says_what_comes_second_and_how_often_it_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{word} {i}\t{word}" for word in "abcdefghijkl" for i in range(4)]
    file, run = tmp_path / "texts.tsv", tmp_path / "run"
    file.write_text("\n".join(["text\tlabel", *rows]) + "\n")
    train = f"train protonet text --file {file} --ways 2 --queries 2 --steps 1"
    assert cli(f"{train} --all-classes --out", run) == 0
    capsys.readouterr()
    out = tmp_path / "out.csv"
    assert cli(f"adapt {run} --support {file} --query {file} --out", out) == 0
    printed = capsys.readouterr().out
    with out.open() as opened:
        labelled = list(csv.DictReader(opened))
    right = sum(row["text"][0] == row["label"] for row in labelled)
    assert f"{right} of 48 have the label" in printed
    for row in labelled:
        assert row["label"] != row["second_label"]
        assert float(row["probability"]) >= float(row["second_probability"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_closed_and_full_outputs(proto_run: Path, tmp_path: Path) -> None:
    line = f"test {proto_run} --tasks 2 --ways 3 --queries 1"
    innerloop = f"{sys.executable} -m innerloop"

    def shell(redirected: str) -> subprocess.CompletedProcess[str]:
        command = f"{innerloop} {line} {redirected}"
        return subprocess.run(
            command, shell=True, capture_output=True, text=True, check=False
        )

    for closed in (">&-", "<&- >&- 2>&-"):
        file = tmp_path / f"{len(closed)}.json"
        done = shell(f"--json {file} {closed}")
        assert (done.returncode, done.stderr) == (0, "")
        assert file.is_file()
    done = shell(f"--json {file} > /dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("innerloop: error: cannot write to the standard out")
    assert len(done.stderr.splitlines()) == 1
    done = shell("--json /dev/full")
    assert "cannot write /dev/full: No space left" in done.stderr
    done = shell("--json /dev/stdout")  # a pipe here
    assert done.returncode == 0
    assert '"split": "test"' in done.stdout


def test_tests_on_different_folders_are_stored_side_by_side(
    pictures: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    line = "train protonet folder --encoder conv4 --size 16 --steps 1 --ways 2"
    assert cli(f"{line} --queries 1 --out {run} --root", pictures) == 0
    other = tmp_path / "other: pictures?"
    shutil.copytree(pictures, other)
    sizes = "--ways 2 --shots 1 --queries 1"
    for root in (pictures, other):
        assert cli(f"test {run} --tasks 2 {sizes} --root", root) == 0
    names = [file.name for file in (run / "tests").glob("*.json")]
    assert len(names) == 2
    assert all(re.fullmatch(r"[\w.=+-]+", name) for name in names)


def test_links_and_devices_are_followed_never_replaced(
    proto_run: Path, tmp_path: Path
) -> None:
    write_classes(tmp_path, 2)
    real, link = tmp_path / "real.csv", tmp_path / "labels.csv"
    real.write_text("old")
    link.symlink_to(real)
    assert adapt(proto_run, tmp_path) == 0
    assert link.is_symlink()
    assert "class 1" in real.read_text()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    words = ["--support", tmp_path / "support", "--query", tmp_path / "query"]
    reader = subprocess.Popen(["cat", str(fifo)], stdout=subprocess.PIPE)
    assert cli(f"adapt {proto_run}", *words, "--out", fifo) == 0
    out, _ = reader.communicate(timeout=60)
    assert b"class 1" in out
    assert fifo.is_fifo()


def test_a_folder_of_photographs_trains_tests_and_adapts(
    pictures: Path, tmp_path: Path, fails: Fails
) -> None:
    run = tmp_path / "run"
    line = "train protonet folder --encoder conv4 --size 16 --channels 3 --steps 2"
    assert cli(f"{line} --out {run} --root", pictures) == 0
    reader = innerloop.load(run).reader
    assert reader is not None
    assert reader.settings()["channels"] == 3
    result = result_of("--tasks 2 --ways 2 --queries 2", run, tmp_path / "result.json")
    assert result["seen_classes"] == 0
    seen = result_of(
        "--split train --tasks 2 --ways 2 --queries 2", run, tmp_path / "seen.json"
    )
    assert seen["seen_classes"] > 0
    words = ["--support", pictures, "--query", pictures, "--out", tmp_path / "out.csv"]
    assert cli(f"adapt {run}", *words) == 0
    with (tmp_path / "out.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert sum(row["file"].split("/")[0] == row["label"] for row in rows) > 40
    message = fails(f"{line} --ways 50 --out {tmp_path / 'other'} --root", pictures)
    assert "need 50 classes" in message


def test_results_are_written_where_the_training_data_are_missing(
    pictures: Path, tmp_path: Path
) -> None:
    own = tmp_path / "mine"
    own.mkdir()
    for folder in pictures.iterdir():
        (own / folder.name).symlink_to(folder)
    run = tmp_path / "run"
    line = "train protonet folder --encoder conv4 --size 16 --steps 1 --out"
    assert cli(line, run, "--root", own) == 0
    for folder in own.iterdir():
        folder.unlink()
    own.rmdir()
    size = "--tasks 2 --ways 2 --queries 2 --all-classes"
    result = result_of(size, run, tmp_path / "result.json", "--root", pictures)
    assert rows_of(result)


def test_a_generative_run_generates_examples(
    pictures: Path, tmp_path: Path, proto_run: Path, fails: Fails
) -> None:
    run, out = tmp_path / "run", tmp_path / "new"
    size = "--ways 4 --shots 1 --queries 2 --size 16 --channels 3 --width 16"
    line = f"train metavae folder --steps 2 {size} --out {run} --root"
    assert cli(line, pictures) == 0
    line = f"generate {run} --out {out} --count 3 --seed 5 --support"
    assert cli(line, pictures) == 0
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert len(files) == 12 * 3 + 1
    assert files[:2] == ["sheet.png", "sign 0/generated-1.png"]
    with Image.open(out / files[1]) as image:
        assert (image.size, image.mode) == ((16, 16), "RGB")
    line = f"generate {proto_run} --out {out} --support"
    assert "does not generate examples" in fails(line, pictures)


def test_list_cite_and_completion(
    capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    assert cli("list --json") == 0
    found = json.loads(capsys.readouterr().out)
    learners = [entry for entry in found if entry["kind"] == "learner"]
    assert {"maml", "protonet", "fomaml", "scratch"} <= {e["name"] for e in learners}
    assert cli("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    everything = sum(len(entries(kind)) for kind in SOURCES if kind != "likelihood")
    assert len([line for line in lines if line[:2] == "  "]) == everything + len(
        PRESETS
    )
    assert cli("list fomaml") == 0
    assert "maml --first-order" in capsys.readouterr().out
    assert "did you mean 'protonet'" in fails("list protonett")
    assert cli("cite maml") == 0
    assert "1703.03400" in capsys.readouterr().out
    assert cli("cite l2o") == 0
    cited = capsys.readouterr().out
    assert "{de Freitas}" in cited
    assert "Andrychowicz" in cited
    assert "did you mean 'maml'" in fails("cite mamml")
    assert "names no reference" in fails("cite strokes")
    assert cli("cite") == 0
    keys = re.findall(r"^@\w+{(\w+),$", capsys.readouterr().out, re.M)
    assert len(keys) == len(set(keys)) == len(papers())
    for shell in ("bash", "zsh", "fish"):
        assert cli(f"completion {shell}") == 0
        assert "_INNERLOOP_COMPLETE" in capsys.readouterr().out


def test_papers(capsys: pytest.CaptureFixture[str], fails: Fails) -> None:
    assert cli("papers memory") == 0
    shown = capsys.readouterr().out
    assert "Graves et al. 2014" in shown
    assert "Snell" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert cli("papers how to train") == 0
    one = capsys.readouterr().out
    assert "https://openreview.net/forum?id=HJGven05Y7\n" in one
    assert "preset maml++ (learners/optimization/maml.py)\n" in one
    assert "@inproceedings{antoniou2019how," in one
    assert cli("papers metric snell --json --results", "nowhere") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["arxiv"], entry["figures"]) == ("1703.05175", [])
    assert entry["uses"][0]["file"] == "learners/metric/protonet.py"
    assert "no paper has the words 'xyzzy'" in fails("papers xyzzy")


def test_bad_data_are_one_line(
    proto_run: Path, pictures: Path, tmp_path: Path, fails: Fails
) -> None:
    empty, lone, broken = tmp_path / "empty", tmp_path / "lone", tmp_path / "broken"
    empty.mkdir()
    (lone / "only").mkdir(parents=True)
    Image.new("L", (28, 28)).save(lone / "only" / "a.png")
    for name in ("a", "b"):
        (broken / name).mkdir(parents=True)
        (broken / name / "x.png").write_bytes(b"not an image")
    out = ["--out", tmp_path / "out.csv"]

    def refused(support: Path, query: Path) -> str:
        words = ["--support", support, "--query", query, *out]
        return fails(f"adapt {proto_run}", *words)

    assert "class folders" in refused(empty, pictures)
    assert "two classes" in refused(lone, pictures)
    assert "x.png" in refused(broken, pictures)
    assert "there is no folder" in refused(tmp_path / "none", pictures)
    assert "no images" in refused(pictures, empty)
    out = ["--out", tmp_path / "no" / "x.csv"]
    assert "there is no folder" in refused(pictures, pictures)


def test_damaged_and_foreign_runs_are_refused(
    proto_run: Path, tmp_path: Path, fails: Fails
) -> None:
    def damaged(name: str, content: bytes) -> Path:
        copy = tmp_path / f"{name}-{len(content)}"
        copy.mkdir()
        for file in proto_run.iterdir():
            if file.is_file():
                whole = content if file.name == name else file.read_bytes()
                (copy / file.name).write_bytes(whole)
        return copy

    weights = (proto_run / "weights.safetensors").read_bytes()
    run = damaged("weights.safetensors", weights[: len(weights) // 2])
    assert "is damaged" in fails(f"test {run}")
    flipped = bytearray(weights)
    flipped[-100] ^= 4
    run = damaged("weights.safetensors", bytes(flipped))
    assert "is damaged" in fails(f"test {run}")
    whole = json.loads((proto_run / "experiment.json").read_text())
    foreign = [
        json.dumps({**whole, "experiment": {**whole["experiment"], **changed}}).encode()
        for changed in (
            {"learner": 3},
            {"tasks": {"name": 5}},
            {"reader": 5},
            {"spec": {"kind": "classes", "x_shape": "q", "y_dim": 2}},
            {"training": [1]},
            {"steps": "many"},
        )
    ]
    for content in (
        b'{"lear',
        b'{"name": "another tool"}',
        b"[" * 100_000,
        b"\xff\xfe",
        *foreign,
    ):
        run = damaged("experiment.json", content)
        assert "experiment.json" in fails(f"test {run}")
    checkpoint = bytearray((proto_run / "checkpoint.bin").read_bytes())
    train = f"train protonet strokes {SMALL} --steps 6 --resume --out"
    run = damaged("checkpoint.bin", bytes(checkpoint[:1000]))
    assert "is damaged" in fails(train, run)
    checkpoint[len(checkpoint) // 2] ^= 1
    assert "is damaged" in fails(train, damaged("checkpoint.bin", bytes(checkpoint)))
    evil = damaged("checkpoint.bin", b"cos\nsystem\n(S'touch pwned'\ntR.")
    assert "is damaged" in fails(train, evil)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    assert "no run folder" in fails(f"test {foreign}")
    with pytest.raises(RunError):
        innerloop.load(foreign)


def test_weights_that_are_not_finite_are_refused(
    proto_run: Path, tmp_path: Path, fails: Fails
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "experiment.json").write_bytes((proto_run / "experiment.json").read_bytes())
    weights = Run(proto_run).load_weights()
    name = next(name for name, t in weights.items() if t.dim() == 4)
    weights[name][0, 0, 0, 0] = float("nan")
    Run(run).save_weights(weights)
    assert "not finite" in fails(f"test {run} --tasks 2")


def test_our_own_faults_keep_their_traceback(
    proto_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **further: object) -> None:
        raise TypeError("a fault of the program")

    monkeypatch.setattr("innerloop.experiment.Experiment.test", broken)
    with pytest.raises(TypeError, match="a fault of the program"):
        main(["test", str(proto_run), "--tasks", "1", "--ways", "3", "--queries", "1"])


def test_the_demo_draws_its_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("innerloop.cli.demo.TASKS", 2)
    assert cli("demo --scale 0.01 --out", tmp_path / "demo") == 0
    assert (tmp_path / "demo" / "demo.png").is_file()
    assert "too few meta-steps" in capsys.readouterr().out
    assert isinstance(
        innerloop.load(tmp_path / "demo" / "protonet"), innerloop.ProtoNet
    )
    assert cli("demo --scale 0.01 --out", tmp_path / "demo") == 0


def test_ratings_of_a_new_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    rng = np.random.default_rng(0)
    rows = [f"p{p},i{i},{rng.integers(1, 6)}" for p in range(30) for i in range(6)]
    table = tmp_path / "ratings.csv"
    table.write_text("\n".join(["person,item,rating", *rows]))
    run, out, mine = (tmp_path / name for name in ("run", "out.csv", "mine.csv"))
    line = "train alpaca ratings --shots 2 --queries 2 --steps 3 --seed 0 --file"
    assert cli(line, table, "--out", run) == 0
    mine.write_text("item,rating\ni0,5\ni3,1\n")
    words = ("--support", mine, "--query", table, "--out", out)
    assert cli("adapt", run, *words) == 0
    found = list(csv.DictReader(out.open()))
    assert [row["item"] for row in found] == [f"i{i}" for i in range(6)]
    assert all(0 < float(row["prediction"]) < 7 for row in found)
    assert all(float(row["standard_deviation"]) > 0 for row in found)
    capsys.readouterr()
    more = ("--pool", table, "--labeled", mine, "--labels", "2")
    assert cli("select", run, *more) == 0
    chosen = capsys.readouterr().out.split()
    assert len(chosen) == 2
    assert set(chosen) <= {"i1", "i2", "i4", "i5"}
    assert "at least one answer" in fails("select", run, "--pool", table)
    assert "uncertainty, random" in fails("select", run, *more, "--strategy", "x")
    mine.write_text("item,rating\ni0,good\n")
    assert "finite numbers" in fails("adapt", run, *words)
    assert "--report is for new classes" in fails("adapt", run, *words, "--report", out)
