"""ActiveLearner and going on learning from the command line."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from innerloop.cli import main
from innerloop.cli.generate import picture
from innerloop.tasks import strokes


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    small = ["--encoder", "conv4", "--steps", "1"]
    assert (
        main(
            [
                "train",
                "protonet",
                "strokes",
                "--ways",
                "3",
                "--queries",
                "2",
                "--out",
                str(root / "proto"),
                *small,
            ]
        )
        == 0
    )
    asking = [
        "--from",
        str(root / "proto"),
        "--labels",
        "6",
        "--rollouts",
        "2",
        "--batch",
        "1",
    ]
    assert (
        main(
            ["train", "asking", "pools", "--out", str(root / "asking"), *asking, *small]
        )
        == 0
    )
    return root


def test_a_run_of_asking_is_tested_beside_other_ways_of_asking(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert (
        main(
            [
                "test",
                str(runs / "asking"),
                "--tasks",
                "3",
                "--json",
                str(tmp_path / "a.json"),
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "by how much the learned policy is better" in said
    assert "of these classes were trained on" not in said
    row = json.loads((tmp_path / "a.json").read_text())["results"][0]
    assert len(row["asking"]["margin"]["accuracy"]) == 6
    assert row["asking"]["learned"]["accuracy"][5]["mean"] == pytest.approx(
        row["metrics"]["accuracy"]["mean"]
    )


def test_ask_names_images_of_the_pool(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    task = (
        strokes("test", ways=4, shots=3, queries=1)
        .sample(1, torch.Generator().manual_seed(0))
        .unbind()[0]
    )
    for folder in ("pool", "known/a", "known/b"):
        (tmp_path / folder).mkdir(parents=True)
    for i, image in enumerate(task.support.x):
        Image.Image.save(picture(image), tmp_path / "pool" / f"{i:02d}.png")
    for name, image in zip("ab", task.query.x[:2], strict=True):
        picture(image).save(tmp_path / "known" / name / "0.png")
    asked = [
        "ask",
        str(runs / "asking"),
        "--pool",
        str(tmp_path / "pool"),
        "--labels",
        "3",
    ]
    for more in (
        [],
        ["--labelled", str(tmp_path / "known")],
        ["--strategy", "k-centre"],
    ):
        assert main([*asked, *more]) == 0
        names = capsys.readouterr().out.split()
        assert len(set(names)) == 3
        assert all((tmp_path / "pool" / name).is_file() for name in names)
    assert main(["ask", str(runs / "proto"), "--pool", str(tmp_path / "pool")]) == 2
    assert "asks for no labels" in capsys.readouterr().err


def test_classes_one_after_the_other(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    told = [
        "--shots",
        "2",
        "--queries",
        "1",
        "--streams",
        "2",
        "--json",
        str(tmp_path / "c.json"),
    ]
    assert main(["test", str(runs / "proto"), "--continual", "2", *told]) == 0
    assert "forgetting" in capsys.readouterr().out
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["continual"]["classes"] == [26, 52]
    assert found["continual"]["told_forgetting"]["mean"] == 0
    assert found["seen_classes"] == 0
    assert main(["test", str(runs / "asking"), "--continual", "2"]) == 2
    assert "--continual needs tasks of classes" in capsys.readouterr().err
