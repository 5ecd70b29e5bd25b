"""Where data sets are stored, and how they are downloaded."""

from __future__ import annotations

import hashlib
import os
import platform
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPException
from pathlib import Path

from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.engine.folders import cache_folder, data_folder

MAX_BYTES = 2**30  # of a download whose size is not known
_BLOCK = 2**18
_STALE = 24 * 3600.0  # seconds without a write
_offline: ContextVar[bool] = ContextVar("offline", default=False)


@contextmanager
def offline() -> Iterator[None]:
    """Within this context, `fetch` downloads nothing."""
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


def fetch(
    data: str, relative: str, url: str, checksum: str | None, size: int | None = None
) -> Path:
    """A file of a data set: from the data folder, else from the cache, else downloaded
    into the cache. A file in the cache that is damaged is downloaded again.

    Args:
        data: name of the data set, a folder.
        relative: path of the file in that folder.
        url: where to download it.
        checksum: SHA-256 or MD5 in hexadecimal digits.
        size: its size in bytes, the most that is downloaded.

    Raises InnerloopFileError where it is found nowhere, and InnerloopError for a
    download that is incomplete, too large, or has another checksum.
    """
    target = cache_folder() / data / relative
    own = data_folder() / data / relative
    if own != target and own.is_file():
        return own
    if target.is_file():
        if _matches(target, checksum):
            return target
        target.unlink()
    if _offline.get():
        raise InnerloopFileError(f"its data are not on this machine: {data}/{relative}")
    with replacing(target) as partial:
        try:
            _download(url, partial, size)
        except (OSError, HTTPException) as error:
            folders = dict.fromkeys(map(str, (data_folder(), cache_folder())))
            raise InnerloopFileError(
                f"{data}/{relative} is not in {' or '.join(folders)}, and {url} cannot "
                f"be downloaded ({error or type(error).__name__}): put the file at "
                f"{data}/{relative} in a folder and set INNERLOOP_DATA to that folder"
            ) from error
        if not _matches(partial, checksum):
            raise InnerloopError(
                f"the download of {url} has another checksum than {checksum}: try "
                "again, or report that the file has changed"
            )
    return target


def _download(url: str, target: Path, size: int | None) -> None:
    """Raises OSError for a download that ends early or exceeds its size."""
    limit = size or MAX_BYTES
    with (
        urllib.request.urlopen(url, timeout=30) as response,
        target.open("wb") as opened,
    ):
        announced = response.headers.get("Content-Length") or ""
        received = 0
        while block := response.read(_BLOCK):
            received += len(block)
            if received > limit:
                raise OSError(f"it has more than {limit:,} bytes")
            opened.write(block)
    expected = size or (int(announced) if announced.isdigit() else received)
    if received != expected:
        raise OSError(f"it ended after {received:,} of {expected:,} bytes")


def _matches(file: Path, checksum: str | None) -> bool:
    if checksum is None:
        return True
    name = "md5" if len(checksum) == 32 else "sha256"
    with file.open("rb") as opened:
        digest = hashlib.file_digest(
            opened, lambda: hashlib.new(name, usedforsecurity=False)
        )
    return digest.hexdigest() == checksum


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A partial file beside `target` that takes its place at the end of the block; it
    is removed where the block fails. Partial files of earlier crashes are removed.

    Raises InnerloopFileError where the folder or the file cannot be written.
    """
    host = platform.node().replace(".", "-") or "localhost"
    partial = target.with_name(f".{target.name}.{host}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for stale in target.parent.glob(".*.partial"):
            if _is_stale(stale, host):
                stale.unlink(missing_ok=True)
        try:
            yield partial
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except InnerloopError:
        raise
    except OSError as error:
        raise InnerloopFileError(
            f"cannot write {target}: {error.strerror or error}; set INNERLOOP_CACHE to "
            "another folder"
        ) from error


def _is_stale(partial: Path, host: str) -> bool:
    """Whether the process that writes a partial file has ended."""
    try:
        if time.time() - partial.stat().st_mtime > _STALE:
            return True
        _, owner, pid, _ = partial.name.rsplit(".", 3)
        if owner != host or os.name != "posix":
            return False
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return False
