"""Ray, on this machine or on a cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from innerloop.engine.cores import cores
from innerloop.engine.errors import InnerloopError, MissingPackageError

ANSWER = 10.0  # seconds in which a cluster must answer
LOCAL = "local"  # the address of a Ray that is started on this machine
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}


def imported(module: str = "ray") -> Any:
    """Ray, or one of its modules. Raises MissingPackageError."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            "Ray is not installed: pip install 'innerloop[ray]'"
        ) from error


@contextmanager
def connected(address: str = LOCAL, processes: int | None = None) -> Iterator[Any]:
    """The module `ray`, connected to a cluster within this context; a process that is
    connected already stays so.

    Args:
        address: of a cluster, or "local" to start Ray on this machine and to shut it
            down at the end.
        processes: at once on this machine (default: one for each core).

    Raises:
        MissingPackageError: Ray is not installed.
        InnerloopError: the cluster cannot be reached.
    """
    ray = imported()
    if ray.is_initialized():
        yield ray
        return
    _check_answers(address)
    own: dict[str, Any] = {}
    if address == LOCAL:
        own = {"num_cpus": processes or cores(), "include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
    except Exception as error:  # of Ray: of any type
        raise InnerloopError(f"Ray cannot be reached: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raises InnerloopError where nothing answers at HOST:PORT: Ray would try for many
    minutes.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
    except (OSError, OverflowError, ValueError) as error:
        raise InnerloopError(
            f"Ray cannot be reached: nothing answers at {address} ({error})"
        ) from error
