"""Batches that are drawn in the background."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import Generic, TypeVar

import torch

Batch = TypeVar("Batch")


class Prefetcher(Generic[Batch]):
    """Batches from `draw(generator)`; if allowed and if drawing takes long, the next
    one is drawn in a thread while the caller uses the last one.

    The generator is always where it would be without prefetching: a batch that is drawn
    ahead advances a copy of it, which is adopted with the batch. A batch that was drawn
    ahead is dropped if the caller has used the generator in the meantime. An error
    while drawing ahead is raised by the call of `next` that asks for that batch.
    """

    LONG = 0.03  # share of the time between two draws
    AFTER = 5  # draws that decide

    def __init__(
        self,
        draw: Callable[[torch.Generator], Batch],
        generator: torch.Generator,
        *,
        allowed: bool,
    ):
        self.draw, self.generator, self.allowed = draw, generator, allowed
        self.pool = ThreadPoolExecutor(1)
        self.coming: Future[Batch] | None = None
        self.copy, self.start = torch.Generator(generator.device), generator.get_state()
        self.began, self.drawing, self.count = perf_counter(), 0.0, 0

    def next(self) -> Batch:
        coming, self.coming = self.coming, None
        ahead = coming is not None
        if ahead and torch.equal(self.generator.get_state(), self.start):
            batch = coming.result()
            self.generator.set_state(self.copy.get_state())
        else:
            if ahead and not coming.cancel():
                coming.exception()  # wait: `draw` need not run in two threads at once
            clock = perf_counter()
            batch = self.draw(self.generator)
            self.drawing += perf_counter() - clock
        self.count += 1
        share = self.drawing / max(perf_counter() - self.began, 1e-9)
        if self.allowed and (ahead or (self.count == self.AFTER and share > self.LONG)):
            self.start = self.generator.get_state()
            self.copy.set_state(self.start)
            self.coming = self.pool.submit(self.draw, self.copy)
        return batch

    def close(self) -> None:
        """Drop what was drawn ahead and end the thread."""
        self.pool.shutdown(cancel_futures=True)
