"""The splits of all data, and which classes or tasks of a user's own train, validate and
test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from innerloop.engine.errors import InnerloopError

SPLITS = {"train": (0.0, 0.64), "val": (0.64, 0.8), "test": (0.8, 1.0)}


def check_split(split: str) -> None:
    """Raises ValueError for a split that does not exist."""
    if split not in SPLITS:
        raise InnerloopError(f"a split is one of {', '.join(SPLITS)}, not {split!r}")


def split_indices(names: Sequence[str], split: str) -> list[int]:
    """The places of the names that belong to a split: 64, 16 and 20 % of them, in an
    order fixed by the names alone.

    Raises ValueError for an unknown split.
    """
    check_split(split)
    order = sorted(
        range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).hexdigest()
    )
    low, high = (round(share * len(names)) for share in SPLITS[split])
    return sorted(order[low:high])
