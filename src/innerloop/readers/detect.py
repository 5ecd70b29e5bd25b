"""Which reader suits data that no run was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from os import PathLike
from os.path import isfile
from pathlib import Path, PurePath
from typing import Any

from PIL import Image

from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.readers.archives import is_archive, read_archive
from innerloop.readers.base import Reader
from innerloop.readers.encoded import encoded_reader, usual_reader
from innerloop.readers.files import TABLE_SUFFIXES, Sheet, read_sheet, shown
from innerloop.readers.image import IMAGES
from innerloop.readers.molecule import BEST, MoleculeReader
from innerloop.readers.sound import SOUNDS
from innerloop.readers.sources import LABEL_COLUMNS
from innerloop.readers.table import TableReader
from innerloop.readers.text import TEXTS

KINDS = (IMAGES, SOUNDS, TEXTS)
MOST = 100_000  # files that are counted
ACTIVITY_COLUMNS = ("active", "activity", "outcome")  # of molecules


def reader_for(
    path: Path | str,
    encoder: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Reader:
    """A reader for labeled data: a pretrained encoder for images and texts, a
    fingerprint for molecules, and standardized columns for other tables.

    Args:
        path: a folder, an archive or a table, as for `Reader.read`.
        encoder: a pretrained encoder by name; by default those that are installed. For
            molecules, a fingerprint of `MoleculeReader`.
        settings: fields of the reader, among others that do not matter.

    Raises InnerloopFileError for a missing path, MissingPackageError where the package
    of an encoder is not installed, and InnerloopError for data of no known kind.
    """
    settings = dict(settings or {})
    what = kind_of(path, settings)
    sheet = None
    if str(path).lower().endswith(TABLE_SUFFIXES):
        sheet = read_sheet(path)
        if what != "molecule":
            first = _first(sheet, LABEL_COLUMNS)
            settings.setdefault("label_column", first or "label")
    if what == "molecule":
        assert sheet is not None
        columns = _smiles_column(sheet, settings), _label_column(sheet, settings)
        return MoleculeReader(
            smiles_column=columns[0] or "smiles",
            label_column=columns[1],
            fingerprint=encoder or BEST,
        )
    if encoder is not None:
        return encoded_reader(encoder, settings)
    if what in ("image", "text", "sound"):
        return usual_reader(what, settings)
    assert sheet is not None
    label = settings["label_column"]
    cells = {n: sheet.column(n) for n in sheet.columns if n.lower() != label.lower()}
    return TableReader.fitted(cells, label_column=label)


def kind_of(path: Path | str, settings: Mapping[str, Any]) -> str:
    """What one item of a data set is: "image", "text", "sound", "molecule" or "row"."""
    path = Path(path)
    if not path.exists():
        raise InnerloopFileError(f"there is no file or folder {shown(path)}")
    if path.is_dir():
        return _most(path, [file.name for file in islice(path.rglob("*"), MOST)])
    if is_archive(path):
        return _most(path, [member.parts[-1] for member in read_archive(path).members])
    if path.name.lower().endswith(TABLE_SUFFIXES):
        return _kind_of_rows(read_sheet(path), settings)
    return _most(path, [path.name])


def kind_in_memory(X: Any) -> str | None:
    """What one item of data in memory is, "image", "sound" or "text"; None for numbers,
    data frames and all else.

    Images are bytes (n, height, width, 3) or (n, 3, height, width), Pillow images, or
    paths; sounds are paths; other texts are texts.
    """
    shape, dtype = getattr(X, "shape", None), str(getattr(X, "dtype", ""))
    if shape is not None and len(shape) > 1:
        colors = len(shape) == 4 and 3 in (shape[1], shape[3])
        return "image" if colors and dtype.endswith("uint8") else None
    if isinstance(X, str | bytes) or not isinstance(X, Iterable):
        return None
    items = list(X)
    if not items or any(not isinstance(i, str | PathLike | Image.Image) for i in items):
        return None
    if all(isinstance(item, Image.Image) for item in items):
        return "image"
    paths = [str(item) for item in items]
    for kind in (IMAGES, SOUNDS):
        named = all(PurePath(path).suffix.lower() in kind.suffixes for path in paths)
        if named and all(map(isfile, paths)):
            return kind.what
    return "text" if all(isinstance(item, str) for item in items) else "image"


def _most(path: Path, names: list[str]) -> str:
    counts = Counter(
        kind.what
        for name in names
        for kind in KINDS
        if PurePath(name).suffix.lower() in kind.suffixes
    )
    if not counts:
        raise InnerloopError(
            f"{shown(path)} holds no images, texts or sounds: expected a folder "
            "CLASS/FILE, a table or an archive"
        )
    return counts.most_common(1)[0][0]


def _kind_of_rows(sheet: Sheet, settings: Mapping[str, Any]) -> str:
    if _first(sheet, [settings.get("text_column", "text")]):
        return "text"
    if _smiles_column(sheet, settings):
        return "molecule"
    for kind in (IMAGES, SOUNDS):
        wanted = settings.get(f"{kind.what}_column")
        column = _first(sheet, [wanted] if wanted else kind.columns)
        suffixes = kind.suffixes | kind.refused.keys()
        if column and any(
            PurePath(str(cell)).suffix.lower() in suffixes
            for cell in sheet.column(column)[:50]
        ):
            return kind.what
    return "row"


def _smiles_column(sheet: Sheet, settings: Mapping[str, Any]) -> str | None:
    """The column of SMILES: the one of `settings`, "smiles", or the first whose name
    contains that word.
    """
    if (wanted := settings.get("smiles_column")) is not None:
        return _first(sheet, [wanted])
    named = [name for name in sheet.columns if "smiles" in name.casefold()]
    return _first(sheet, ["smiles", *named])


def _label_column(sheet: Sheet, settings: Mapping[str, Any]) -> str:
    if (wanted := settings.get("label_column")) is not None:
        return wanted
    return _first(sheet, [*LABEL_COLUMNS, *ACTIVITY_COLUMNS]) or "label"


def _first(sheet: Sheet, names: Any) -> str | None:
    return next((n for n in names if n and sheet.find(n) is not None), None)
