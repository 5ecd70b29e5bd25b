"""Frozen encoders: vectors that are computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.encoders import open_encoder, parts_of
from innerloop.encoders.base import PretrainedEncoder
from innerloop.encoders.store import FeatureStore, rounded
from innerloop.engine.errors import InnerloopError

_stored_only: ContextVar[bool] = ContextVar("stored_only", default=False)


@contextmanager
def stored_only() -> Iterator[None]:
    """Within this context, items that were not embedded before raise InnerloopError."""
    token = _stored_only.set(True)
    try:
        yield
    finally:
        _stored_only.reset(token)


class FrozenEncoder:
    """One pretrained encoder, or several joined by "+", that are never trained.

    The vectors of each are scaled to a common length, times the `share` of the encoder,
    and placed side by side; the root mean square of the result is 1.

    Args:
        name: the encoders.
        weights: what their weights must be, as `weights_of` returns it, or () for those
            that are installed.
        reading: how items are read, which their vectors depend on too.
        beside: an encoder whose vectors follow after the others, as they are.

    Raises MissingPackageError where a package is not installed, and InnerloopError
    where other weights are installed.
    """

    def __init__(
        self,
        name: str,
        weights: Sequence[str] = (),
        reading: str = "",
        beside: PretrainedEncoder | None = None,
    ):
        joined = [open_encoder(part) for part in parts_of(name)]
        self.parts = [*joined, *([beside] if beside else [])]
        self._joined = len(joined)
        check_weights(weights, weights_of(name))
        self.features = sum(part.features for part in joined)
        self.x_size = sum(part.features for part in self.parts)
        self._stores = [
            FeatureStore(f"{part.identity} {reading}", part.features)
            for part in self.parts
        ]

    def embed(
        self,
        contents: Sequence[bytes],
        items: Callable[[list[int]], tuple[list[int], Any]],
    ) -> tuple[Tensor, list[int]]:
        """The vectors (m, x_size) of a batch of items that can be read, and the
        indices of those that cannot.

        Args:
            contents: what an item is made of, in bytes; equal contents are embedded
                once, and never again.
            items: reads items by their indices; returns the indices that it could
                read, and these items together.
        """
        keys = [hashlib.sha256(content).digest() for content in contents]
        stored = [store.get(keys) for store in self._stores]
        missing = [
            i for i, key in enumerate(keys) if any(key not in found for found in stored)
        ]
        first = list({keys[i]: i for i in reversed(missing)}.values())
        unreadable: set[bytes] = set()
        if first and _stored_only.get():
            raise InnerloopError(f"{len(first)} items were not embedded before")
        if first:
            read, batch = items(sorted(first))
            unreadable = {keys[i] for i in first if i not in set(read)}
            own = [keys[i] for i in read]
            for part, store, found in zip(
                self.parts, self._stores, stored, strict=True
            ):
                if read:
                    vectors = part.embed(batch)
                    store.put(own, vectors)
                    found |= dict(zip(own, rounded(vectors), strict=True))
        kept = [i for i, key in enumerate(keys) if key not in unreadable]
        failed = [i for i, key in enumerate(keys) if key in unreadable]
        if not kept:
            return torch.empty(0, self.x_size), failed
        columns = [torch.stack([found[keys[i]] for i in kept]) for found in stored]
        shares = [part.share for part in self.parts[: self._joined]]
        scale = (self.features / sum(share**2 for share in shares)) ** 0.5
        for place, share in enumerate(shares):
            columns[place] = scale * share * F.normalize(columns[place], dim=-1)
        return torch.cat(columns, 1), failed


def weights_of(name: str) -> tuple[str, ...]:
    """What identifies the vectors of encoders with the installed weights."""
    return tuple(open_encoder(part).identity for part in parts_of(name))


def check_weights(wanted: Sequence[str], installed: Sequence[str]) -> None:
    """Raises InnerloopError where other weights are installed than are wanted; () wants
    any.
    """
    for old, new in zip_longest(wanted, installed, fillvalue="none"):
        if wanted and old != new:
            raise InnerloopError(
                f"the encoder needs the weights {old:.60}..., and installed are "
                f"{new:.60}...: install that version, or train again"
            )


def feature_count(name: str) -> int:
    """The length of the vectors of encoders that are joined by "+"."""
    return sum(open_encoder(part).features for part in parts_of(name))
