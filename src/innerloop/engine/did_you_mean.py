"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], listed: str = "there are") -> str:
    """The end of an error message: the known name that is closest to `name`, or else
    all of them after the words `listed`; nothing where these are empty.
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f": did you mean {close[0]!r}?"
    return f"; {listed} {', '.join(known)}" if listed else ""
