"""Command lines in processes that are killed at a chosen file event, or after a time.

A helper process imports innerloop once and forks a child for every command: that is
far quicker than a new interpreter. Forking is sound because the helper has one thread.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from innerloop.engine import replay

ROOT = Path(__file__).parents[2]
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


@dataclass
class Command:
    """A command line of innerloop, and when it is killed, if ever.

    Args:
        words: the command line.
        folder: the run folder; events of its files are counted.
        kill_at: kill the process before this event, counted from 1.
        delay: kill the process from outside after so many seconds.
        settings: values of module variables, by "module.NAME".
        in_place: write files in place; the tests must find that.
        fork: False runs the command in the helper itself, to fill its caches.
    """

    words: list[str]
    folder: str
    kill_at: int | None = None
    delay: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    in_place: bool = False
    fork: bool = True


class Outcome(NamedTuple):
    """code: the exit code, or minus the signal. events: file events, of a process that
    was not killed.
    """

    code: int
    events: list[str]
    seconds: float
    output: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Helper:
    """Runs commands in forks of one helper process."""

    def __init__(self, process: subprocess.Popen[str]):
        self.process = process

    def __call__(self, command: Command) -> Outcome:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asdict(command)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the helper process ended: {self.process.wait()}"
        return Outcome(*json.loads(answer))


@contextlib.contextmanager
def helper(hash_seed: int) -> Iterator[Helper]:
    """A helper process; `hash_seed` sets the order of its sets of strings."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.runs.killing"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ
        | threads
        | {"PYTHONPATH": path, "PYTHONHASHSEED": str(hash_seed)},
    )
    try:
        yield Helper(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)


# ------------------------------------------------------------------ in the helper


class Events:
    """Counts the events of the files in a folder; kills this process before one of
    them.
    """

    def __init__(self, folder: str, kill_at: int | None):
        self.folder, self.kill_at = os.path.realpath(folder), kill_at
        self.seen: list[str] = []
        sys.addaudithook(self._audit)
        self._fsync, self._open = os.fsync, io.open
        os.fsync, io.open = self.fsync, self.open  # pyright: ignore

    def happens(self, name: str) -> None:
        self.seen.append(name)
        if len(self.seen) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def concerns(self, path: Any) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        return os.path.abspath(path).startswith(self.folder)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and self.concerns(args[0]):
            self.happens(event)

    def fsync(self, descriptor: int) -> None:
        self.happens("fsync")
        self._fsync(descriptor)

    def open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "b" not in mode or "r" in mode or not self.concerns(file):
            return self._open(file, mode, *args, **kwargs)
        return io.BufferedWriter(TwoWrites(file, mode, self))


class TwoWrites(io.FileIO):
    """A file that takes every content in two writes, each of them an event."""

    def __init__(self, file: Any, mode: str, events: Events):
        self.events = events
        super().__init__(file, mode.replace("b", ""))

    def write(self, content: Any) -> int:
        data = bytes(content)
        self.events.happens("write")
        first = super().write(data[: len(data) // 2])
        self.events.happens("write")
        return first + super().write(data[len(data) // 2 :])


def write_in_place(path: Path, content: bytes, disk: Any = None) -> None:
    path.write_bytes(content)


def run(command: Command) -> int:
    from innerloop.cli import main

    for name, value in command.settings.items():
        module, _, variable = name.rpartition(".")
        setattr(sys.modules[module], variable, value)
    if command.in_place:
        sys.modules["innerloop.runs"].write_atomically = write_in_place  # pyright: ignore
    return main(command.words)


def child(command: Command, events_to: int, output: int) -> None:
    """Runs a command and ends this process."""
    code = 70
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        random.seed()  # no two processes have the same state
        np.random.seed()  # noqa: NPY002
        torch.seed()
        events = Events(command.folder, command.kill_at)
        code = run(command)
        os.write(events_to, json.dumps(events.seen).encode())
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def perform(command: Command) -> Outcome:
    if not command.fork:
        with contextlib.redirect_stdout(io.StringIO()) as text:
            code = run(command)
        replay._Library.is_known(120)  # it is built in a thread, which ends now
        time.sleep(0.5)
        return Outcome(code, [], 0.0, text.getvalue())
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/task")) == 1, "forking needs one thread"
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            child(command, writer, output.fileno())
        os.close(writer)
        if command.delay is not None:
            time.sleep(command.delay)
            os.kill(pid, signal.SIGKILL)
        with os.fdopen(reader, "rb") as events:
            seen = json.loads(events.read() or b"[]")
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Outcome(code, seen, time.monotonic() - began, text)


def serve() -> None:
    import innerloop.training  # noqa: F401  imported before forking

    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(perform(Command(**json.loads(line)))), flush=True)


if __name__ == "__main__":
    serve()
