"""The parts of all data, and which classes or tasks of a user's own train, validate and
test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

PARTS = {"train": (0.0, 0.64), "val": (0.64, 0.8), "test": (0.8, 1.0)}


def check_part(part: str) -> None:
    """Raises ValueError for a part that does not exist."""
    if part not in PARTS:
        raise ValueError(f"a part is one of {', '.join(PARTS)}, not {part!r}")


def part_of(names: Sequence[str], part: str) -> list[int]:
    """The places of the names that belong to a part: 64, 16 and 20 % of them, in an
    order fixed by the names alone.

    Raises ValueError for an unknown part.
    """
    check_part(part)
    order = sorted(
        range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).hexdigest()
    )
    low, high = (round(share * len(names)) for share in PARTS[part])
    return sorted(order[low:high])
