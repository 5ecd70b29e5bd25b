"""Evolution by command: options, refusals, resuming, playing."""

from pathlib import Path

import pytest
import torch

import innerloop
from innerloop.cli import main
from innerloop.runs import Run

NEAT = ["neat", "xor", "--population", "10", "--batch", "4"]
CMA = [
    "lstm",
    "xor",
    "--hidden",
    "3",
    "--meta-gradient",
    "cma-es",
    "--sigma",
    "0.3",
    "--population",
    "6",
    "--batch",
    "4",
]
ES = [
    "esmaml",
    "sinusoid",
    "--pairs",
    "2",
    "--sigma",
    "0.02",
    "--ranked",
    "--batch",
    "2",
    "--no-decay",
]
PLAYED = [
    "neat",
    "bandits",
    "--arms",
    "2",
    "--pulls",
    "5",
    "--population",
    "6",
    "--batch",
    "8",
]


@pytest.mark.parametrize(
    "arguments", [NEAT, CMA, ES, PLAYED], ids=["neat", "cma-es", "es", "played"]
)
def test_what_evolves_trains_resumes_bit_for_bit_and_tests(
    arguments: list[str], tmp_path: Path
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert main(["train", *arguments, "--out", str(whole), "--steps", "4"]) == 0
    assert main(["train", *arguments, "--out", str(halves), "--steps", "2"]) == 0
    assert (
        main(["train", *arguments, "--out", str(halves), "--steps", "4", "--resume"])
        == 0
    )
    a, b = innerloop.load(whole).state_dict(), innerloop.load(halves).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    losses = [[line["loss"] for line in Run(run).read_log()] for run in (whole, halves)]
    assert losses[0] == losses[1]
    assert main(["test", str(halves), "--tasks", "4", "--race", "0"]) == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["maml", "sinusoid", "--pairs", "3"],
            "--pairs means nothing to --meta-gradient backprop",
        ),
        (
            ["maml", "sinusoid", "--meta-gradient", "es", "--population", "9"],
            "--population means nothing to --meta-gradient es",
        ),
        (
            ["maml", "sinusoid", "--meta-gradient", "cma-es", "--lr", "0.1"],
            "--lr means nothing to --meta-gradient cma-es, which takes steps",
        ),
        (
            ["maml", "sinusoid", "--meta-gradient", "neat"],
            "neat evolves the wiring of one network, that of the learner NEAT; MAML has other",
        ),
        (
            ["maml", "sinusoid", "--meta-gradient", "es", "--sigma", "0"],
            "es needs at least one pair and a positive sigma, got 16 and 0.0",
        ),
        (
            ["neat", "bandits", "--meta-gradient", "es"],
            "es cannot play, and bandits is one of the tasks that are played",
        ),
    ],
)
def test_what_means_nothing_is_refused(
    arguments: list[str], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["train", *arguments, "--steps", "2", "--out", str(tmp_path / "run")]) == 2
    )
    assert error in " ".join(capsys.readouterr().err.split())


def test_options_of_evolution_do_not_change_on_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert main(["train", *NEAT, "--steps", "2", "--out", run]) == 0
    assert Run(run).settings().outer == {"population": 10}
    assert (
        main(
            [
                "train",
                "neat",
                "xor",
                "--population",
                "11",
                "--steps",
                "4",
                "--out",
                run,
                "--resume",
            ]
        )
        == 2
    )
    assert "--population 11 cannot change on --resume: the run has 10" in " ".join(
        capsys.readouterr().err.split()
    )
