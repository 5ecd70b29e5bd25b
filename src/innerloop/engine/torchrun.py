"""What torchrun says about a process that it has started, by environment variables."""

from __future__ import annotations

import os
import socket

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def size() -> int:
    """How many processes compute together; 1 without torchrun."""
    here = all(name in os.environ for name in _VARIABLES)
    return int(os.environ["WORLD_SIZE"]) if here else 1


def rank() -> int:
    """The number of this process among them."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def local_rank() -> int:
    """The number of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", rank())) if size() > 1 else 0


def local_size() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", local_rank() + 1))


def job() -> str | None:
    """A name of what torchrun runs, the same for a process that it starts again; None
    without torchrun.
    """
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name == "none":  # torchrun without --rdzv-id: the agent is the parent
        return f"{socket.gethostname()} {os.getppid()}"
    return name
