"""Running a study: trainings and tests in processes, side by side."""

from __future__ import annotations

import datetime
import json
import re
import shlex
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from innerloop.engine.errors import InnerloopError
from innerloop.runs import Run, RunError, file_name, write_atomically
from innerloop.studies.machines import TICK, Job, Machines, ThisMachine
from innerloop.studies.results import Result, Results
from innerloop.studies.study import Study, StudyError, StudyRow, Test

TRIAL, EVENTS, OUTPUT = "trial.json", "events.jsonl", "output.txt"


@dataclass
class Trial:
    """One training of a study and its tests, on their way.

    Args:
        row: as it is run here, perhaps for a shorter time than in the study.
        seed: of the training.
        folder: its run folder.
        state: "waiting", "training", "testing", "done", "failed" or "stopped".
        progress: of the training or the test, 0 to 1.
        text: what to show, such as the last validation or the error.
    """

    row: StudyRow
    seed: int
    folder: Path
    tests: list[Test]
    needs: dict[str, Trial] = field(default_factory=dict)
    state: str = "waiting"
    progress: float = 0.0
    text: str = ""
    job: Job | None = None

    @property
    def files(self) -> Path:
        """Where the study keeps what belongs to this training."""
        return self.folder / "study"

    def test_file(self, test: Test) -> Path:
        """Where the report of a test is; a script writes one for all of them."""
        flags = "" if self.row.script else test.flags
        return self.files / (file_name(flags or "report") + ".json")

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "stopped")


class Runner:
    """A study that is run: iterate to run it, one step at each look at the processes;
    closing the iterator stops them.

    Args:
        study: what to run.
        results: where to store what is measured.
        runs: folder of the run folders.
        seeds: how many trainings of each row (default: as the study says, or one where
            a budget is set).
        budget: minutes that all trainings share equally, in place of the study's own
            lengths; tests need further time.
        jobs: processes at once (default: one for each core).
        machines: where they run (default: on this machine).
        rows: names or ids of the rows to run, with those that they need.
    """

    def __init__(
        self,
        study: Study,
        results: Results,
        runs: Path,
        *,
        seeds: int | None = None,
        budget: float | None = None,
        jobs: int | None = None,
        machines: Machines | None = None,
        rows: tuple[str, ...] = (),
    ):
        self.machines = machines if machines is not None else ThisMachine()
        self.results, self.jobs = results, jobs or self.machines.cores
        self.study = study
        if rows:
            self.study = _only(study, rows)
        wanted = {
            row.id: seeds or (1 if budget else row.seeds or study.seeds)
            for row in self.study.rows
        }
        if budget is not None:
            trainings = sum(wanted[row.id] for row in self.study.rows if row.train)
            minutes = budget * self.jobs / max(1, trainings)
            shorter = tuple(row.shortened(minutes) for row in self.study.rows)
            self.study = replace(self.study, rows=shorter)
        self.trials: list[Trial] = []
        made: dict[tuple[str, int], Trial] = {}
        for row in self.study.rows:
            for seed in range(wanted[row.id]):
                folder = runs / study.name / f"{row.id}-{_short(row.line)}-{seed}"
                trial = Trial(row, seed, folder, self.study.tests_of(row))
                for key in row.needs:
                    trial.needs[key] = made.get((key, seed)) or made[key, 0]
                made[row.id, seed] = trial
                self.trials.append(trial)

    # ------------------------------------------------------------------ running

    def __iter__(self) -> Generator[list[Trial]]:
        """Run what is missing; yields all trials, again and again."""
        self._skip_done()
        try:
            while not all(trial.over for trial in self.trials):
                for trial in self.trials:
                    self._look(trial)
                yield self.trials
                time.sleep(TICK)
        finally:
            self._stop()
        yield self.trials

    def collect(self) -> list[Trial]:
        """Store what the run folders hold, and start nothing."""
        for trial in self.trials:
            self._finish(trial)
            if not trial.over:
                trial.state, trial.text = "stopped", "not finished"
        return self.trials

    def _skip_done(self) -> None:
        """Trials whose results are stored; but a run that another trial needs must be
        there.
        """
        needed: set[int] = set()
        for trial in reversed(self.trials):
            done = self.results.measured(self.study, trial.row, trial.seed, trial.tests)
            if done and (id(trial) not in needed or self._trained(trial)):
                trial.state = "done"
            else:
                needed |= {id(other) for other in trial.needs.values()}

    def _look(self, trial: Trial) -> None:
        """Take a trial one step further, where that is possible now."""
        if trial.over:
            return
        if trial.job is not None:
            if trial.job.alive:
                self._watch(trial)
                return
            self._ended(trial)
            if trial.over:
                return
        for other in trial.needs.values():
            if other.state in ("failed", "stopped"):
                trial.state, trial.text = "failed", f"{other.row.name} failed"
                return
            if not (other.over or self._trained(other)):
                return
        busy = sum(other.job is not None for other in self.trials)
        if busy < self.jobs:
            self._next(trial)

    def _next(self, trial: Trial) -> None:
        """Start the next process of a trial, or store its result."""
        trial.files.mkdir(parents=True, exist_ok=True)
        self._check_owner(trial)
        if not self._trained(trial):
            trial.state, trial.progress = "training", 0.0
            if trial.row.script:
                self._start_script(trial)
            else:
                self._start(trial, self._training(trial))
            return
        for test in trial.tests:
            if not trial.test_file(test).exists():
                flags = self._words(trial, test.flags)
                file = str(trial.test_file(test).resolve())
                trial.state, trial.progress = "testing", 0.0
                trial.text = test.name
                self._start(
                    trial, ["test", str(trial.folder.resolve()), *flags, "--json", file]
                )
                return
        self._finish(trial)

    def _training(self, trial: Trial) -> list[str]:
        folder = trial.folder.resolve()
        begun = (folder / "experiment.json").exists()
        return [
            *("train", *self._words(trial, trial.row.train)),
            *("--seed", str(trial.seed), "--out", str(folder)),
            *("--events", str(trial.files.resolve() / EVENTS)),
            *(["--resume"] if begun else []),
        ]

    def _start(self, trial: Trial, words: list[str]) -> None:
        threads = max(1, self.machines.cores // self.jobs)
        output = trial.files / OUTPUT
        trial.job = self.machines.start(words, output, trial.state, threads)

    def _start_script(self, trial: Trial) -> None:
        script, *words = self._words(trial, trial.row.script)
        if script.endswith(".py"):
            path = Path(__file__).resolve().parents[3] / script
            if not path.is_file():
                trial.state = "failed"
                trial.text = f"{script} is in the source tree only"
                return
            script = str(path)
        file = str(trial.test_file(Test("")).resolve())
        self._start(trial, [script, *words, "--json", file])

    def _words(self, trial: Trial, line: str) -> list[str]:
        for key, other in trial.needs.items():
            line = line.replace(f"{{{key}}}", shlex.quote(str(other.folder.resolve())))
        return shlex.split(line)

    # ------------------------------------------------------------------ looking

    def _watch(self, trial: Trial) -> None:
        """The progress of a training, from its last event."""
        if trial.state != "training":
            return
        event = _last_json(trial.files / EVENTS)
        if event.get("event") == "stepped":
            trial.progress = float(event.get("progress") or 0.0)
            loss = (event.get("metrics") or {}).get("loss")
            trial.text = f"step {event.get('step')}"
            trial.text += f", loss {loss:.3f}" if loss is not None else ""

    def _ended(self, trial: Trial) -> None:
        assert trial.job is not None
        job, trial.job = trial.job, None
        if job.code == 0:
            if trial.state == "training":
                self._mark_trained(trial, self.machines.system(job))
            return
        trial.state = "stopped" if job.stopping else "failed"
        trial.text = _last_line(trial.files / OUTPUT)

    def _stop(self) -> None:
        going = [trial for trial in self.trials if trial.job is not None]
        for trial in going:
            assert trial.job is not None
            trial.job.stop()
        for trial in going:
            assert trial.job is not None
            trial.job.wait()
            trial.state, trial.job = "stopped", None

    # ------------------------------------------------------------------ files

    def _trial(self, trial: Trial) -> dict[str, Any]:
        needs = {key: other.row.line for key, other in trial.needs.items()}
        return {
            "study": self.study.name,
            "row": trial.row.id,
            "seed": trial.seed,
            "line": trial.row.line,
            "needs": needs,
        }

    def _read_trial(self, trial: Trial) -> dict[str, Any]:
        try:
            return json.loads((trial.files / TRIAL).read_text("utf-8"))
        except (OSError, ValueError):
            return {}

    def _check_owner(self, trial: Trial) -> None:
        """Raises StudyError where the folder holds another training."""
        there, own = self._read_trial(trial), self._trial(trial)
        if any(there.get(key, own[key]) != own[key] for key in own):
            raise StudyError(
                f"{trial.folder} holds another training: {there.get('line')}; remove it"
            )
        if not there:
            write_atomically(trial.files / TRIAL, json.dumps(own).encode())

    def _mark_trained(self, trial: Trial, system: dict[str, Any]) -> None:
        system = {**system, "jobs": self.jobs}
        done = {**self._trial(trial), "trained": True, "system": system}
        write_atomically(trial.files / TRIAL, json.dumps(done).encode())

    def _trained(self, trial: Trial) -> bool:
        there = self._read_trial(trial)
        return bool(there.get("trained")) and there.get("line") == trial.row.line

    def _finish(self, trial: Trial) -> None:
        """Store the result of a trial whose files are all there."""
        if not self._trained(trial):
            return
        tests = {}
        for test in trial.tests:
            try:
                report = self._read_report(trial, test)
            except (OSError, ValueError):
                return
            report = {key: report[key] for key in ("tables", "notes", "context")}
            tests[test.name] = {"flags": test.flags, "report": report}
        there = self._read_trial(trial)
        details = self._details(trial) if trial.row.train else {}
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        self.results.put(
            Result(
                trial.row.id,
                trial.seed,
                trial.row.line,
                there["needs"],
                tests,
                system=there["system"],
                date=today,
                **details,
            )
        )
        trial.state, trial.progress, trial.text = "done", 1.0, ""

    def _read_report(self, trial: Trial, test: Test) -> dict[str, Any]:
        """A report, in which the runs that it uses have the names of their rows."""
        text = trial.test_file(test).read_text("utf-8")
        for other in trial.needs.values():
            text = text.replace(other.folder.name, json.dumps(other.row.name)[1:-1])
        return json.loads(text)

    def _details(self, trial: Trial) -> dict[str, Any]:
        run = Run(trial.folder)
        try:
            log, experiment = run.read_log(), run.experiment()
        except RunError as error:
            raise InnerloopError(f"{trial.folder} cannot be used: {error}") from error
        keys = ("step", "seconds", "validation", "validation_interval")
        last = log[-1] if log else {"step": 0, "seconds": 0.0}
        if trial.needs:
            experiment["init_from"] = None  # a path of this machine; see `line`
        return {
            "steps": last["step"],
            "seconds": last["seconds"],
            "curve": [[line.get(key) for key in keys] for line in log],
            "experiment": experiment,
        }


def _only(study: Study, wanted: tuple[str, ...]) -> Study:
    """A study with some of its rows, and those that these need."""
    kept = {study.row(key).id for key in wanted}
    for row in reversed(study.rows):
        if row.id in kept:
            kept |= set(row.needs)
    return replace(study, rows=tuple(row for row in study.rows if row.id in kept))


def _short(line: str) -> str:
    """A few letters that tell command lines apart."""
    return file_name(line + " ").rpartition("-")[2][:6]


def _last_json(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - 4096))
            lines = opened.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            return dict(json.loads(line))
        except ValueError:
            continue
    return {}


def _last_line(file: Path) -> str:
    try:
        text = file.read_text("utf-8", "replace")
    except OSError:
        return "it wrote nothing"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^innerloop(?: \w+)?: error: ", "", lines[-1]) if lines else ""
