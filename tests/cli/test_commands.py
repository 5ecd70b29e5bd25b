"""The commands, end to end on small data, and what they say to bad input."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import innerloop
from innerloop.cli import main
from innerloop.runs import Run, RunError
from innerloop.tasks import arrays
from innerloop.tasks.arrays import GroupedRows

SMALL = [
    "--ways",
    "3",
    "--shots",
    "1",
    "--queries",
    "2",
    "--encoder",
    "conv4",
    "--seed",
    "1",
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "proto"
    assert (
        main(
            [
                "train",
                "protonet",
                "strokes",
                "--out",
                str(folder),
                "--steps",
                "4",
                *SMALL,
            ]
        )
        == 0
    )
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for c in range(12):
        (root / f"sign {c}").mkdir()
        base = rng.integers(0, 255, (40, 30, 3))
        for i in range(4):
            noisy = np.clip(base + rng.integers(-10, 10, base.shape), 0, 255).astype(
                np.uint8
            )
            Image.fromarray(noisy).save(
                root / f"sign {c}" / f"{i}.{'png' if i % 2 else 'JPG'}",
                format="PNG" if i % 2 else "JPEG",
            )
    return root


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a failing command prints."""
    try:
        code = main(list(arguments))
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_run_holds_what_it_should(run_folder: Path) -> None:
    assert {p.name for p in run_folder.iterdir()} == {
        "settings.json",
        "log.jsonl",
        "weights.safetensors",
        "checkpoint.pt",
    }
    settings = json.loads((run_folder / "settings.json").read_text())
    assert settings["learner"] == "protonet"
    assert settings["preprocess"] == {
        "channels": 1,
        "size": [28, 28],
        "dark_background": True,
        "normalize_strokes": True,
    }
    assert settings["versions"]["torch"] == str(torch.__version__)
    log = Run(run_folder).read_log()
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    assert {"loss", "accuracy", "validation", "seconds"} <= set(log[0])
    assert isinstance(innerloop.load(run_folder), innerloop.ProtoNet)


def test_the_demo_draws_its_picture_again_but_over_nobody_s_run(
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("innerloop.cli.demo.TASKS", 5)
    for minutes in ("0.01", "0.02"):
        assert (
            main(["demo", "--minutes", minutes, "--out", str(tmp_path / "demo")]) == 0
        )
        (tmp_path / "demo" / "demo.png").unlink()
    assert isinstance(
        innerloop.load(tmp_path / "demo" / "protonet"), innerloop.ProtoNet
    )
    assert "a longer one" in fails(
        capsys, "demo", "--minutes", "0.01", "--out", str(tmp_path / "demo")
    )
    shutil.copytree(run_folder, tmp_path / "protonet")
    assert "not the demo's" in fails(capsys, "demo", "--out", str(tmp_path))
    assert (tmp_path / "protonet" / "weights.safetensors").read_bytes() == (
        run_folder / "weights.safetensors"
    ).read_bytes()


def test_test_reports_as_json(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    assert (
        main(
            [
                "test",
                str(run_folder),
                "--tasks",
                "6",
                "--ways",
                "3",
                "--queries",
                "2",
                "--race",
                "1",
                "--cluster",
                "--json",
                str(out),
            ]
        )
        == 0
    )
    report = json.loads(out.read_text())
    (row,) = report["results"]
    assert (row["ways"], row["shots"], row["tasks"], row["transductive"]) == (
        3,
        1,
        6,
        False,
    )
    assert 0 <= row["metrics"]["accuracy"]["mean"] <= 1
    assert -1 <= row["clustering"]["adjusted_rand_index"]["mean"] <= 1
    assert row["race"]["learner_steps"] in (0, None)
    assert "inductive" in capsys.readouterr().out


def test_without_ways_the_four_usual_settings_are_tested(
    run_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "figures.json"
    assert (
        main(
            [
                "test",
                str(run_folder),
                "--tasks",
                "2",
                "--queries",
                "1",
                "--race",
                "0",
                "--json",
                str(out),
            ]
        )
        == 0
    )
    assert [
        (row["ways"], row["shots"]) for row in json.loads(out.read_text())["results"]
    ] == [(5, 1), (5, 5), (20, 1), (20, 5)]


def test_within_alphabet_and_other_tasks(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    arguments = [
        "test",
        str(run_folder),
        "--on",
        "strokes",
        "--within-alphabet",
        "--ways",
        "20",
        "--tasks",
        "2",
        "--race",
        "0",
        "--json",
        str(out),
    ]
    assert main(arguments) == 0
    assert json.loads(out.read_text())["results"][0]["within_alphabet"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        ["maml", "sinusoid", "--inner-lr", "0.01", "--batch", "4"],
        [
            "maml",
            "strokes",
            "--ways",
            "3",
            "--queries",
            "2",
            "--batch",
            "2",
            "--first-order",
            "--meta-gradient",
            "reptile",
        ],
        ["imaml", "sinusoid", "--inner-steps", "3", "--batch", "2"],
        [
            "protonet",
            "strokes",
            "--ways",
            "3",
            "--queries",
            "2",
            "--meta-gradient",
            "es",
            "--encoder",
            "conv4",
        ],
        [
            "finetune",
            "strokes",
            "--ways",
            "3",
            "--queries",
            "2",
            "--batch",
            "8",
            "--head",
            "cosine",
        ],
        ["centrelossnet", "strokes", "--ways", "3", "--queries", "2", "--batch", "8"],
        ["matchingnet", "sinusoid", "--contextual", "--batch", "2", "--reads", "2"],
    ],
    ids=lambda a: "-".join(a[:2]),
)
def test_learners_train_and_test_by_command(
    arguments: list[str], tmp_path: Path
) -> None:
    folder = str(tmp_path / "run")
    assert main(["train", *arguments, "--out", folder, "--steps", "2"]) == 0
    any_ways = arguments[0] in ("protonet", "finetune", "centrelossnet")
    assert (
        main(
            [
                "test",
                folder,
                "--tasks",
                "2",
                "--race",
                "0",
                *(["--ways", "3"] if any_ways else []),
            ]
        )
        == 0
    )


def test_adapt_labels_unseen_images_of_twenty_classes(
    run_folder: Path, tmp_path: Path
) -> None:
    support, query = tmp_path / "support", tmp_path / "query" / "deep"
    query.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for c in range(20):
        (support / f"class {c}").mkdir(parents=True)
        ink = Image.fromarray((rng.random((105, 105)) > 0.2).astype(np.uint8) * 255)
        ink.save(support / f"class {c}" / "one.png")
        ink.convert("RGB").save(query / f"{c:02d}.png")
    out = tmp_path / "predictions.csv"
    assert (
        main(
            [
                "adapt",
                str(run_folder),
                "--support",
                str(support),
                "--query",
                str(tmp_path / "query"),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    with out.open() as opened:
        rows = list(csv.DictReader(opened))
    assert list(rows[0]) == ["file", "label", "probability"]
    assert [row["label"] for row in rows] == [f"class {c}" for c in range(20)]
    assert rows[0]["file"] == "deep/00.png"
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)


def test_a_folder_of_photos_trains_tests_and_adapts(
    pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    arguments = [
        "train",
        "protonet",
        "folder",
        "--root",
        str(pictures),
        "--channels",
        "3",
        "--size",
        "32",
        "--steps",
        "2",
        "--encoder",
        "conv4",
    ]
    assert main([*arguments, "--out", str(folder)]) == 0
    settings = Run(folder).settings()
    # all training classes: the recipe's 60 are not there
    assert settings.task_options["ways"] == 8
    assert (
        main(
            [
                "test",
                str(folder),
                "--tasks",
                "2",
                "--ways",
                "2",
                "--queries",
                "2",
                "--race",
                "0",
            ]
        )
        == 0
    )
    assert (
        main(
            [
                "test",
                str(folder),
                "--tasks",
                "2",
                "--ways",
                "5",
                "--queries",
                "2",
                "--root",
                str(pictures),
                "--race",
                "0",
            ]
        )
        == 0
    )
    out = tmp_path / "labels.csv"
    assert (
        main(
            [
                "adapt",
                str(folder),
                "--support",
                str(pictures),
                "--query",
                str(pictures),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    with out.open() as opened:
        rows = list(csv.DictReader(opened))
    assert sum(row["file"].split("/")[0] == row["label"] for row in rows) > 40


def test_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path,
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    common = ["train", "protonet", "strokes", *SMALL, "--no-decay"]
    assert main([*common, "--out", str(whole), "--steps", "6"]) == 0
    assert main([*common, "--out", str(halves), "--steps", "3"]) == 0
    assert main([*common, "--out", str(halves), "--steps", "6", "--resume"]) == 0
    a, b = innerloop.load(whole).state_dict(), innerloop.load(halves).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert [line["step"] for line in Run(halves).read_log()] == [
        line["step"] for line in Run(whole).read_log()
    ]


def test_killed_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    common = ["train", "protonet", "strokes", *SMALL, "--steps", "40"]
    assert main([*common, "--out", str(whole)]) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "innerloop", *common, "--out", str(killed)],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while (
        len(Run(killed).read_log() if (killed / "log.jsonl").exists() else []) < 3
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (killed / f".checkpoint.{process.pid}.part").write_bytes(b"half a file")
    with (killed / "log.jsonl").open("a") as log:
        log.write('{"step": 39, "lo')
    assert main([*common, "--out", str(killed), "--resume"]) == 0
    a, b = innerloop.load(whole).state_dict(), innerloop.load(killed).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    steps = [line["step"] for line in Run(killed).read_log()]
    assert steps == [line["step"] for line in Run(whole).read_log()]


def test_ctrl_c_stops_cleanly_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    folder, whole = tmp_path / "run", tmp_path / "whole"
    arguments = [
        "train",
        "protonet",
        "strokes",
        *SMALL,
        "--steps",
        "60",
        "--out",
        str(folder),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "innerloop", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while (
        not (folder / "weights.safetensors").exists()
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with --resume" in " ".join(out.split())
    assert "Traceback" not in err
    innerloop.load(folder)
    assert main([*arguments, "--resume"]) == 0
    assert (
        main(
            [
                "train",
                "protonet",
                "strokes",
                *SMALL,
                "--steps",
                "60",
                "--out",
                str(whole),
            ]
        )
        == 0
    )
    a, b = innerloop.load(whole).state_dict(), innerloop.load(folder).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_resuming_may_change_the_length_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    common = ["train", "protonet", "strokes", *SMALL, "--out", folder]
    assert main([*common, "--steps", "2"]) == 0
    assert "--lr 5.0 cannot change on --resume" in fails(
        capsys, *common, "--resume", "--lr", "5"
    )
    assert "--metric cosine cannot change" in fails(
        capsys, *common, "--resume", "--metric", "cosine"
    )
    assert "--protocol lake cannot change" in fails(
        capsys, *common, "--resume", "--protocol", "lake"
    )
    assert main([*common, "--resume", "--minutes", "0.01"]) == 0
    assert Run(folder).settings().minutes == 0.01
    assert main([*common, "--resume", "--steps", "9"]) == 0
    assert (Run(folder).settings().steps, Run(folder).settings().minutes) == (9, None)


def test_a_training_stopped_on_its_last_step_is_finished_by_resuming(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    arguments = [
        "train",
        "protonet",
        "strokes",
        *SMALL,
        "--steps",
        "3",
        "--out",
        str(folder),
    ]
    assert main(arguments) == 0
    expected = innerloop.load(folder).state_dict()
    Run(folder).truncate_log(2)
    assert main([*arguments, "--resume"]) == 0
    assert all(
        torch.equal(t, expected[name])
        for name, t in innerloop.load(folder).state_dict().items()
    )
    assert Run(folder).read_log()[-1]["step"] == 3


def test_resuming_what_never_began_begins_it_and_foreign_folders_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    arguments = [
        "train",
        "protonet",
        "strokes",
        *SMALL,
        "--steps",
        "2",
        "--out",
        str(folder),
    ]
    assert main(arguments) == 0
    (folder / "checkpoint.pt").unlink()
    assert main([*arguments, "--resume"]) == 0
    (folder / "settings.json").unlink()
    for name in ("checkpoint.pt", "weights.safetensors", "log.jsonl"):
        foreign = tmp_path / name.replace(".", "-")
        foreign.mkdir()
        (foreign / name).write_text("mine")
        assert f"no run folder, but holds a {name}" in fails(
            capsys, *arguments[:-1], str(foreign)
        )
        assert (foreign / name).read_text() == "mine"


def test_a_training_says_what_the_data_does_not_allow(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["folder", "--root", str(pictures), "--size", "8", "--steps", "1", "--out"]
    assert (
        main(["train", "protonet", *told, str(tmp_path / "open"), "--encoder", "conv4"])
        == 0
    )
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "8 training classes of folder: 8-way 1-shot tasks with 3 queries a class (there are too few for the usual 60 ways and 4 queries)"
        in said
    )
    assert "too small" not in said
    assert main(["train", "maml", *told, str(tmp_path / "fixed")]) == 0
    assert "The test part is too small for 5 ways" in " ".join(
        capsys.readouterr().out.split()
    )
    file = tmp_path / "figures.json"
    assert (
        main(
            [
                "test",
                str(tmp_path / "open"),
                "--ways",
                "2",
                "--tasks",
                "2",
                "--race",
                "0",
                "--json",
                str(file),
            ]
        )
        == 0
    )
    # of 4 images one is the example
    assert json.loads(file.read_text())["results"][0]["queries"] == 3
    assert "lower the ways, the shots or the queries" in fails(
        capsys, "test", str(tmp_path / "open"), "--ways", "2", "--queries", "4"
    )


def test_a_training_says_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 20 tasks of 15 rows, 30 of one
    rows = [f"{i % 7},{i},{'t' + str(i % 20 if i < 300 else i)}" for i in range(330)]
    (tmp_path / "tasks.csv").write_text("\n".join(["x,y,task", *rows]))
    told = ["maml", "arrays", "--steps", "1", "--shots", "5", "--queries", "5"]
    assert (
        main(
            [
                "train",
                *told,
                "--file",
                str(tmp_path / "tasks.csv"),
                "--out",
                str(tmp_path / "tasks"),
            ]
        )
        == 0
    )
    tasks = arrays(file=tmp_path / "tasks.csv", shots=5, queries=5)
    assert isinstance(tasks, GroupedRows)
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"{len(tasks.counts)} training tasks of arrays; {32 - len(tasks.counts)} with fewer than 10 rows are left out"
        in said
    )
    rows = [f"{i},{i % 20 if i < 300 else i}" for i in range(330)]
    (tmp_path / "classes.csv").write_text("\n".join(["x,y", *rows]))
    assert (
        main(
            [
                "train",
                *told,
                "--ways",
                "2",
                "--file",
                str(tmp_path / "classes.csv"),
                "--out",
                str(tmp_path / "classes"),
            ]
        )
        == 0
    )
    assert "classes with fewer than 10 examples are left out" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["protonet", "strokes", "--ways", "1"], "at least 2 classes"),
        (["protonet", "strokes", "--scale", "0"], "must be positive, not 0.0"),
        (["matchingnet", "strokes", "--scale", "-1"], "must be positive, not -1.0"),
        (["protonet", "arrays", "--views", "4"], "only square images"),
        (["fomaml", "strokes"], "maml --first-order"),
        (["Reptile", "strokes"], "maml --meta-gradient reptile"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "arrays" in arguments:
        file = tmp_path / "table.npz"
        np.savez(file, X=np.zeros((60, 3)), y=np.repeat(np.arange(20), 3))
        arguments = [*arguments, "--file", str(file)]
    assert message in fails(
        capsys, "train", *arguments, "--steps", "1", "--out", str(tmp_path / "run")
    )


def test_classes_that_trained_are_said_to_be_seen(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = tmp_path / "run", tmp_path / "figures.json"
    assert (
        main(
            [
                "train",
                "protonet",
                "folder",
                "--root",
                str(pictures),
                "--steps",
                "1",
                "--encoder",
                "conv4",
                "--out",
                str(folder),
            ]
        )
        == 0
    )
    for part, seen in (("train", 8), ("test", 0)):
        arguments = [
            "test",
            str(folder),
            "--tasks",
            "2",
            "--ways",
            "2",
            "--queries",
            "1",
            "--part",
            part,
            "--race",
            "0",
            "--json",
            str(file),
        ]
        capsys.readouterr()
        assert main(arguments) == 0
        assert (
            "8 of these classes were trained on"
            in " ".join(capsys.readouterr().out.split())
        ) == bool(seen)
        assert json.loads(file.read_text())["seen_classes"] == seen
    assert "add --on folder" in fails(
        capsys,
        "test",
        str(folder),
        "--on",
        "strokes",
        "--root",
        str(pictures),
        "--ways",
        "2",
    )
    assert "only a run on arrays" in fails(
        capsys, "test", str(folder), "--on", "arrays", "--ways", "2"
    )


def test_a_baseline_without_meta_parameters_is_saved_as_it_is(tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    assert (
        main(
            [
                "train",
                "scratch",
                "strokes",
                "--ways",
                "3",
                "--queries",
                "2",
                "--out",
                folder,
            ]
        )
        == 0
    )
    assert main(["test", folder, "--tasks", "2"]) == 0


def test_flags_of_the_learner_may_come_before_its_name(tmp_path: Path) -> None:
    assert (
        main(
            [
                "train",
                "--out",
                str(tmp_path / "run"),
                "--steps",
                "1",
                "maml",
                "sinusoid",
                "--inner-lr",
                "0.02",
                "--batch",
                "2",
            ]
        )
        == 0
    )
    assert Run(tmp_path / "run").settings().fields == {"inner_lr": 0.02}


def test_settings_that_do_not_fit_the_data_are_left_out(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    assert (
        main(
            [
                "train",
                "protonet",
                "folder",
                "--root",
                str(pictures),
                "--steps",
                "1",
                "--encoder",
                "conv4",
                "--out",
                folder,
            ]
        )
        == 0
    )
    same = [
        "train",
        "protonet",
        "folder",
        "--root",
        os.path.relpath(pictures),
        "--size",
        "28",
        "--out",
        folder,
        "--resume",
    ]
    assert main([*same, "--steps", "2"]) == 0
    assert "--size 32 cannot change" in fails(capsys, *same, "--size", "32")
    assert "name smaller ones" in fails(capsys, "test", folder, "--tasks", "2")
    assert "was trained for classes" in fails(
        capsys, "test", folder, "--tasks", "2", "--on", "sinusoid", "--ways", "2"
    )


def test_drawings_in_a_folder_are_fitted_where_asked(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "train",
        "protonet",
        "folder",
        "--root",
        str(pictures),
        "--steps",
        "1",
        "--encoder",
        "conv4",
    ]
    for flags, fitted in ((["--fit-ink"], True), ([], False)):
        folder = tmp_path / str(fitted)
        assert main([*arguments, *flags, "--out", str(folder)]) == 0
        read_as = Run(folder).settings().preprocess
        assert read_as == {
            "channels": 1,
            "size": [28, 28],
            "dark_background": fitted,
            "normalize_strokes": fitted,
        }
    assert "cannot change" in fails(
        capsys, *arguments, "--no-fit-ink", "--out", str(tmp_path / "True"), "--resume"
    )
    assert "strokes has no option --fit-ink" in fails(
        capsys,
        "train",
        "protonet",
        "strokes",
        "--no-fit-ink",
        "--out",
        str(tmp_path / "none"),
    )


def test_a_generative_run_imagines_examples_of_own_classes(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "new"
    small = [
        "--ways",
        "4",
        "--shots",
        "1",
        "--queries",
        "2",
        "--size",
        "16",
        "--channels",
        "3",
    ]
    assert (
        main(
            [
                "train",
                "metavae",
                "folder",
                "--root",
                str(pictures),
                "--out",
                str(run),
                "--steps",
                "2",
                "--width",
                "16",
                *small,
            ]
        )
        == 0
    )
    assert (
        main(
            [
                "imagine",
                str(run),
                "--support",
                str(pictures),
                "--out",
                str(out),
                "--count",
                "3",
                "--seed",
                "5",
            ]
        )
        == 0
    )
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert len(files) == 12 * 3 + 1
    assert files[:3] == ["sheet.png", "sign 0/imagined-1.png", "sign 0/imagined-2.png"]
    with Image.open(out / files[1]) as image:
        assert (image.size, image.mode) == ((16, 16), "RGB")
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size == ((4 + 3) * 18 + 4, 12 * 18)
    proto = tmp_path / "proto"
    assert (
        main(
            [
                "train",
                "protonet",
                "folder",
                "--root",
                str(pictures),
                "--out",
                str(proto),
                "--steps",
                "1",
                *small,
            ]
        )
        == 0
    )
    report = tmp_path / "report.json"
    test = [
        "test",
        str(proto),
        "--ways",
        "4",
        "--queries",
        "2",
        "--tasks",
        "5",
        "--part",
        "train",
        "--race",
        "0",
        "--json",
        str(report),
    ]
    assert main([*test, "--imagined", str(run), "--count", "2"]) == 0
    assert "imagined examples" in capsys.readouterr().out
    assert main(test) == 0
    assert "imagines nothing" in fails(capsys, *test, "--imagined", str(proto))
    assert "imagines nothing" in fails(
        capsys, "imagine", str(proto), "--support", str(pictures), "--out", str(out)
    )


def test_sequences_and_curves_train_and_test_by_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ntm, cnp, report, plot = (
        tmp_path / "ntm",
        tmp_path / "cnp",
        tmp_path / "report.json",
        tmp_path / "plot.png",
    )
    assert (
        main(
            [
                "train",
                "ntm",
                "copy",
                "--out",
                str(ntm),
                "--steps",
                "2",
                "--length",
                "3",
                "--slots",
                "8",
            ]
        )
        == 0
    )
    assert (
        main(["test", str(ntm), "--tasks", "4", "--length", "6", "--json", str(report)])
        == 0
    )
    (row,) = json.loads(report.read_text())["results"]
    assert row["answer_steps"] == 6
    assert row["bits_per_sequence"] == pytest.approx(
        row["metrics"]["loss"]["mean"] * 6 / np.log(2)
    )
    assert "copy has no shots" in fails(capsys, "test", str(ntm), "--shots", "3")
    assert (
        main(
            [
                "train",
                "cnp",
                "gp-curves",
                "--out",
                str(cnp),
                "--steps",
                "2",
                "--kernel",
                "matern",
            ]
        )
        == 0
    )
    assert (
        main(
            [
                "test",
                str(cnp),
                "--tasks",
                "30",
                "--race",
                "0",
                "--json",
                str(report),
                "--plot",
                str(plot),
            ]
        )
        == 0
    )
    rows = json.loads(report.read_text())["results"]
    assert [row["shots"] for row in rows] == [5, 10, 20]
    assert all(row["oracle"]["mean"] < row["metrics"]["loss"]["mean"] for row in rows)
    with Image.open(plot) as image:
        assert min(image.size) > 300
    assert "--plot draws curves" in fails(
        capsys, "test", str(ntm), "--tasks", "2", "--plot", str(plot)
    )


def test_a_learner_that_draws_while_it_trains_resumes_bit_for_bit(
    tmp_path: Path,
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = ["np", "gp-curves", "--width", "16", "--no-decay", "--warmup", "0"]
    assert main(["train", *flags, "--out", str(whole), "--steps", "12"]) == 0
    assert main(["train", *flags, "--out", str(parts), "--steps", "5"]) == 0
    torch.rand(3)
    assert (
        main(
            [
                "train",
                "np",
                "gp-curves",
                "--out",
                str(parts),
                "--steps",
                "12",
                "--resume",
            ]
        )
        == 0
    )
    same = zip(
        Run(whole).learner().parameters(),
        Run(parts).learner().parameters(),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in same)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["incontext", "copy"], "these tasks are sequences: try NTM, MANN or LSTM"),
        (["lstm", "copy", "--layers", "0"], "layers must be at least 1, not 0"),
        (["np", "gp-curves", "--draws", "0"], "draws must be at least 1, not 0"),
        (
            ["metagan", "strokes", "--scale", "0"],
            "the scale of distances must be positive",
        ),
        (["ntm", "copy", "--repeats", "3"], "copy has no option --repeats"),
    ],
)
def test_the_newer_families_refuse_what_cannot_work(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in fails(
        capsys, "train", *arguments, "--steps", "1", "--out", str(tmp_path / "run")
    )
    assert not (tmp_path / "run").exists()


def test_tests_of_sequences_and_curves_refuse_what_cannot_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ntm, code, plot = tmp_path / "ntm", tmp_path / "code", tmp_path / "plot.png"
    assert (
        main(
            [
                "train",
                "ntm",
                "copy",
                "--out",
                str(ntm),
                "--steps",
                "1",
                "--length",
                "3",
                "--slots",
                "8",
            ]
        )
        == 0
    )
    assert (
        main(
            ["train", "encoderdecoder", "gp-curves", "--out", str(code), "--steps", "1"]
        )
        == 0
    )
    assert "bits (9) of inputs" in fails(
        capsys, "test", str(ntm), "--on", "repeat-copy", "--tasks", "2"
    )
    assert "gp-curves has no length" in fails(
        capsys, "test", str(code), "--length", "3", "--tasks", "2"
    )
    assert "there is no folder" in fails(
        capsys,
        "test",
        str(code),
        "--tasks",
        "2",
        "--plot",
        str(tmp_path / "no" / "plot.png"),
    )
    assert "not plot" in fails(
        capsys, "test", str(code), "--tasks", "2", "--plot", "plot"
    )
    assert "there is no flag --kernels: did you mean --kernel?" in fails(
        capsys, "test", str(code), "--kernels", "rbf"
    )
    capsys.readouterr()
    assert (
        main(["test", str(code), "--tasks", "5", "--race", "0", "--plot", str(plot)])
        == 0
    )
    # a squared error is no density
    assert "exact posterior" not in capsys.readouterr().out


def test_list_and_cite(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert {"maml", "protonet", "scratch"} <= {
        entry["name"] for entry in entries if entry["kind"] == "learner"
    }
    assert all(
        entry["year"] and entry["family"]
        for entry in entries
        if entry["kind"] == "learner"
    )
    assert main(["list"]) == 0
    assert main(["cite", "maml"]) == 0
    assert "1703.03400" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "protonett", "strokes", "--out", "x"], "did you mean 'protonet'"),
        (["train", "protonet", "stroke", "--out", "x"], "choose one of strokes"),
        (["train", "protonet", "sinusoid", "--out", "x"], "answers for classes"),
        (
            ["train", "protonet", "strokes", "--out", "x", "--metrc", "cosine"],
            "did you mean --metric",
        ),
        (
            ["train", "protonet", "strokes", "--out", "x", "--metric", "cosin"],
            "did you mean 'cosine'",
        ),
        (
            ["train", "protonet", "strokes", "--out", "x", "--protocol", "lake"],
            "strokes has no option --protocol",
        ),
        (
            ["train", "protonet", "strokes", "--out", "x", "--ways", "0"],
            "not a positive number",
        ),
        (
            ["train", "protonet", "strokes", "--out", "x", "--encoder", "conv5"],
            "there is no network 'conv5'",
        ),
        (["train", "protonet", "folder", "--out", "x"], "folder needs --root"),
        (
            ["train", "protonet", "folder", "--out", "x", "--root", "nowhere"],
            "there is no folder nowhere",
        ),
        (
            ["train", "protonet", "strokes", "--out", "x", "--device", "gpu"],
            "no device 'gpu'",
        ),
        (
            [
                "train",
                "protonet",
                "strokes",
                "--out",
                "x",
                "--steps",
                "1",
                "--optimizer",
                "Adamm",
            ],
            "no optimizer 'Adamm'",
        ),
        (
            ["train", "protonet", "arrays", "--out", "x", "--file", "none.csv"],
            "there is no file",
        ),
        (["test", "nowhere"], "there is no run folder"),
        (["cite", "mamml"], "did you mean 'maml'"),
        (["adpt"], "did you mean 'adapt'"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_mistakes_get_one_clear_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *arguments)


def test_bad_data_gets_one_clear_line(
    run_folder: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(run_folder), str(tmp_path / "out.csv")
    empty, lone, broken = tmp_path / "empty", tmp_path / "lone", tmp_path / "broken"
    empty.mkdir()
    (lone / "only").mkdir(parents=True)
    Image.new("L", (28, 28)).save(lone / "only" / "a.png")
    for name in ("a", "b"):
        (broken / name).mkdir(parents=True)
        (broken / name / "x.png").write_bytes(b"not an image")
    query = str(pictures)
    assert "no class folders" in fails(
        capsys, "adapt", run, "--support", str(empty), "--query", query, "--out", out
    )
    assert "at least two classes" in fails(
        capsys, "adapt", run, "--support", str(lone), "--query", query, "--out", out
    )
    assert "cannot read" in fails(
        capsys, "adapt", run, "--support", str(broken), "--query", query, "--out", out
    )
    assert "there is no folder" in fails(
        capsys,
        "adapt",
        run,
        "--support",
        str(tmp_path / "none"),
        "--query",
        query,
        "--out",
        out,
    )
    assert "holds no images" in fails(
        capsys, "adapt", run, "--support", query, "--query", str(empty), "--out", out
    )
    assert "no folder" in fails(
        capsys,
        "adapt",
        run,
        "--support",
        query,
        "--query",
        query,
        "--out",
        str(tmp_path / "no" / "x.csv"),
    )
    arguments = [
        "train",
        "protonet",
        "folder",
        "--root",
        str(pictures),
        "--out",
        str(tmp_path / "r"),
    ]
    assert "need 50 classes" in fails(capsys, *arguments, "--ways", "50")
    assert "holds a run already" in fails(
        capsys, "train", "protonet", "strokes", "--out", run
    )
    assert "is a run of protonet on strokes" in fails(
        capsys, "train", "maml", "strokes", "--out", run, "--resume"
    )
    assert not (tmp_path / "r").exists()


def test_damaged_or_foreign_runs_are_refused(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def damaged(name: str, content: bytes) -> Path:
        copy = tmp_path / f"{name}-{len(content)}"
        copy.mkdir()
        for file in run_folder.iterdir():
            (copy / file.name).write_bytes(
                content if file.name == name else file.read_bytes()
            )
        return copy

    whole = (run_folder / "weights.safetensors").read_bytes()
    assert "damaged" in fails(
        capsys, "test", str(damaged("weights.safetensors", whole[: len(whole) // 2]))
    )
    assert "settings.json cannot be used" in fails(
        capsys, "test", str(damaged("settings.json", b'{"lear'))
    )
    assert "settings.json cannot be used" in fails(
        capsys, "test", str(damaged("settings.json", b'{"name": "another tool"}'))
    )
    half = damaged("checkpoint.pt", (run_folder / "checkpoint.pt").read_bytes()[:1000])
    assert "damaged" in fails(
        capsys, "train", "protonet", "strokes", "--out", str(half), "--resume"
    )
    evil = damaged("checkpoint.pt", b"cos\nsystem\n(S'touch pwned'\ntR.")
    assert "damaged" in fails(
        capsys, "train", "protonet", "strokes", "--out", str(evil), "--resume"
    )
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    assert "no run folder" in fails(capsys, "test", str(foreign))
    with pytest.raises(RunError):
        innerloop.load(foreign)


def test_starting_is_quick_because_torch_is_not_imported() -> None:
    code = "import sys, innerloop.cli; innerloop.cli.build_parser(['--help']); sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ}, check=False
        ).returncode
        == 0
    )


def test_a_run_begins_with_the_networks_of_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                "train",
                "finetune",
                "strokes",
                "--out",
                str(tmp_path / "before"),
                "--steps",
                "2",
                "--batch",
                "4",
            ]
        )
        == 0
    )
    begin = [
        "train",
        "gtn",
        "strokes",
        "--taught",
        "head",
        "--count",
        "0",
        "--out",
        str(tmp_path / "after"),
        "--from",
        str(tmp_path / "before"),
    ]
    assert main(begin) == 0
    assert "beginning with encoder of" in capsys.readouterr().out
    before, after = (
        innerloop.load(tmp_path / name).state_dict() for name in ("before", "after")
    )
    shared = [name for name in before if name.startswith("encoder.")]
    assert shared
    assert all(torch.equal(before[name], after[name]) for name in shared)
    assert json.loads((tmp_path / "after" / "settings.json").read_text())[
        "source"
    ] == str(tmp_path / "before")
    maml = [
        *SMALL[:6],
        "--steps",
        "1",
        "--batch",
        "1",
        "--from",
        str(tmp_path / "before"),
    ]
    # its encoder is in a net
    assert (
        main(["train", "maml", "strokes", "--out", str(tmp_path / "net"), *maml]) == 0
    )
    assert "beginning with encoder of" in capsys.readouterr().out
    found = fails(
        capsys,
        "train",
        "l2o",
        "quadratics",
        "--steps",
        "1",
        "--from",
        str(tmp_path / "before"),
        "--out",
        str(tmp_path / "none"),
    )
    assert "fits L2O: it has base, encoder" in found
    assert not (tmp_path / "none").exists()
