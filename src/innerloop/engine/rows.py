"""Random numbers for some rows of a larger batch: those that they have as a part of
it, so that a batch can be split without a change of what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from innerloop.engine.errors import InnerloopError
from innerloop.engine.workers import Share

_share: ContextVar[Share | None] = ContextVar("share", default=None)


@contextmanager
def rows_of(share: Share | None) -> Iterator[None]:
    """Within this context, `drawing` is for the rows of a share; None and a share of
    all rows change nothing.
    """
    part = None if share is None or share.weight == 1 else share
    token = _share.set(part)
    try:
        yield
    finally:
        _share.reset(token)


def drawing(
    generator: torch.Generator | None, rows: int
) -> AbstractContextManager[Any]:
    """Within this context, what `generator` draws for so many rows, a multiple of those
    of the share, is what it would draw for these rows of the whole batch.

    Draws are by `torch.rand`, `torch.randn` or `torch.randint`, with rows as the first
    axis, or single numbers, which are the same for all rows. Raises InnerloopError for
    others.
    """
    share = _share.get()
    if share is None or generator is None:
        return nullcontext()
    return _Drawing(generator, rows, share)


class _Drawing(TorchFunctionMode):
    def __init__(self, generator: torch.Generator, rows: int, share: Share):
        super().__init__()
        self.generator, self.rows = generator, rows
        own = share.rows
        repeats = rows // (own.stop - own.start)
        self.total = repeats * share.total
        self.own = slice(repeats * own.start, repeats * own.start + rows)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("generator") is not self.generator:
            return func(*args, **kwargs)
        args = list(args)
        if func is torch.randint:
            size = kwargs.pop("size") if "size" in kwargs else args.pop()
        elif func in (torch.rand, torch.randn):
            sizes = kwargs.pop("size") if "size" in kwargs else args
            size = sizes[0] if sizes and not isinstance(sizes[0], int) else sizes
            args = []
        else:
            raise InnerloopError(
                f"{getattr(func, '__name__', func)} cannot draw for an environment "
                "that several processes share: use torch.rand, randn or randint"
            )
        size = tuple(size)
        if not size:
            return func(*args, size, **kwargs)
        if size[0] != self.rows:
            raise InnerloopError(
                f"an environment that several processes share draws numbers for its "
                f"{self.rows} rows, or one number; got a draw of shape {size}"
            )
        return func(*args, (self.total, *size[1:]), **kwargs)[self.own]
