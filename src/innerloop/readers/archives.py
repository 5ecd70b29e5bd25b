"""Archives of files (.zip, .tar and .tar.gz), read without unpacking them to disk."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from innerloop.engine.errors import InnerloopError
from innerloop.readers.files import MAX_BYTES, decoding, regular_file, shown

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_FILE = 1 << 28  # bytes of one file, decompressed
MAX_FILES = 500_000
MAX_RATIO = 100  # of all files, decompressed, to the archive, above MAX_BYTES


@dataclass(frozen=True, eq=False)
class Member:
    """A file in an archive.

    Args:
        archive: the archive.
        parts: its path in the archive, without "." and "..".
        size: its number of bytes, decompressed, as the archive declares it.
    """

    archive: Path
    parts: tuple[str, ...]
    size: int
    _load: Callable[[], bytes] = field(repr=False)

    @property
    def name(self) -> str:
        """Its path in the archive as text that can be printed."""
        return shown("/".join(self.parts))

    def read(self) -> bytes:
        """Its content. Raises InnerloopError, or what the decoder raises, where it
        cannot be read.
        """
        if self.size > MAX_FILE:
            raise InnerloopError(
                f"it has {self.size >> 20:,} MiB, more than the {MAX_FILE >> 20} MiB "
                "that are allowed in an archive"
            )
        content = self._load()
        if len(content) != self.size:
            raise InnerloopError("it is cut off")
        return content

    def open(self) -> IO[bytes]:
        return io.BytesIO(self.read())


@dataclass(frozen=True)
class Archive:
    """The files of an archive; hidden files and those of __MACOSX do not count.

    Args:
        path: the archive.
        members: the files that can be read.
        refused: the others, each as "name: reason".
    """

    path: Path
    members: tuple[Member, ...]
    refused: tuple[str, ...]


def is_archive(path: Path) -> bool:
    """Whether a path has the suffix of an archive."""
    return path.name.lower().endswith(SUFFIXES)


def read_archive(path: Path) -> Archive:
    """The files of an archive, by its directory; their content is not read yet.

    Raises InnerloopFileError for a missing archive, and InnerloopError for one that is
    damaged, holds too many files or is suspected to be a decompression bomb.
    """
    path = regular_file(path)
    zipped = path.name.lower().endswith(".zip")
    members, refused = [], []
    with decoding(path, "an archive, which may be damaged or cut off"):
        total = 0
        for member, why in _zip(path) if zipped else _tar(path):
            if is_hidden(member.parts):
                continue
            if why:
                refused.append(f"{member.name}: {why}")
                continue
            members.append(member)
            total += member.size
            if len(members) > MAX_FILES:
                raise InnerloopError(
                    f"{shown(path)} holds more than {MAX_FILES:,} files: unpack it and "
                    "pass the folder"
                )
        size = path.stat().st_size
        if total > max(MAX_BYTES, MAX_RATIO * size):
            raise InnerloopError(
                f"{shown(path)} would unpack to {total >> 20:,} MiB, more than "
                f"{MAX_RATIO} times its size, and is not read: is it the right file?"
            )
    return Archive(path, tuple(members), tuple(refused))


def is_hidden(parts: tuple[str, ...]) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a path in an archive: nothing is written to disk, so "." and ".."
    have no meaning.
    """
    found = name.replace("\\", "/").split("/")
    return tuple(part for part in found if part not in ("", ".", ".."))


def _zip(path: Path) -> Iterator[tuple[Member, str]]:
    opened = zipfile.ZipFile(path)  # reads of several threads do not disturb each other
    for info in opened.infolist():
        if info.is_dir():
            continue
        name = info.filename
        if not info.flag_bits & 0x800:  # macOS stores UTF-8 without saying so
            try:
                name = name.encode("cp437").decode("utf-8")
            except UnicodeError:
                name = info.filename

        def load(info: zipfile.ZipInfo = info) -> bytes:
            with opened.open(info) as file:
                return file.read(MAX_FILE + 1)

        why = "it is encrypted" if info.flag_bits & 0x1 else ""
        yield Member(path, _parts(name), info.file_size, load), why


def _tar(path: Path) -> Iterator[tuple[Member, str]]:
    whole: bytes | None = None
    if path.name.lower().endswith("gz"):
        with gzip.open(path) as compressed:
            whole = compressed.read(MAX_BYTES + 1)
        if len(whole) > MAX_BYTES:
            raise InnerloopError(
                f"{shown(path)} has more than {MAX_BYTES >> 20:,} MiB when it is "
                "decompressed: unpack it and pass the folder, or use a .zip"
            )
    with (
        path.open("rb") if whole is None else io.BytesIO(whole) as opened,
        tarfile.open(fileobj=opened, mode="r:") as archive,
    ):
        for info in archive:
            if not (info.isreg() or info.issparse()):  # folders, links and devices
                continue
            first, last = info.offset_data, info.offset_data + info.size

            def load(first: int = first, last: int = last) -> bytes:
                if whole is not None:
                    return whole[first:last]
                with path.open("rb") as file:
                    file.seek(first)
                    return file.read(last - first)

            why = "it is a sparse file" if info.issparse() else ""
            yield Member(path, _parts(info.name), info.size, load), why
