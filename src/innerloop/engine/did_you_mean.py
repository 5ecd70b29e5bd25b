"""What to say where a name is none of those that exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(
    name: str, known: Iterable[str], all_of_them: str = "there are"
) -> str:
    """The end of an error message: the known name that is closest to the one given, or
    all of them.
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return (
        f": did you mean {close[0]!r}?"
        if close
        else f"; {all_of_them} {', '.join(known)}"
    )
