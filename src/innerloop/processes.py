"""Commands in processes of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

PATIENCE = 60.0  # seconds from a stop to the end of a process
MOST_OUTPUT = 2**20  # bytes


@dataclass
class Job:
    """A command in a process of its own.

    Args:
        kind: what it does, such as "train" or "test".
        process: which is stopped when its standard input closes.
        keeper: the thread that keeps its output.
    """

    kind: str
    process: subprocess.Popen[bytes]
    keeper: threading.Thread
    stopping: bool = False

    @property
    def alive(self) -> bool:
        """Whether it goes on, or its output is still being kept."""
        return self.process.poll() is None or self.keeper.is_alive()

    @property
    def code(self) -> int | None:
        """Its exit code, when it has ended."""
        return self.process.poll()

    def wait(self) -> None:
        """Wait for its end after `stop`."""
        try:
            self.process.wait(PATIENCE + 5)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def stop(self) -> None:
        self.stopping = True
        self.process.terminate()
        last = threading.Timer(PATIENCE, self.process.kill)
        last.daemon = True
        last.start()


def keep_output(process: subprocess.Popen[bytes], file: Path) -> None:
    """Append the output of a process to a file, up to a size, until it ends. What
    cannot be written is dropped: a process whose output nobody reads would hang.
    """
    assert process.stdout is not None
    assert process.stdin is not None
    with contextlib.ExitStack() as held:
        kept = None
        with contextlib.suppress(OSError):
            kept = held.enter_context(file.open("ab", buffering=0))
        for chunk in iter(partial(process.stdout.read1, 2**16), b""):  # pyright: ignore[reportAttributeAccessIssue]
            if kept is not None:
                with contextlib.suppress(OSError):
                    kept.write(chunk[: max(0, MOST_OUTPUT - kept.tell())])
    process.wait()
    process.stdin.close()


def launch(
    words: list[str],
    output: Path,
    kind: str,
    limit: float,
    surroundings: Mapping[str, str] | None = None,
) -> Job:
    """Start `innerloop WORDS...`; it does not outlive this process.

    Args:
        words: the command and its arguments.
        output: file that its output is appended to.
        kind: what it does.
        limit: seconds after which it is stopped.
        surroundings: environment variables to set.
    """
    usual = {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "innerloop.child", str(limit), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **usual, **(surroundings or {})},
        start_new_session=True,  # Ctrl-C is for this process, which stops its children
    )
    keep = partial(keep_output, process, output)
    keeper = threading.Thread(target=keep, name=f"output of {kind}", daemon=True)
    keeper.start()
    return Job(kind, process, keeper)
