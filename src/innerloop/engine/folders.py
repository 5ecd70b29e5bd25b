"""Where data are looked for and kept."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """Where data is looked for: the environment variable INNERLOOP_DATA, else the
    cache folder.
    """
    named = os.environ.get("INNERLOOP_DATA")
    return Path(named).expanduser() if named else cache_folder()


def cache_folder() -> Path:
    """Where data is kept: INNERLOOP_CACHE, else innerloop/ in the user's cache
    folder.
    """
    named = os.environ.get("INNERLOOP_CACHE")
    if named:
        return Path(named).expanduser()
    user = Path(os.environ.get("XDG_CACHE_HOME", ""))  # empty or relative: ignored
    return (user if user.is_absolute() else Path.home() / ".cache") / "innerloop"
