"""Tests whose tasks several processes share, see `innerloop.engine.sharing`.

Every process has one thread: sums of more threads are rounded in another order, so that
measurements would depend on the number of processes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from innerloop.core.learner import Learner
from innerloop.engine.sharing import Exchange, sharing
from innerloop.evaluation.chunks import device_of
from innerloop.processes import Job, launch

if TYPE_CHECKING:
    from innerloop.experiment import Experiment

TEST, WEIGHTS = "test.json", "weights.pt"
WORKER = Path(__file__).with_name("worker.py")
LIMIT = 30 * 24 * 3600.0  # seconds of a process
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@contextmanager
def shared_test(
    experiment: Experiment,
    learner: Learner,
    arguments: Mapping[str, Any],
    processes: int,
) -> Iterator[None]:
    """Within this context, `experiment.test(learner, **arguments)` shares its tasks
    with `processes` - 1 further processes, which start when the first tasks are
    measured.

    What a process that ends early leaves is measured by this one, with a warning.
    """
    threads = torch.get_num_threads()
    with TemporaryDirectory(prefix="innerloop-test-", ignore_cleanup_errors=True) as at:
        folder, jobs = Path(at), list[Job]()

        def start(parts: int) -> None:
            torch.set_num_threads(1)
            more = min(processes, parts) - 1
            if more:
                _describe(experiment, learner, arguments, folder)
            for number in range(1, more + 1):
                words = [str(WORKER), str(folder), str(number)]
                log = folder / f"{number}.txt"
                jobs.append(launch(words, log, "test", LIMIT, ONE_THREAD))

        def ended() -> set[int]:
            return {
                i for i, job in enumerate(jobs, 1) if job.process.poll() is not None
            }

        try:
            with sharing(Exchange(folder, 0, start, ended)):
                yield
            for number in sorted(ended()):
                _report(jobs[number - 1], folder / f"{number}.txt")
        finally:
            torch.set_num_threads(threads)
            for job in jobs:
                job.process.kill()  # it has nothing to save
                job.keeper.join()


def _describe(
    experiment: Experiment,
    learner: Learner,
    arguments: Mapping[str, Any],
    folder: Path,
) -> None:
    """Write all that another process needs for the same test."""
    names = set(learner.options()) - set(learner.network_fields())
    test = {
        "experiment": experiment.as_dict(),
        "fields": {name: getattr(learner, name) for name in sorted(names)},
        "device": str(device_of(learner)),
        "arguments": arguments,
    }
    (folder / TEST).write_text(json.dumps(test, default=str))
    torch.save(learner.state_dict(), folder / WEIGHTS)


def _report(job: Job, log: Path) -> None:
    """Warn of a process that failed."""
    code = job.process.returncode
    if not code:
        return
    job.keeper.join()
    lines = log.read_text("utf-8", "replace").split("\n") if log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    how = f"was killed by signal {-code}" if code < 0 else f"failed: {last:.150}"
    warnings.warn(
        f"a process of this test {how}; its tasks were measured again",
        RuntimeWarning,
        stacklevel=2,
    )
