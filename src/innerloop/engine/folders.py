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
    return _users("XDG_CACHE_HOME", ".cache")


def projects_folder() -> Path:
    """Where the page keeps projects: innerloop/projects in the user's data folder."""
    return _users("XDG_DATA_HOME", ".local/share") / "projects"


def _users(variable: str, usual: str) -> Path:
    named = Path(os.environ.get(variable, ""))  # empty or relative: ignored
    return (named if named.is_absolute() else Path.home() / usual) / "innerloop"
