"""Trainings and tests of runs that were started from the page."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from innerloop.engine.errors import InnerloopError
from innerloop.processes import Job, launch
from innerloop.runs import FILES, Run, RunError, write_atomically
from innerloop.web.train_files import (
    EVENTS,
    MOST_TESTS,
    NAME,
    OUTPUT,
    STARTED,
    last_line,
    run_folders,
    settings_of,
    summary,
)

MOST_RUNS = 100
MOST_AT_ONCE = 2  # processes
LIMIT = 600 * 60.0  # seconds of a process
STOPPED = (130, -15)  # exit codes of a command that was stopped


class Conflict(InnerloopError):
    """What cannot be done now, with a code for the page."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class Trainings:
    """Runs in one folder, and the processes that train and test them. Its methods may
    be called from several threads.

    Args:
        folder: of the runs, or None where trainings are not allowed.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.jobs: dict[str, Job] = {}
        self.lock = threading.RLock()
        self.streams = 0  # that are open

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count a stream while it is open."""
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    @property
    def root(self) -> Path:
        """The folder. Raises Conflict where trainings are not allowed."""
        if self.folder is None:
            raise Conflict(
                "training",
                "trainings are off: start the server with innerloop serve "
                "--allow-training",
            )
        return self.folder

    @property
    def data(self) -> Path:
        """Where a user puts data that trainings can be started on."""
        return self.root / "data"

    # ------------------------------------------------------------------ looking

    def run(self, name: str) -> Path:
        """The folder of a run. Raises Conflict where there is none."""
        found = self.root / name
        if not NAME.fullmatch(name) or found not in run_folders(self.root):
            raise Conflict("missing", f"there is no run {name}")
        return found

    def describe(self, name: str) -> dict[str, Any]:
        """A run and its state. Raises Conflict where there is none."""
        return self._described(self.run(name))

    def all(self) -> list[dict[str, Any]]:
        """All runs, the newest first; those whose files are damaged are left out."""
        found = []
        for run in run_folders(self.root)[:MOST_RUNS]:
            with contextlib.suppress(RunError):
                found.append(self._described(run))
        return found

    def _described(self, run: Path) -> dict[str, Any]:
        found = summary(run)
        with self.lock:
            job = self.jobs.get(run.name)
        status = self._status(found, job)
        failed = status == "failed" or (job and not job.alive and _failed(job))
        return {
            **found,
            "status": status,
            "problem": last_line(run) if failed else "",
        }

    def _status(self, found: dict[str, Any], job: Job | None) -> str:
        if job is not None and job.alive:
            if job.kind == "test":
                return "testing"
            if job.stopping:
                return "stopping"
            return "running" if found["step"] else "starting"
        if found["trained"]:
            return "finished"
        if job is not None and job.kind == "train" and _failed(job):
            return "failed"
        return "stopped" if found["saved"] else "failed"

    def active(self, name: str) -> bool:
        """Whether a process of this run goes on."""
        with self.lock:
            job = self.jobs.get(name)
        return job is not None and job.alive

    # ------------------------------------------------------------------ acting

    def start(
        self, name: str, words: list[str], asked: dict[str, Any], command: str
    ) -> None:
        """Train a new run.

        Args:
            name: of the run.
            words: what follows `innerloop train`, without the folder.
            asked: what to keep of the request.
            command: the same as a line for a shell.

        Raises Conflict where that is not possible now.
        """
        folder = self.root / name
        with self.lock:
            self._check_free(name)
            if not NAME.fullmatch(name) or folder == self.data:
                raise Conflict("name", "choose another name for the run")
            if os.path.lexists(folder):
                raise Conflict("exists", f"there is a run {name}: choose another name")
            if len(run_folders(self.root)) >= MOST_RUNS:
                raise Conflict("full", f"there are {MOST_RUNS} runs: delete some first")
            try:
                folder.mkdir(parents=True)
            except OSError as error:
                raise Conflict(
                    "folder", f"cannot write to {self.root}: {error.strerror}"
                ) from error
            kept = {**asked, "command": command}
            write_atomically(folder / STARTED, json.dumps(kept).encode())
            self._launch(name, "train", ["train", *words, *self._places(folder)])

    def resume(self, name: str) -> None:
        """Continue a training that was stopped. Raises Conflict where there is nothing
        to continue.
        """
        run = self.run(name)
        with self.lock:
            self._check_free(name)
            found = self._described(run)
            if found["trained"] or not found["saved"]:
                raise Conflict("resume", f"there is nothing to resume in {name}")
            made = settings_of(run)
            words = [made["learner"]["name"], made["tasks"]["name"], "--resume"]
            self._launch(name, "train", ["train", *words, *self._places(run)])

    def test(self, name: str, tasks: int, seed: int) -> None:
        """Measure a run on unseen tasks. Raises Conflict where that is not possible
        now.
        """
        run = self.run(name)
        with self.lock:
            self._check_free(name)
            found = self._described(run)
            if not found["usable"]:
                raise Conflict("test", f"{name} has no weights yet: train it first")
            if len(found["tests"]) >= MOST_TESTS:
                raise Conflict("full", f"{name} was tested {MOST_TESTS} times already")
            words = ["--tasks", str(tasks), "--seed", str(seed)]
            self._launch(name, "test", ["test", str(run.resolve()), *words])

    def stop(self, name: str) -> None:
        """Stop what goes on in a run; a training saves a checkpoint first."""
        self.run(name)
        with self.lock:
            job = self.jobs.get(name)
            if job is None or not job.alive:
                raise Conflict("stop", f"nothing goes on in {name}")
            if not job.stopping:
                job.stop()

    def delete(self, name: str) -> None:
        """Delete what a training has written; other files in the folder stay, and so
        does the folder where there are any. Raises Conflict where the run goes on.
        """
        run = self.run(name)
        with self.lock:
            if self.active(name):
                raise Conflict("running", f"{name} goes on: stop it first")
            try:
                with Run(run).locked():
                    shutil.rmtree(run / "tests", ignore_errors=True)
                    for file in (*FILES, OUTPUT, EVENTS, STARTED):
                        (run / file).unlink(missing_ok=True)
            except (RunError, OSError) as error:
                raise Conflict(
                    "running", f"{name} cannot be deleted: {error}"
                ) from error
            (run / ".lock").unlink(missing_ok=True)
            self.jobs.pop(name, None)
            with contextlib.suppress(OSError):
                run.rmdir()

    def close(self) -> None:
        """Stop all processes, and wait until they have ended."""
        with self.lock:
            jobs = [job for job in self.jobs.values() if job.alive]
        for job in jobs:
            job.stop()
        for job in jobs:
            job.wait()
            job.keeper.join(5)

    # ------------------------------------------------------------------ processes

    def _check_free(self, name: str) -> None:
        busy = [other for other, job in self.jobs.items() if job.alive]
        if name in busy:
            raise Conflict("running", f"{name} goes on already")
        if len(busy) >= MOST_AT_ONCE:
            raise Conflict(
                "busy", f"{' and '.join(busy)} go on: wait for one, or stop one"
            )

    @staticmethod
    def _places(run: Path) -> list[str]:
        folder = run.resolve()
        return ["--out", str(folder), "--events", str(folder / EVENTS)]

    def _launch(self, name: str, kind: str, words: list[str]) -> None:
        """Start `innerloop WORDS...` in a process of its own."""
        self.jobs[name] = launch(words, self.root / name / OUTPUT, kind, LIMIT)


def _failed(job: Job) -> bool:
    return not job.stopping and job.process.poll() not in (None, 0, *STOPPED)
