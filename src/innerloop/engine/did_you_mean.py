"""The end of an error message about an unknown name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(
    name: str, known: Iterable[str], all_of_them: str = "there are"
) -> str:
    """The known name that is closest to `name`, as the end of an error message, or all
    known names.
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return (
        f": did you mean {close[0]!r}?"
        if close
        else f"; {all_of_them} {', '.join(known)}"
    )
