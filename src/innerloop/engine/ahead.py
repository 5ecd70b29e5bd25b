"""Draws that do not keep anybody waiting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import Generic, TypeVar

import torch

Drawn = TypeVar("Drawn")


class Ahead(Generic[Drawn]):
    """What `draw` makes of a generator, each made in a thread of its own while the one before is used, once drawing turns out to take long.

    The generator is always where it would be without: what is drawn ahead moves a copy of it, which is taken over with the draw.
    """

    LONG = 0.03  # of the time between two draws

    def __init__(self, draw: Callable[[torch.Generator], Drawn], generator: torch.Generator):
        self.draw, self.generator = draw, generator
        self.copy, self.pool = torch.Generator(generator.device), ThreadPoolExecutor(1)
        self.coming: Future[Drawn] | None = None
        self.start = generator.get_state()
        self.began, self.drawing, self.count = perf_counter(), 0.0, 0

    def next(self) -> Drawn:
        if self.coming is not None and torch.equal(self.generator.get_state(), self.start):
            drawn = self.coming.result()
            self.generator.set_state(self.copy.get_state())
        else:
            clock = perf_counter()
            drawn = self.draw(self.generator)
            self.drawing += perf_counter() - clock
        self.count += 1
        if self.coming is not None or (self.count == 5 and self.drawing > self.LONG * (perf_counter() - self.began)):
            self.start = self.generator.get_state()
            self.copy.set_state(self.start)
            self.coming = self.pool.submit(self.draw, self.copy)
        return drawn

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)
