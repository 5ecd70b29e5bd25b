"""A sweep trains its trials on Ray, and continues where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from innerloop import Experiment
from innerloop.measurements import Measurement
from innerloop.runs import Run
from innerloop.sweep import Axis, SweepPlan, Trial, sweep
from tests.cli.conftest import cli

pytest.importorskip("ray", reason="Ray is not installed")


def test_the_best_trial_is_first() -> None:
    def trial(score: float | None, better: int) -> Trial:
        measured = None if score is None else Measurement("error", score)
        return Trial({}, Path(), measured, 3, "done", better=better)

    errors = [trial(score, -1) for score in (2.0, None, float("nan"), 1.0)]
    first, second, *_ = sorted(errors, key=lambda trial: trial.rank)
    assert (first.score, second.score) == (errors[3].score, errors[0].score)
    accuracies = sorted((trial(0.1, 1), trial(0.2, 1)), key=lambda trial: trial.rank)
    assert accuracies[0].score == Measurement("error", 0.2)


def test_a_sweep_ranks_its_trials_and_goes_on_after_a_crash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = Experiment("maml", "sinusoid", steps=4)  # pyright: ignore[reportArgumentType]
    axes = (Axis("learner.inner_lr", (0.01, 1e12)),)
    plan, seen = SweepPlan(experiment, axes, stopping=False), list[Trial]()
    folder = tmp_path / "sweep"
    found = sweep(plan, folder, jobs=2, watch=seen.append)
    assert [trial.state for trial in found] == ["done", "failed"]
    assert "diverged" in found[1].text
    assert {trial.run for trial in seen} == {trial.run for trial in found}
    log = Run(found[0].run).read_log()
    assert found[0].score is not None
    assert log[-1]["validation"] == found[0].score.mean

    # as a machine that stopped before a trial could say that it had ended
    note = folder / "trials" / f"{found[0].run.name}.json"
    there = json.loads(note.read_text())
    note.write_text(json.dumps({**there, "state": "running"}))
    words = "sweep maml sinusoid --steps 4 --over learner.inner_lr=0.01,1e12"
    assert cli(words, "--no-stopping", "--out", folder) == 2
    assert "resume it with --resume" in capsys.readouterr().err
    assert cli(words, "--out", folder, "--resume") == 2
    assert "describes another sweep" in capsys.readouterr().err
    assert cli(words, "--no-stopping", "--out", folder, "--resume") == 0
    assert f"innerloop test {found[0].run}" in capsys.readouterr().out.replace("\n", "")
    assert Run(found[0].run).read_log() == log
