"""Draws that do not keep anybody waiting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import Generic, TypeVar

import torch

Drawn = TypeVar("Drawn")


class Prefetcher(Generic[Drawn]):
    """What `draw` makes of a generator; where it is allowed, each made in a thread of
    its own while the one before is used, if drawing takes long.

    The generator is always where it would be without: what is drawn ahead moves a copy
    of it, which is taken over with the draw.
    """

    LONG = 0.03  # of the time between two draws

    def __init__(
        self,
        draw: Callable[[torch.Generator], Drawn],
        generator: torch.Generator,
        *,
        allowed: bool,
    ):
        self.draw, self.generator, self.allowed = draw, generator, allowed
        self.pool = ThreadPoolExecutor(1)
        self.coming: Future[Drawn] | None = None
        self.copy, self.start = torch.Generator(generator.device), generator.get_state()
        self.began, self.drawing, self.count = perf_counter(), 0.0, 0

    def next(self) -> Drawn:
        drawn = self.coming.result() if self.coming is not None else None
        if drawn is not None and torch.equal(self.generator.get_state(), self.start):
            self.generator.set_state(self.copy.get_state())
        else:
            clock = perf_counter()
            drawn = self.draw(self.generator)
            self.drawing += perf_counter() - clock
        self.count += 1
        long = self.count == 5 and self.drawing > self.LONG * (
            perf_counter() - self.began
        )
        if self.allowed and (long or self.coming is not None):
            self.start = self.generator.get_state()
            self.copy.set_state(self.start)
            self.coming = self.pool.submit(self.draw, self.copy)
        return drawn

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)
