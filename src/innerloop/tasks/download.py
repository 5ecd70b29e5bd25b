"""Where data sets lie, and how they come there."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from pathlib import Path

from innerloop.engine.errors import InnerloopError, InnerloopFileError


def data_folder() -> Path:
    """Where data is looked for: the environment variable INNERLOOP_DATA, else the
    user's cache folder.
    """
    given = os.environ.get("INNERLOOP_DATA")
    return Path(given) if given else cache_folder()


def cache_folder() -> Path:
    """Where data is kept: INNERLOOP_CACHE, else innerloop/ in the user's cache
    folder.
    """
    given = os.environ.get("INNERLOOP_CACHE")
    return (
        Path(given)
        if given
        else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        / "innerloop"
    )


def fetch(data: str, relative: str, url: str, md5: str | None) -> Path:
    """A file of a data set: from the data folder, else from the cache, else downloaded
    into the cache and checked.

    Raises FileNotFoundError where it is nowhere, and ValueError for a download with
    another checksum.
    """
    for folder in (data_folder(), cache_folder()):
        if (folder / data / relative).is_file():
            return folder / data / relative
    target = cache_folder() / data / relative
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            content = response.read()
    except OSError as error:
        raise InnerloopFileError(
            f"{data}/{relative} is in neither {data_folder()} nor {cache_folder()}, and {url} cannot be reached ({error}). "
            f"Put the official file at {data}/{relative} in a folder and name that folder in INNERLOOP_DATA"
        ) from error
    if md5 and hashlib.md5(content).hexdigest() != md5:
        raise InnerloopError(
            f"{url} does not have the expected checksum {md5}: download it again, or report that the file has changed"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + f".{os.getpid()}.split")
    partial.write_bytes(content)
    partial.replace(target)
    return target
