"""How many tasks of a long measurement are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watcher = Callable[[int, int], None]

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Within this context, `watcher(done, total)` is called for every batch of tasks
    that a measurement completes.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def report_progress(done: int, total: int) -> None:
    """Report that `done` of `total` tasks are measured."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(done, total)
