"""A command in several processes of this machine, by torchrun's agent."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from innerloop.engine.cores import cores
from innerloop.engine.errors import InnerloopError, LostWorkerError

RESTARTS = 10  # how often the processes are started again after one has died
GRACE = 60  # seconds to save in


def launch(words: list[str], processes: int) -> int:
    """Run `innerloop WORDS...` in so many processes at once; returns the exit code.

    Where one of them dies, all are started again.

    Raises InnerloopError where that does not help.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they show tracebacks
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port
        local_addr="localhost",
        max_restarts=RESTARTS,
        shutdown_timeout=GRACE,
    )
    with _environment(processes):
        try:
            codes = elastic_launch(config, _work)(words)
        except SignalException:
            return 130
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            raise InnerloopError(
                f"process {rank} failed (exit code {failure.exitcode}), and the last "
                f"of {RESTARTS} new starts did too: the reason is above"
            ) from error
    return max(codes.values())


def _work(words: list[str]) -> int:
    """One process. An error that the user must mend ends the command: the agent starts
    processes again only where one of them has died.
    """
    from innerloop.cli import main

    code = main(words)
    if code == LostWorkerError.exit_code:
        raise SystemExit(code)
    return code


@contextmanager
def _environment(processes: int) -> Iterator[None]:
    """The environment of the processes: each has its share of the cores."""
    threads = str(max(1, cores() // processes))
    before = os.environ.copy()
    os.environ.setdefault("OMP_NUM_THREADS", threads)
    os.environ.setdefault("MKL_NUM_THREADS", threads)
    # else the others cannot connect again where the first process was lost (torch 2.13)
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
