"""Runs on tasks that are played: trained, resumed, tested, refused."""

import json
from pathlib import Path

import pytest
import torch

import innerloop
from innerloop.cli import main
from innerloop.rl import Policy
from innerloop.runs import Run

SMALL = [
    "--arms",
    "2",
    "--pulls",
    "4",
    "--hidden",
    "6",
    "--batch",
    "16",
    "--steps",
    "12",
]


@pytest.mark.parametrize("gradient", ["ppo", "a2c"])
def test_a_stopped_training_resumes_bit_for_bit(
    gradient: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = [
        "train",
        "rl2",
        "bandits",
        *SMALL,
        "--meta-gradient",
        gradient,
        "--discount",
        "0.9",
    ]
    assert main([*flags, "--out", str(whole)]) == 0
    log = Run.log

    def stopped(self: Run, line: dict[str, object]) -> None:
        log(self, line)
        if line["step"] == 5:  # PPO is in the middle of what it has played
            raise OSError("no space left")

    monkeypatch.setattr(Run, "log", stopped)
    assert main([*flags, "--out", str(parts)]) == 2
    monkeypatch.undo()
    assert Run(parts).settings().outer == {"discount": 0.9}
    state = torch.load(parts / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4
    assert gradient != "ppo" or len(state["outer"]["parts"]) == 4
    assert main([*flags, "--out", str(parts), "--resume", "--entropy", "0.5"]) == 2
    assert main([*flags, "--out", str(parts), "--resume"]) == 0
    a, b = innerloop.load(whole).state_dict(), innerloop.load(parts).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_is_tested_beside_the_oracles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = str(tmp_path / "run"), tmp_path / "figures.json"
    assert (
        main(
            [
                "train",
                "lstm",
                "mdps",
                "--episodes",
                "2",
                "--hidden",
                "6",
                "--batch",
                "16",
                "--steps",
                "1",
                "--out",
                folder,
            ]
        )
        == 0
    )
    learner = innerloop.load(folder)
    assert learner.likelihood == Policy(value=True)
    assert main(["test", folder, "--tasks", "20", "--json", str(out)]) == 0
    said = capsys.readouterr().out
    assert "PSRL: " in said
    assert "by episode of a trial: " in said
    (row,) = json.loads(out.read_text())["results"]
    assert len(row["instances"]) == 2
    assert row["metrics"]["reward"]["mean"] == pytest.approx(20, abs=5)
    assert row["oracles"]["random"]["mean"] == pytest.approx(20, abs=5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["rl2", "strokes"],
            "RL2|strokes is none of the tasks that are played (bandits, mdps, mazes, navigation, half-cheetah): give a",
        ),
        (
            ["lstm", "bandits", "--meta-gradient", "es"],
            "es cannot play, and bandits is one of the tasks that are played",
        ),
        (["maml", "bandits", "--meta-gradient", "ppo"], "needs a learner that streams"),
        (["protonet", "bandits"], "ProtoNet answers for classes"),
        (["rl2", "mazes", "--arms", "3"], "mazes has no option --arms"),
        (
            ["rl2", "mazes", "--discount", "3"],
            "discount and trace are from 0 to 1, entropy and critic 0 or more: got 3.0",
        ),
        (
            ["maml", "sinusoid", "--discount", "0.9"],
            "--discount means nothing to --meta-gradient backprop",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        main(["train", *arguments, "--steps", "1", "--out", str(tmp_path / "run")]) == 2
    )
    assert message.split("|")[-1] in capsys.readouterr().err
