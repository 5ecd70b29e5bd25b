"""The compiled code of `block.c`. See README.md here."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from innerloop.engine import native_code

SOURCE = native_code.Source(
    Path(__file__).with_name("block.c"),
    ("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-pthread"),
    abi=4,
    lack="convolutions run at less than half their speed",
)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled code, or None where it is switched off or cannot be built. It is
    built at the first call.
    """
    return native_code.load(SOURCE)
