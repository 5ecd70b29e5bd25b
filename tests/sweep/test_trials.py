"""What a sweep says of its trials: of those that failed, were stopped or are damaged,
too.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from innerloop import Experiment
from innerloop.engine.errors import InnerloopError
from innerloop.measurements import Measurement
from innerloop.runs import Run, RunError
from innerloop.sweep import Axis, SweepPlan, Trial, sweep, tuning
from tests.cli.conftest import cli

pytest.importorskip("ray", reason="Ray is not installed")

STEPS = 19
PLAN = SweepPlan(
    Experiment("maml", "sinusoid", steps=STEPS),  # pyright: ignore[reportArgumentType]
    (Axis("learner.inner_lr", (0.01, 0.1)),),
)
WORDS = f"sweep maml sinusoid --steps {STEPS} --over learner.inner_lr=0.01,0.1"


def write(folder: Path, name: str, state: str, scores: list[float | None]) -> None:
    """A trial as its process leaves it."""
    note = folder / "trials" / f"{name}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    there = {"values": {"learner.inner_lr": 0.1}, "state": state, "text": "why"}
    note.write_text(json.dumps({**there, "better": 1}))
    run = folder / "runs" / name
    run.mkdir(parents=True)
    lines = [
        {"step": i, "validation": s, "validation_interval": s, "validation_tasks": 5}
        for i, s in enumerate(scores, 1)
    ]
    (run / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


class Tuner:
    """In the place of Ray's: two trials, of which some are at their end."""

    def __init__(self, *, terminated: int, lost: tuple[str, ...] = ()):
        self.num_terminated, self.num_errors = terminated, len(lost)
        self.lost = lost

    def fit(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return (
            SimpleNamespace(path=f"ray/_train_{name}_1", error=RuntimeError())
            for name in self.lost
        )


def swept(monkeypatch: pytest.MonkeyPatch, folder: Path, tuner: Tuner) -> None:
    PLAN.save(folder)
    monkeypatch.setattr(tuning, "connected", lambda *_: nullcontext())
    monkeypatch.setattr(tuning, "_tuner", lambda *_: tuner)


def test_a_failed_trial_is_last_whatever_killed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "aa_0", "running", [0.5])
    write(tmp_path, "bb_0", "running", [0.4, 0.8])
    swept(monkeypatch, tmp_path, Tuner(terminated=1, lost=("bb_0",)))
    first, second = sweep(PLAN, tmp_path, resume=True)
    assert (first.run.name, first.state) == ("aa_0", "stopped early")
    assert (second.run.name, second.state) == ("bb_0", "failed")
    assert "its process has ended" in second.text


def test_a_sweep_of_which_every_training_failed_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("aa_0", "bb_0"):
        write(tmp_path, name, "failed", [0.5])
    swept(monkeypatch, tmp_path, Tuner(terminated=2))
    assert cli(WORDS, "--out", tmp_path, "--resume") == 2
    said = capsys.readouterr()
    assert "every training failed" in said.err
    assert "why" in said.out
    assert "test the best" not in said.out


def test_a_sweep_that_was_interrupted_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "aa_0", "running", [0.5])
    swept(monkeypatch, tmp_path, Tuner(terminated=0))
    assert cli(WORDS, "--out", tmp_path, "--resume") == 130
    assert "add --resume to continue" in " ".join(capsys.readouterr().out.split())


def test_a_sweep_that_finds_no_ray_leaves_nothing_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise InnerloopError("Ray cannot be reached")

    monkeypatch.setattr(SweepPlan, "check", lambda plan: None)
    monkeypatch.setattr(tuning, "connected", unreachable)
    for _ in range(2):
        with pytest.raises(InnerloopError, match="cannot be reached"):
            sweep(PLAN, tmp_path / "sweep")


def test_a_score_that_is_not_finite_is_none(tmp_path: Path) -> None:
    write(tmp_path, "aa_0", "done", [0.5, None])
    write(tmp_path, "bb_0", "done", [0.1])
    assert [trial.run.name for trial in tuning.trials(tmp_path)] == ["bb_0", "aa_0"]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"state": '])
def test_a_damaged_trial_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    write(tmp_path, "aa_0", "done", [0.5])
    (tmp_path / "trials" / "aa_0.json").write_text(content)
    swept(monkeypatch, tmp_path, Tuner(terminated=2))
    with pytest.raises(RunError, match=r"aa_0\.json cannot be read"):
        sweep(PLAN, tmp_path, resume=True)


def test_values_of_one_name_are_told_apart() -> None:
    values = {"training.clip": 1.2345, "meta_gradient.clip": 0.2, "seed": 3}
    shown = Trial(values, Path(), Measurement("score", 1.0), 1, "done").labels
    assert shown == {"training.clip": 1.23, "meta_gradient.clip": 0.2, "seed": 3}


class Ended(Exception):
    """What the tests raise in a trial."""


def trained(
    monkeypatch: pytest.MonkeyPatch, folder: Path, **options: Any
) -> list[dict[str, Any]]:
    """A trial in this process; what it reports to Ray."""
    tune = pytest.importorskip("ray.tune")
    found = list[dict[str, Any]]()
    context = SimpleNamespace(get_trial_id=lambda: "aa_0")
    monkeypatch.setattr(tune, "get_context", lambda: context)
    monkeypatch.setattr(tune, "report", found.append)
    experiment = {**PLAN.experiment.expanded().as_dict(), **options}
    tuning._train({}, experiment=experiment, folder=str(folder), better=-1)
    return found


def test_training_goes_on_to_its_end_with_many_validations() -> None:
    # 19 steps are validated after each, since a tenth of them is 1.9
    results = [{"score": 1.0, "validations": i} for i in range(1, STEPS + 1)]
    assert STEPS > tuning.LONGEST
    scheduler = tuning._scheduler(PLAN)
    scheduler.set_search_properties("score", "max")
    trial: Any = SimpleNamespace(trial_id="aa_0")
    scheduler.on_trial_add(None, trial)
    said = {scheduler.on_trial_result(None, trial, result) for result in results}
    assert said == {"CONTINUE"}


def test_errors_of_any_type_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def events(*_: object, **__: object) -> None:
        raise Ended("no space\nleft")

    monkeypatch.setattr(Experiment, "train_events", events)
    with pytest.raises(Ended):
        trained(monkeypatch, tmp_path)
    assert tuning.trials(tmp_path)[0].state == "failed"
    assert tuning.trials(tmp_path)[0].text == "Ended: no space"


def test_reports_are_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = [{"step": 1, "validation": None}]
    monkeypatch.setattr(Run, "read_log", lambda run: log)
    monkeypatch.setattr(Experiment, "train_events", lambda *_, **__: iter(()))
    found = trained(monkeypatch, tmp_path)
    assert found == [{"score": float("-inf"), "validations": 1}]
