"""A command in several processes, by torchrun's agent or by Ray Train."""

from __future__ import annotations

import io
import logging
import os
import threading
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from tempfile import TemporaryDirectory
from typing import Any

from innerloop.engine.cores import cores
from innerloop.engine.errors import InnerloopError, LostWorkerError
from innerloop.engine.ray_cluster import LOCAL, connected, imported

RESTARTS = 10  # how often the processes are started again after one has died
GRACE = 60  # seconds to save in
# loggers that show tracebacks and signals
LOUD = ("torch.distributed.elastic", "torch.multiprocessing")


def launch(words: list[str], processes: int) -> int:
    """Run `innerloop WORDS...` in so many processes at once; returns the exit code.

    Where one of them dies, all are started again.

    Raises InnerloopError where that does not help.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in [*LOUD, *logging.root.manager.loggerDict]:
        if name.startswith(LOUD):  # many have a level of their own
            logging.getLogger(name).setLevel(logging.CRITICAL)
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


def launch_on_ray(words: list[str], processes: int, address: str, device: str) -> int:
    """Like `launch`, in processes on Ray, see `connected` for the address. They see the
    folders of this machine under the same paths.
    """
    train, torch = imported("ray.train"), imported("ray.train.torch")
    gpus = device.startswith("cuda")
    if gpus and device != "cuda":
        raise InnerloopError(
            f"Ray gives every process a GPU: write --device cuda; got {device}"
        )
    with (
        connected(address, processes) as ray,
        TemporaryDirectory(prefix="innerloop-ray-") as folder,
        _printed() as output,
    ):
        _check_room(ray, "GPU" if gpus else "CPU", processes, address == LOCAL)
        trainer = torch.TorchTrainer(
            _work_on_ray,
            train_loop_config={
                "words": words,
                "folder": os.getcwd(),
                "job": uuid.uuid4().hex,
                "output": output,
            },
            torch_config=torch.TorchConfig("cpu:gloo,cuda:nccl" if gpus else "gloo"),
            scaling_config=train.ScalingConfig(num_workers=processes, use_gpu=gpus),
            run_config=train.RunConfig(
                name="train",
                storage_path=folder,
                failure_config=train.FailureConfig(max_failures=RESTARTS),
                logging_config=train.LoggingConfig("ERROR"),
            ),
        )
        try:
            return trainer.fit().return_value
        except SystemExit:  # Ray's answer to Ctrl-C
            return 130
        except train.TrainingFailedError as error:
            raise InnerloopError(
                f"a process failed, and the last of {RESTARTS} new starts did too: the "
                "reason is above"
            ) from error


def _check_room(ray: Any, kind: str, processes: int, local: bool) -> None:
    """Raises InnerloopError where Ray on this machine has too few cores or GPUs: it
    would wait for them in silence. A cluster may get more of them.
    """
    there = int(ray.cluster_resources().get(kind, 0))
    if there >= processes:
        return
    each = {"CPU": "core", "GPU": "GPU"}[kind]
    text = f"{processes} processes need a {each} each, and Ray has {there} of them"
    if local:
        raise InnerloopError(f"{text}: use fewer processes")
    print(f"{text}: waiting for more", flush=True)


def _work_on_ray(settings: dict[str, Any]) -> int:
    """One process, which Ray has connected to the others."""
    os.environ["TORCHELASTIC_RUN_ID"] = settings["job"]
    os.chdir(settings["folder"])
    output = _Sent(settings["output"])
    with redirect_stdout(output), redirect_stderr(output):
        try:
            return _work(settings["words"])
        except Exception:
            traceback.print_exc()
            raise


class _Sent(io.TextIOBase):
    """A stream that puts what is written into a queue."""

    def __init__(self, queue: Any):
        self.queue = queue

    def write(self, text: str) -> int:
        self.queue.put(text)
        return len(text)


@contextmanager
def _printed() -> Iterator[Any]:
    """A queue on Ray, whose texts this process prints."""
    queue = imported("ray.util.queue").Queue()

    def show() -> None:
        for text in iter(queue.get, None):
            print(text, end="", flush=True)

    thread = threading.Thread(target=show)
    thread.start()
    try:
        yield queue
    finally:
        queue.put(None)
        thread.join()
