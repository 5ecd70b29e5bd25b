"""A study is run once: what is done stays done, and what failed is named."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from innerloop.runs import Run
from innerloop.studies import Result, Results, Runner, Study, StudyError
from innerloop.studies.running import Trial
from innerloop.studies.study import Test, parse
from tests.cli.conftest import cli
from tests.studies.scripts import SCRIPT, log
from tests.studies.scripts import scripts as written

TINY = "sinusoid --batch 1 --shots 2 --queries 2"
TEST = '[tests]\n"1-shot" = "--shots 1 --queries 2 --tasks 3"\n'


def scripts(folder: Path, *rows: tuple[str, float]) -> Study:
    return parse("mine", tomllib.loads(written(folder, *rows)))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., list[Trial]]:
    """Run a study in an empty folder to its end, or until `until` says so."""

    def to_the_end(
        study: Study,
        until: Callable[[list[Trial]], bool] = lambda trials: False,
        **options: object,
    ) -> list[Trial]:
        stored = Results(tmp_path / "results" / "mine.json")
        options = {"jobs": 1, **options}
        runner = Runner(study, stored, tmp_path / "runs", **options)  # pyright: ignore[reportArgumentType]
        began = time.monotonic()
        with contextlib.closing(iter(runner)) as steps:
            for trials in steps:
                if until(trials):
                    break
                assert time.monotonic() - began < 500
        return runner.trials

    return to_the_end


def results(folder: Path) -> list[Result]:
    return Results(folder / "results" / "mine.json").all


def states(trials: list[Trial]) -> list[str]:
    return [trial.state for trial in trials]


def test_what_is_stored_is_not_run_again(
    tmp_path: Path, run: Callable[..., list[Trial]]
) -> None:
    study = scripts(tmp_path, ("a", 0), ("b", 0))
    assert states(run(study, rows=("b",))) == ["done"]
    assert states(run(study)) == ["done", "done"]
    assert log(tmp_path) == ["b", "a"]
    shutil.rmtree(tmp_path / "runs")
    assert states(run(study, seeds=2)) == ["done"] * 4
    assert sorted(log(tmp_path)) == ["a", "a", "b", "b"]
    stored = results(tmp_path)
    assert [(r.row, r.seed) for r in stored] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert all(r.system["cores"] and r.date and not r.note for r in stored)


def test_copied_numbers_are_measured_again(
    tmp_path: Path, run: Callable[..., list[Trial]]
) -> None:
    study = scripts(tmp_path, ("a", 0))
    run(study)
    (stored,) = results(tmp_path)
    place = Results(tmp_path / "results" / "mine.json")
    place.put(replace(stored, note="copied", date="2020-01-01"))
    for folder in (tmp_path / "runs" / "mine").iterdir():
        (folder / "study" / "trial.json").unlink()
    run(study)
    (stored,) = results(tmp_path)
    assert stored.note == ""
    assert log(tmp_path) == ["a", "a"]


def test_a_row_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, run: Callable[..., list[Trial]]
) -> None:
    study = scripts(tmp_path, ("broken", 0), ("b", 0))
    dependent = replace(
        study.rows[1], id="c", name="c", script=study.rows[1].script + " {broken}"
    )
    trials = run(replace(study, rows=(*study.rows, dependent)))
    assert states(trials) == ["failed", "done", "failed"]
    assert trials[0].text == "it broke: 7 is not 8"
    assert trials[2].text == "broken failed"
    assert [r.row for r in results(tmp_path)] == ["b"]
    assert states(run(study, rows=("broken",))) == ["failed"]  # it is tried again
    assert log(tmp_path).count("broken") == 2


def test_closing_stops_the_processes_and_a_new_run_goes_on(
    tmp_path: Path, run: Callable[..., list[Trial]]
) -> None:
    study = scripts(tmp_path, ("a", 0), ("b", 300), ("c", 0))
    jobs = []

    def started(trials: list[Trial]) -> bool:
        jobs.append(trials[1].job)
        return "b" in log(tmp_path)

    trials = run(study, started)
    # asked to stop, so that a training saves a checkpoint; not killed
    assert jobs[-1].process.returncode == -signal.SIGTERM
    assert states(trials) == ["done", "stopped", "waiting"]
    assert trials[1].job is None
    again = scripts(tmp_path, ("a", 0), ("b", 0), ("c", 0))
    assert states(run(again)) == ["done"] * 3
    assert log(tmp_path) == ["a", "b", "b", "c"]


def test_as_many_processes_as_jobs(
    tmp_path: Path, run: Callable[..., list[Trial]]
) -> None:
    study = scripts(tmp_path, ("a", 1), ("b", 1), ("c", 1))
    most = 0

    def watch(trials: list[Trial]) -> bool:
        nonlocal most
        most = max(most, sum(trial.job is not None for trial in trials))
        return False

    run(study, watch, jobs=2)
    assert most == 2


def test_a_folder_of_another_training_is_not_used(
    tmp_path: Path, run: Callable[..., list[Trial]]
) -> None:
    study = scripts(tmp_path, ("a", 0))
    run(study)
    (folder,) = (tmp_path / "runs" / "mine").iterdir()
    there = json.loads((folder / "study" / "trial.json").read_text())
    changed = {**there, "line": "another"}
    (folder / "study" / "trial.json").write_text(json.dumps(changed))
    (tmp_path / "results" / "mine.json").unlink()
    with pytest.raises(StudyError, match="holds another training: another; remove it"):
        run(study)


def test_a_script_measures_all_tests_at_once_whatever_their_flags(
    tmp_path: Path, run: Callable[..., list[Trial]]
) -> None:
    study = scripts(tmp_path, ("a", 0))
    tests = {name: Test(name, f"--shots {name}", "of=a / score") for name in "15"}
    study = replace(study, tests=tests)
    (trial,) = run(study)
    assert trial.state == "done", trial.text
    (stored,) = results(tmp_path)
    assert all(stored.has(test) for test in tests.values())
    assert stored.tests["5"]["as"] == "1"


def test_a_script_that_is_not_there_is_named(
    tmp_path: Path, run: Callable[..., list[Trial]]
) -> None:
    text = '[tests]\n"a" = ""\n[[row]]\nname = "A"\nscript = "benchmarks/none.py"\n'
    (trial,) = run(parse("mine", tomllib.loads(text)))
    assert trial.state == "failed"
    assert trial.text == "benchmarks/none.py is in the source tree only"


def test_trainings_share_a_budget(tmp_path: Path) -> None:
    text = "seeds = 3\n" + TEST
    for name in "ab":
        text += f'[[row]]\nname = "{name}"\ntrain = "protonet strokes --steps 9"\n'
    study = parse("mine", tomllib.loads(text))
    stored = Results(tmp_path / "mine.json")
    runner = Runner(study, stored, tmp_path, budget=10, jobs=2)
    assert [trial.row.train for trial in runner.trials] == [
        "protonet strokes --minutes 10"
    ] * 2
    runner = Runner(study, stored, tmp_path, budget=10, jobs=1, seeds=2)
    assert [trial.row.train for trial in runner.trials] == [
        "protonet strokes --minutes 2.5"
    ] * 4
    assert len({trial.folder for trial in runner.trials}) == 4
    with pytest.raises(StudyError, match="has no row 'c'"):
        Runner(study, stored, tmp_path, rows=("c",))


def test_a_training_that_was_stopped_is_continued(
    tmp_path: Path, run: Callable[..., list[Trial]]
) -> None:
    row = f'[[row]]\nname = "A"\ntrain = "maml {TINY} --steps 1000000"\n'
    study = parse("mine", tomllib.loads(TEST + row))

    def steps(trials: list[Trial]) -> list[int]:
        file = trials[0].folder / "study" / "events.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [event["step"] for event in found if event["event"] == "stepped"]

    trials = run(study, lambda trials: len(steps(trials)) > 0)
    assert states(trials) == ["stopped"]
    assert Run(trials[0].folder).exists
    before = steps(trials)
    trials = run(study, lambda trials: steps(trials)[-1] > before[-1])
    after = steps(trials)
    assert after == sorted(after)
    assert results(tmp_path) == []


def test_rows_start_from_the_runs_of_others_and_compare_them(
    tmp_path: Path, run: Callable[..., list[Trial]]
) -> None:
    text = (
        TEST
        + f"""
"difference" = {{report = true}}
[[row]]
name = "the 'first'"
id = "first"
hidden = true
train = "maml {TINY} --steps 3"
[[row]]
name = "second"
train = "maml {TINY} --init-from {{first}} --steps 2"
tests = ["1-shot"]
[[row]]
name = "both"
script = "compare {{first}} {{second}} --tasks 3"
tests = ["difference"]
"""
    )
    study = parse("mine", tomllib.loads(text))
    trials = run(study)
    assert states(trials) == ["done"] * 3, [trial.text for trial in trials]
    stored = {r.row: r for r in results(tmp_path)}
    assert stored["first"].steps == 3
    assert stored["first"].tests == {}
    second = stored["second"]
    assert second.needs == {"first": study.row("first").line}
    assert second.experiment["init_from"] is None
    assert second.steps == 2
    row = second.report("1-shot").tables[0].rows[0]
    assert row.values[0].n == 3
    assert row.signature.startswith("sinusoid")
    scores, pairs = stored["both"].report("difference").tables
    assert [row.labels["run"] for row in scores.rows] == ["the 'first'", "second"]
    assert pairs.title == "difference to the 'first', paired by task"
    # numbers that are stored stay, without the folders
    before = (tmp_path / "results" / "mine.json").read_text()
    for trial in trials:
        trial.folder.rename(trial.folder.with_name(trial.folder.name + "-moved"))
    assert states(run(study)) == ["done"] * 3
    assert (tmp_path / "results" / "mine.json").read_text() == before
    assert not trials[0].folder.exists()


def test_collect_stores_what_the_folders_hold(
    tmp_path: Path, run: Callable[..., list[Trial]]
) -> None:
    study = scripts(tmp_path, ("a", 0), ("b", 0))
    run(study, rows=("a",))
    place = tmp_path / "results" / "mine.json"
    before = results(tmp_path)
    place.unlink()
    trials = Runner(study, Results(place), tmp_path / "runs").collect()
    assert states(trials) == ["done", "stopped"]
    assert results(tmp_path) == before
    assert log(tmp_path) == ["a"]


def test_the_command_runs_lists_shows_and_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    file = tmp_path / "mine.toml"
    rows = "".join(
        f'[[row]]\nname = "{name}"\nscript = "{tmp_path}/script.py {name} 0"\n'
        for name in ("good", "broken")
    )
    file.write_text('title = "Mine"\n[tests]\n"score" = ""\n' + rows)
    where = ["--results", str(tmp_path / "results")]
    options = ["--runs", str(tmp_path / "runs"), *where]
    assert cli("study", "run", str(file), "--row", "broken", *options) == 1
    assert "stored in" not in capsys.readouterr().out
    assert cli("study", "run", str(file), "--row", "good", *options) == 0
    assert "50.00 ± 10.00 %" in capsys.readouterr().out
    assert cli("study", "run", str(file), *options) == 1
    assert "broken, seed 0: failed: it broke" in capsys.readouterr().out
    assert cli("study", "show", str(file), *where) == 0
    shown = capsys.readouterr().out
    assert "of=good score 50.00 ± 10.00 %" in shown
    assert cli("study", "table", str(file), "--format", "markdown", *where) == 0
    assert "| good | 50.00 ± 10.00 % |" in capsys.readouterr().out
    assert cli("study", "table", str(file), "--format", "json", *where) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["learner"], found["labels"], found["mean"]) == (
        "good",
        "of=good",
        0.5,
    )
    whole = tmp_path / "whole.toml"
    text = file.read_text().replace('"score" = ""', '"score" = {report = true}')
    whole.write_text(text)
    assert cli("study", "table", str(whole), *where) == 0
    assert capsys.readouterr().out == "Mine: see innerloop study show whole\n\n"
    assert cli("study", "list", *where) == 0
    assert "copy" in capsys.readouterr().out
