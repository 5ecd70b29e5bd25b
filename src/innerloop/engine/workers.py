"""The processes that compute a training together."""

from __future__ import annotations

import atexit
import functools
import math
import os
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed

from innerloop.engine import torchrun
from innerloop.engine.errors import InnerloopError, LostWorkerError

T = TypeVar("T")

# torch.distributed waits so long for a process that is slow, or whose machine has lost
# its network; one that has ended is noticed at once
TIMEOUT = timedelta(minutes=30)
SIGN_OF_LIFE = 60.0  # seconds between those of a first process that others wait for


class Share(NamedTuple):
    """The rows `start` to `stop` of `total` rows, which one process takes."""

    start: int
    stop: int
    total: int

    @property
    def weight(self) -> float:
        """The share of the rows that it takes."""
        return (self.stop - self.start) / self.total

    @property
    def rows(self) -> slice:
        """The rows to compute on: the first one where it takes none, with weight 0, so
        that the results have the same names everywhere.
        """
        stop = self.stop if self.stop > self.start else self.start + 1
        return slice(self.start, stop) if self.start < self.total else slice(0, 1)

    def of(self, tensor: Tensor) -> Tensor:
        """The rows to compute on, of a tensor with all of them."""
        return tensor[self.rows]

    def within(self, index: Tensor) -> Tensor:
        """Those of the row numbers in `index` that it takes, counted from `start`."""
        return index[(index >= self.start) & (index < self.stop)] - self.start


class Workers:
    """The processes that compute a training together; this class is one process alone.

    All processes make the same calls in the same order.

    Args:
        rank: the number of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and reports."""
        return self.rank == 0

    def share(self, total: int, together: int = 1, what: str = "tasks") -> Share:
        """This process's share of `total` rows, as even as possible in whole groups of
        `together` rows.
        """
        groups = math.ceil(total / together)
        if groups < self.size:
            self._warn(total, together, groups, what)
        start, stop = (
            min(total, together * math.ceil(groups * rank / self.size))
            for rank in (self.rank, self.rank + 1)
        )
        return Share(start, stop, total)

    @functools.cache  # noqa: B019  once for every situation
    def _warn(self, total: int, together: int, groups: int, what: str) -> None:
        why = (
            f", of which {together} are normalized together and stay in one process"
            if together > 1
            else ""
        )
        if self.first:
            warnings.warn(
                f"only {groups} of {self.size} processes have work: a meta-step has "
                f"{total} {what}{why}; use fewer processes, or more {what}",
                RuntimeWarning,
                stacklevel=2,
            )

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes; `tensor` may be overwritten."""
        return tensor

    def gather(self, rows: Tensor, share: Share) -> Tensor:
        """All rows (total, ...), of which this process has its share."""
        if self.size == 1:
            return rows
        whole = rows.new_zeros(share.total, *rows.shape[1:])
        whole[share.start : share.stop] = rows[: share.stop - share.start]
        return self.sum(whole)

    def once(self, function: Callable[[], T]) -> T:
        """What the first process returns from `function`, which only it calls; an error
        is raised in all of them.
        """
        return function()

    def every(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        return [value]

    def of_first(self, *numbers: float) -> list[float]:
        """The numbers of the first process."""
        if self.size == 1:
            return list(numbers)
        own = [n if self.first else 0.0 for n in numbers]
        return self.sum(torch.tensor(own, dtype=torch.float64)).tolist()

    def first_before_others(self, function: Callable[[], T]) -> T:
        """`function()`, which the first process calls before the others, so that they
        find what it leaves in caches.
        """
        done: list[T] = []
        self.once(lambda: done.append(function()))
        return done[0] if done else function()

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process."""
        return bool(self.sum(torch.tensor(float(flag))) > 0)

    @contextmanager
    def own_noise(self) -> Iterator[None]:
        """Within this context, torch's global generators draw other numbers in every
        process; after it, they are in the same state everywhere again.
        """
        seed = int(torch.randint(2**62, ()))
        used = torch.cuda.is_initialized()
        with torch.random.fork_rng([torch.cuda.current_device()] if used else []):
            torch.manual_seed(seed + self.rank)
            yield


ALONE = Workers()


class ProcessGroup(Workers):
    """The processes of torch.distributed's default group, which must exist."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def sum(self, tensor: Tensor) -> Tensor:
        with _lost():
            distributed.all_reduce(tensor)
        return tensor

    def once(self, function: Callable[[], T]) -> T:
        box: list[Any] = [None, None]
        if self.first:
            with self._waited_for():
                try:
                    box[0] = function()
                except Exception as error:
                    box[1] = error if _is_plain(error) else RuntimeError(repr(error))
        else:
            while not self.any(False):
                pass
        with _lost():
            distributed.broadcast_object_list(box, device=torch.device("cpu"))
        if box[1] is not None:
            raise box[1]
        return box[0]

    @contextmanager
    def _waited_for(self) -> Iterator[None]:
        """Within this context, the others call `any(False)` again and again, so that
        they do not give up waiting; after it, they go on.
        """
        done = threading.Event()

        def live() -> None:
            with suppress(LostWorkerError):  # the end of the context meets it too
                while not done.wait(SIGN_OF_LIFE):
                    self.any(False)

        thread = threading.Thread(target=live, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        self.any(True)

    def every(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        with _lost():
            distributed.all_gather_object(values, value)
        return values


def _is_plain(error: Exception) -> bool:
    """Whether an error can be sent to another process."""
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:
        return False


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise LostWorkerError(
            "another process of this training has ended, or cannot be reached; where "
            "all of them are started again they continue from the last checkpoint, "
            f"else train with --resume ({reason[-80:]})"
        ) from error


def joined(device: str = "cpu") -> Workers:
    """The processes that torchrun started together with this one, which this call
    waits for; one process alone without torchrun.

    With the device "cuda", a process uses the GPU of its number on its machine, and
    gradients are added by NCCL; on a CPU by gloo.

    Raises InnerloopError where they cannot be connected, or the device is none for
    them.
    """
    if distributed.is_available() and distributed.is_initialized():
        return ProcessGroup() if distributed.get_world_size() > 1 else ALONE
    size = torchrun.size()
    if size == 1:
        return ALONE
    if not (distributed.is_available() and distributed.is_gloo_available()):
        raise InnerloopError(
            "this build of torch has no gloo, by which processes are connected: train "
            "in one process"
        )
    kind = _kind(device)
    if kind == "cuda":
        _choose_gpu(device)
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    try:
        distributed.init_process_group(backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError, OSError) as error:
        host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
        reason = " ".join(str(error).split())
        raise InnerloopError(
            f"{size} processes cannot be connected through port {port} of {host}; if "
            f"it is in use, choose another by --master-port: {reason[:120]}"
        ) from error
    atexit.register(distributed.destroy_process_group)
    return ProcessGroup()


def _kind(device: str) -> str:
    try:
        return torch.device(device).type
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InnerloopError(f"there is no device {device!r} here: {reason}") from error


def _choose_gpu(device: str) -> None:
    """Use the GPU with the number that this process has on its machine."""
    if torch.device(device).index is not None:
        raise InnerloopError(
            f"every process uses the GPU of its number: write --device cuda; got "
            f"{device}"
        )
    count = torch.cuda.device_count()
    if not count:
        raise InnerloopError("this machine has no GPU that torch can use")
    if torchrun.local_size() > count:  # in all of them: they would wait for each other
        raise InnerloopError(
            f"every process needs a GPU of its own, and this machine has {count}: use "
            f"at most {count} processes on it"
        )
    torch.cuda.set_device(torchrun.local_rank())
