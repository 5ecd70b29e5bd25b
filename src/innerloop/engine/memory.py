"""Memory that is freed stays at hand."""

from __future__ import annotations

import ctypes
import functools
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt(3)


@functools.cache
def keep_memory() -> None:
    """Let the allocator keep what is freed for the next step, up to 2 GB, instead of
    giving it back to the system and asking again, page by page.

    For the whole process; where the C library is not glibc, nothing happens.
    """
    if (
        sys.platform == "linux"
        and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None
    ):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
