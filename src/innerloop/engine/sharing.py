"""Work in parts, each computed by one of several processes that run the same program.

Where the program calls `shared`, every part is computed by one process, and all of them
continue with the results of all parts, in order. So what follows does not depend on how
many processes there are, nor on which of them computed what.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import torch

from innerloop.engine.progress import report_progress

PAUSE = 0.02  # seconds between two looks for a result

Part = TypeVar("Part")


def shared(
    parts: Sequence[Part],
    compute: Callable[[Part], Any],
    size: Callable[[Part], int],
    total: int,
) -> list[Any]:
    """`compute(part)` for every part, in order; the results consist of tensors on the
    CPU, numbers, texts, lists, tuples and dictionaries.

    The result of a part must depend on nothing but the part, such as on its seed.

    Args:
        size, total: the number of tasks of a part, and of all, to report progress.
    """
    done = 0

    def finished(part: Part) -> None:
        nonlocal done
        if more := size(part):
            done += more
            report_progress(done, total)

    exchange = _exchange.get()
    if exchange is not None and len(parts) > 1:
        return exchange.results(parts, compute, finished)
    results = []
    for part in parts:
        results.append(compute(part))
        finished(part)
    return results


class Exchange:
    """A folder in which processes claim parts and leave their results.

    Args:
        folder: of one program; all processes have the same one.
        number: of this process.
        start: called with the number of the first parts, before they are computed.
        ended: the numbers of the processes that ended; the parts that they claimed are
            computed again.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        start: Callable[[int], None] = lambda parts: None,
        ended: Callable[[], Collection[int]] = tuple,
    ):
        self.folder, self.number, self.start, self.ended = folder, number, start, ended
        self.calls = 0  # of `shared`, the same ones in every process
        self.card = folder / f"process-{number}"

    def results(
        self,
        parts: Sequence[Part],
        compute: Callable[[Part], Any],
        finished: Callable[[Part], None],
    ) -> list[Any]:
        if not self.calls:
            self.card.write_text(str(self.number))
            self.start(len(parts))
        place = self.folder / str(self.calls)
        self.calls += 1
        place.mkdir(exist_ok=True)
        files = [place / f"{at}.pt" for at in range(len(parts))]
        waiting = set(range(len(parts)))

        def look() -> None:
            for at in sorted(waiting):
                if files[at].exists():
                    waiting.remove(at)
                    finished(parts[at])

        for at, part in enumerate(parts):
            if self._claim(place / f"{at}.claim"):
                self._leave(files[at], compute(part))
                look()
        while waiting:
            ended = set(self.ended())
            for at in sorted(waiting):
                claim = place / f"{at}.claim"
                if ended and int(claim.read_text()) in ended:
                    self._leave(files[at], compute(parts[at]))
            look()
            time.sleep(PAUSE if waiting else 0)
        return [torch.load(file, weights_only=True) for file in files]

    def _claim(self, file: Path) -> bool:
        """Whether this process is the first one that claims a part."""
        try:
            os.link(self.card, file)  # at once, with its content
        except FileExistsError:
            return False
        return True

    def _leave(self, file: Path, result: Any) -> None:
        draft = file.with_suffix(f".{self.number}")
        torch.save(result, draft)
        draft.replace(file)


_exchange: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


@contextmanager
def sharing(exchange: Exchange) -> Iterator[None]:
    """Within this context, parts are shared with other processes."""
    token = _exchange.set(exchange)
    try:
        yield
    finally:
        _exchange.reset(token)
