"""Where the commands of a study run."""

from __future__ import annotations

import os
import signal
import time
from contextlib import chdir
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from innerloop.engine.cores import cores
from innerloop.processes import PATIENCE, launch
from innerloop.studies.system import system

LIMIT = 100 * 3600.0  # seconds of a process
TICK = 0.25  # seconds between looks at a process
AGAIN = 3.0  # seconds until a task on Ray is interrupted again


class Job(Protocol):
    """A command that runs."""

    @property
    def alive(self) -> bool:
        """Whether it goes on."""
        ...

    @property
    def code(self) -> int | None:
        """Its exit code, when it has ended."""
        ...

    stopping: bool

    def stop(self) -> None:
        """Ask it to save and to end."""
        ...

    def wait(self) -> None:
        """Wait for the end of a job that was asked to."""
        ...


class Machines(Protocol):
    """What commands run on."""

    cores: int

    def start(self, words: list[str], output: Path, kind: str, threads: int) -> Job:
        """Start `innerloop WORDS...` with so many threads; its output is appended to a
        file.
        """
        ...

    def system(self, job: Job) -> dict[str, Any]:
        """The machine on which a job has ended."""
        ...


class ThisMachine:
    """The commands are processes of this machine."""

    def __init__(self) -> None:
        self.cores, self.own = cores(), system()

    def start(self, words: list[str], output: Path, kind: str, threads: int) -> Job:
        own = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL")}
        return launch(words, output, kind, LIMIT, own)

    def system(self, job: Job) -> dict[str, Any]:
        return self.own


class RayMachines:
    """The commands are tasks on Ray, each in a process of its own, which reserves a
    core for each thread. All machines see the same files under the same paths.

    Args:
        ray: the module, connected, see `innerloop.engine.ray_cluster`.
    """

    def __init__(self, ray: Any):
        self.ray = ray
        self.cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        # one whose machine is lost has failed, and continues in the next run
        self.run = ray.remote(max_retries=0)(_run)

    def start(self, words: list[str], output: Path, kind: str, threads: int) -> Job:
        where = os.getcwd(), str(output.resolve())
        task = self.run.options(num_cpus=threads)
        return RayJob(self.ray, task.remote(words, *where, kind, threads), output)

    def system(self, job: Job) -> dict[str, Any]:
        assert isinstance(job, RayJob)
        return job.result[1]


class RayJob:
    """A command that is a task on Ray."""

    def __init__(self, ray: Any, task: Any, output: Path):
        self.ray, self.task, self.output = ray, task, output
        self.stopping = False

    @property
    def alive(self) -> bool:
        return not self._ended(0)

    def _ended(self, seconds: float) -> bool:
        return bool(self.ray.wait([self.task], timeout=seconds)[0])

    @property
    def code(self) -> int | None:
        return self.result[0] if not self.alive else None

    @cached_property
    def result(self) -> tuple[int, dict[str, Any]]:
        """Its exit code and the machine, when it has ended."""
        try:
            return self.ray.get(self.task)
        except self.ray.exceptions.TaskCancelledError:
            return -signal.SIGTERM, {}
        except self.ray.exceptions.RayError as error:
            with self.output.open("a") as opened:
                opened.write(f"lost on Ray: {str(error).splitlines()[0]}\n")
            return 1, {}

    def stop(self) -> None:
        self.stopping = True
        self.ray.cancel(self.task)

    def wait(self) -> None:
        end = time.monotonic() + PATIENCE + 5
        over = False
        while not over and not self._ended(AGAIN):
            # an interrupt can be lost, where it comes in the middle of a callback
            over = time.monotonic() > end
            self.ray.cancel(self.task, force=over)


def _run(
    words: list[str], folder: str, output: str, kind: str, threads: int
) -> tuple[int, dict[str, Any]]:
    """Run a command to its end, or until the task is cancelled; returns its exit code,
    and the machine.
    """
    here, job = ThisMachine(), None
    # programs that a script starts in the background ignore interrupts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with chdir(folder):
            job = here.start(words, Path(output), kind, threads)
        while job.alive:
            time.sleep(TICK)
    except KeyboardInterrupt:  # the task is cancelled
        usual = signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is repeated
        try:
            if job is not None:
                job.stop()
                job.wait()
        finally:
            signal.signal(signal.SIGINT, usual)
        raise
    assert job.code is not None
    return job.code, here.system(job)
