"""Several processes of torch.distributed, which run a function together."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
from torch import multiprocessing
from torch.multiprocessing.spawn import spawn


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def _one(
    rank: int, size: int, port: int, function: Callable[..., Any], args: Any, queue: Any
) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "INNERLOOP_GRAPH_CACHE": "0",  # recordings take longer than these checks
    }
    queue.put((rank, function(*args)))


def together(function: Callable[..., Any], size: int, *args: Any) -> list[Any]:
    """What `function(*args)` returns in each of `size` processes that are connected;
    plain data.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    started = spawn(
        _one, (size, free_port(), function, args, queue), nprocs=size, join=False
    )
    assert started is not None
    found = dict(queue.get() for _ in range(size)) if _wait(started, queue) else {}
    while not started.join():
        pass
    return [found[rank] for rank in range(size)]


def _wait(started: Any, queue: Any) -> bool:
    """Wait for the first result; raises the error of a process that fails before."""
    while queue.empty():
        started.join(timeout=0.1)
    return True
