"""Running a study: trainings and tests in processes, side by side."""

from __future__ import annotations

import datetime
import json
import re
import shlex
import subprocess
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from innerloop.engine.errors import InnerloopError
from innerloop.processes import PATIENCE, Job, launch
from innerloop.runs import Run, RunError, file_name, write_atomically
from innerloop.studies.results import Result, Results
from innerloop.studies.study import Study, StudyError, StudyRow, Test
from innerloop.studies.system import cores, system

LIMIT = 100 * 3600.0  # seconds of a process
TICK = 0.25  # seconds between looks at the processes
CELL, EVENTS, OUTPUT = "cell.json", "events.jsonl", "output.txt"


@dataclass
class Cell:
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
    needs: dict[str, Cell] = field(default_factory=dict)
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
        rows: tuple[str, ...] = (),
    ):
        self.results, self.jobs = results, jobs or cores()
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
        self.cells: list[Cell] = []
        made: dict[tuple[str, int], Cell] = {}
        for row in self.study.rows:
            for seed in range(wanted[row.id]):
                folder = runs / study.name / f"{row.id}-{_short(row.line)}-{seed}"
                cell = Cell(row, seed, folder, self.study.tests_of(row))
                for key in row.needs:
                    cell.needs[key] = made.get((key, seed)) or made[key, 0]
                made[row.id, seed] = cell
                self.cells.append(cell)
        self.system = {**system(), "jobs": self.jobs}

    # ------------------------------------------------------------------ running

    def __iter__(self) -> Generator[list[Cell]]:
        """Run what is missing; yields all cells, again and again."""
        self._skip_done()
        try:
            while not all(cell.over for cell in self.cells):
                for cell in self.cells:
                    self._look(cell)
                yield self.cells
                time.sleep(TICK)
        finally:
            self._stop()
        yield self.cells

    def collect(self) -> list[Cell]:
        """Store what the run folders hold, and start nothing."""
        for cell in self.cells:
            self._finish(cell)
            if not cell.over:
                cell.state, cell.text = "stopped", "not finished"
        return self.cells

    def _skip_done(self) -> None:
        """Cells whose results are stored; but a run that another cell needs must be
        there.
        """
        needed: set[int] = set()
        for cell in reversed(self.cells):
            done = self.results.measured(self.study, cell.row, cell.seed, cell.tests)
            if done and (id(cell) not in needed or self._trained(cell)):
                cell.state = "done"
            else:
                needed |= {id(other) for other in cell.needs.values()}

    def _look(self, cell: Cell) -> None:
        """Take a cell one step further, where that is possible now."""
        if cell.over:
            return
        if cell.job is not None:
            if cell.job.alive:
                self._watch(cell)
                return
            self._ended(cell)
            if cell.over:
                return
        for other in cell.needs.values():
            if other.state in ("failed", "stopped"):
                cell.state, cell.text = "failed", f"{other.row.name} failed"
                return
            if not (other.over or self._trained(other)):
                return
        busy = sum(other.job is not None for other in self.cells)
        if busy < self.jobs:
            self._next(cell)

    def _next(self, cell: Cell) -> None:
        """Start the next process of a cell, or store its result."""
        cell.files.mkdir(parents=True, exist_ok=True)
        self._check_owner(cell)
        if not self._trained(cell):
            cell.state, cell.progress = "training", 0.0
            if cell.row.script:
                self._start_script(cell)
            else:
                self._start(cell, self._training(cell))
            return
        for test in cell.tests:
            if not cell.test_file(test).exists():
                flags = self._words(cell, test.flags)
                file = str(cell.test_file(test).resolve())
                cell.state, cell.progress = "testing", 0.0
                cell.text = test.name
                self._start(
                    cell, ["test", str(cell.folder.resolve()), *flags, "--json", file]
                )
                return
        self._finish(cell)

    def _training(self, cell: Cell) -> list[str]:
        folder = cell.folder.resolve()
        begun = (folder / "experiment.json").exists()
        return [
            *("train", *self._words(cell, cell.row.train)),
            *("--seed", str(cell.seed), "--out", str(folder)),
            *("--events", str(cell.files.resolve() / EVENTS)),
            *(["--resume"] if begun else []),
        ]

    def _start(self, cell: Cell, words: list[str]) -> None:
        threads = str(max(1, cores() // self.jobs))
        own = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        cell.job = launch(words, cell.files / OUTPUT, cell.state, LIMIT, own)

    def _start_script(self, cell: Cell) -> None:
        script, *words = self._words(cell, cell.row.script)
        path = Path(__file__).resolve().parents[3] / script
        if not path.is_file():
            cell.state = "failed"
            cell.text = f"{script} is in the source tree only"
            return
        file = str(cell.test_file(Test("")).resolve())
        self._start(cell, [str(path), *words, "--json", file])

    def _words(self, cell: Cell, line: str) -> list[str]:
        for key, other in cell.needs.items():
            line = line.replace(f"{{{key}}}", shlex.quote(str(other.folder.resolve())))
        return shlex.split(line)

    # ------------------------------------------------------------------ looking

    def _watch(self, cell: Cell) -> None:
        """The progress of a training, from its last event."""
        if cell.state != "training":
            return
        event = _last_json(cell.files / EVENTS)
        if event.get("event") == "stepped":
            cell.progress = float(event.get("progress") or 0.0)
            loss = (event.get("metrics") or {}).get("loss")
            cell.text = f"step {event.get('step')}"
            cell.text += f", loss {loss:.3f}" if loss is not None else ""

    def _ended(self, cell: Cell) -> None:
        assert cell.job is not None
        code, stopping = cell.job.process.returncode, cell.job.stopping
        cell.job = None
        if code == 0:
            if cell.state == "training":
                self._mark_trained(cell)
            return
        cell.state = "stopped" if stopping else "failed"
        cell.text = _last_line(cell.files / OUTPUT)

    def _stop(self) -> None:
        going = [cell for cell in self.cells if cell.job is not None]
        for cell in going:
            assert cell.job is not None
            cell.job.stop()
        for cell in going:
            assert cell.job is not None
            try:
                cell.job.process.wait(PATIENCE + 5)
            except subprocess.TimeoutExpired:
                cell.job.process.kill()
            cell.state, cell.job = "stopped", None

    # ------------------------------------------------------------------ files

    def _cell(self, cell: Cell) -> dict[str, Any]:
        needs = {key: other.row.line for key, other in cell.needs.items()}
        return {
            "study": self.study.name,
            "row": cell.row.id,
            "seed": cell.seed,
            "line": cell.row.line,
            "needs": needs,
        }

    def _read_cell(self, cell: Cell) -> dict[str, Any]:
        try:
            return json.loads((cell.files / CELL).read_text("utf-8"))
        except (OSError, ValueError):
            return {}

    def _check_owner(self, cell: Cell) -> None:
        """Raises StudyError where the folder holds another training."""
        there, own = self._read_cell(cell), self._cell(cell)
        if any(there.get(key, own[key]) != own[key] for key in own):
            raise StudyError(
                f"{cell.folder} holds another training: {there.get('line')}; remove it"
            )
        if not there:
            write_atomically(cell.files / CELL, json.dumps(own).encode())

    def _mark_trained(self, cell: Cell) -> None:
        done = {**self._cell(cell), "trained": True, "system": self.system}
        write_atomically(cell.files / CELL, json.dumps(done).encode())

    def _trained(self, cell: Cell) -> bool:
        there = self._read_cell(cell)
        return bool(there.get("trained")) and there.get("line") == cell.row.line

    def _finish(self, cell: Cell) -> None:
        """Store the result of a cell whose files are all there."""
        if not self._trained(cell):
            return
        tests = {}
        for test in cell.tests:
            try:
                report = json.loads(cell.test_file(test).read_text("utf-8"))
            except (OSError, ValueError):
                return
            report = {key: report[key] for key in ("tables", "notes", "context")}
            tests[test.name] = {"flags": test.flags, "report": report}
        there = self._read_cell(cell)
        details = self._details(cell) if cell.row.train else {}
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        self.results.put(
            Result(
                cell.row.id,
                cell.seed,
                cell.row.line,
                there["needs"],
                tests,
                system=there["system"],
                date=today,
                **details,
            )
        )
        cell.state, cell.progress, cell.text = "done", 1.0, ""

    def _details(self, cell: Cell) -> dict[str, Any]:
        run = Run(cell.folder)
        try:
            log, experiment = run.read_log(), run.experiment()
        except RunError as error:
            raise InnerloopError(f"{cell.folder} cannot be used: {error}") from error
        keys = ("step", "seconds", "validation", "validation_interval")
        last = log[-1] if log else {"step": 0, "seconds": 0.0}
        if cell.needs:
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
