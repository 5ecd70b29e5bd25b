"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes
import functools
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of mallopt(3)


@functools.cache
def tune_allocator() -> None:
    """Let the allocator keep freed memory for the next step, up to 2 GB, instead of
    returning it to the system page by page.

    It changes the whole process, so a program calls it once at its start and the
    library never does. Without glibc it does nothing.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
