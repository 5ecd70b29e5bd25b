"""What the downloaded image data sets have in common: their images are read once, and
distorted in training.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

from innerloop.engine.errors import InnerloopError
from innerloop.readers.image import STROKE_MARGIN, ImageReader, shown
from innerloop.tasks.cache import Entry, cached
from innerloop.tasks.episodes import ClassBank


class ImageFiles(NamedTuple):
    """The images of a data set, class by class; one entry for each image.

    files: the encoded images, in memory. names: what they are called in errors.
    classes, groups: their class and the group of the class.
    """

    files: list[IO[bytes]]
    names: list[str]
    classes: list[str]
    groups: list[str]


Read = Callable[[Sequence[Path], Sequence[str]], ImageFiles]


def read_once(
    title: str,
    version: int,
    read: Read,
    reader: ImageReader,
    sources: Sequence[Path],
    part: Sequence[str] = (),
) -> ClassBank:
    """A bank of all images that `read(sources, part)` returns.

    They are decoded once: the bank stays in memory and in the cache folder, and is made
    anew when a source changes.

    Args:
        title: what the data are, in words.
        version: changes whenever `read` does.
        read: a function of a module, which returns the images in the source files.
        reader: how images are read.
        sources: the files with the data.
        part: what `read` shall return of the data, such as the names of classes.

    Raises InnerloopError for an image that cannot be read.
    """
    about = [(file, file.stat()) for file in sources]
    state = tuple((file, found.st_size, found.st_mtime_ns) for file, found in about)
    return _bank(title, version, read, reader, state, tuple(part))


@lru_cache(maxsize=4)
def _bank(
    title: str,
    version: int,
    read: Read,
    reader: ImageReader,
    state: tuple[tuple[Path, int, int], ...],
    part: tuple[str, ...],
) -> ClassBank:
    about = [[file.name, size, time] for file, size, time in state]
    settings = [reader.kind, reader.settings(), STROKE_MARGIN]
    key = [title, version, settings, about, part]
    sources = [file for file, _, _ in state]

    def decoded() -> Entry:
        return _decoded(title, read(sources, part), reader)

    tensors, data = cached(title.lower(), key, decoded)
    groups = list(dict.fromkeys(data["groups"]))
    return ClassBank.of(
        tensors["images"],
        data["counts"],
        data["classes"],
        [groups.index(group) for group in data["groups"]],
        reader,
        title,
    )


def _decoded(title: str, images: ImageFiles, reader: ImageReader) -> Entry:
    values, unreadable = reader.pixels(images.files, images.names)
    if unreadable:
        index, why = unreadable[0]
        raise InnerloopError(f"cannot read {images.names[index]} of {title}: {why}")
    counts = dict.fromkeys(images.classes, 0)
    for name in images.classes:
        counts[name] += 1
    group_of = dict(zip(images.classes, images.groups, strict=True))
    return {"images": values}, {
        "classes": list(counts),
        "counts": list(counts.values()),
        "groups": [group_of[name] for name in counts],
    }


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Raises InnerloopError for an archive that the block cannot read."""
    try:
        yield
    except (
        *(OSError, ValueError, EOFError),
        *(zlib.error, tarfile.TarError, zipfile.BadZipFile),
    ) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
        raise InnerloopError(
            f"cannot read {shown(archive)}: {why}; replace it by the official file"
        ) from error


def tar_members(archive: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The contents of the wanted files in a tar archive by their names; nothing is
    extracted.

    Raises InnerloopError for an archive that cannot be read.
    """
    found = {}
    with reading(archive), tarfile.open(archive) as opened:
        for member in opened:
            if wanted(member.name) and (content := opened.extractfile(member)):
                found[member.name] = content.read()
    return found
