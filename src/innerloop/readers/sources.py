"""Where the files of a data set lie: class folders, a table of paths, or an archive of
either.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.readers.archives import (
    MAX_FILE,
    Archive,
    Member,
    is_archive,
    is_hidden,
    read_archive,
)
from innerloop.readers.files import (
    TABLE_SUFFIXES,
    Sheet,
    label_text,
    read_sheet,
    regular_file,
    shown,
    some,
)

LABEL_COLUMNS = ("label", "class", "y")
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}

File = Path | Member


class FileKind(NamedTuple):
    """The files that a reader takes.

    Args:
        what: one of them, in words, such as "image".
        suffixes: of the files that are read.
        readable: their formats, in words.
        refused: the suffixes of files of the same kind that are not read, each with
            what to do; these files are named, all others are counted.
        columns: names of a column of paths in a table, the preferred one first.
    """

    what: str
    suffixes: frozenset[str]
    readable: str
    refused: dict[str, str]
    columns: tuple[str, ...] = ()

    @property
    def example(self) -> str:
        return f"CLASS/{self.what}{min(self.suffixes, key=lambda s: (s != '.png', s))}"


class Found(NamedTuple):
    """The files of a data set.

    Args:
        files: the files to read.
        names: what each is called in results: its path below the folder, in the archive
            or in the table.
        labels: the label of each, or None where they have none.
        other: inputs that are not read, each as "name: reason".
        note: how they were found and what is left out, where that is not obvious.
    """

    files: list[File]
    names: list[str]
    labels: list[str] | None
    other: tuple[str, ...] = ()
    note: str = ""


class _Entry(NamedTuple):
    """A file by its parts below the folder of the classes, and its full name."""

    parts: tuple[str, ...]
    name: str
    file: File


def find(
    path: Path | str,
    kind: FileKind,
    *,
    labels: bool,
    file_column: str | None = None,
    label_column: str | None = None,
) -> Found:
    """The files of a data set, in one of these layouts:

    - a folder PATH/CLASS/file; a class folder may have folders at any depth;
    - a table (.csv, .tsv, .xlsx, .parquet, .json, .jsonl) with a column of paths, which
      are absolute or relative to the folder of the table, and a column of labels;
    - an archive (.zip, .tar, .tar.gz) with class folders or with a table and files; one
      folder around them does not count;
    - without `labels`, also a file, or a folder or an archive of files at any depth.

    Without `labels`, the labels are those of the layout, where it has one for every
    file; they may be none of the known classes.

    Raises InnerloopFileError for a missing path, and InnerloopError for a path without
    such files, or, with `labels`, for rows of a table without a label or a file.
    """
    path = Path(path)
    if path.is_dir():
        entries, folders, refused = _walk(path)
        return _arranged(path, entries, folders, refused, kind, labels)
    if is_archive(path):
        return _in_archive(path, kind, labels, file_column, label_column)
    if path.name.lower().endswith(TABLE_SUFFIXES):
        return _in_table(
            read_sheet(path),
            kind,
            labels,
            file_column,
            label_column,
            lambda text: _on_disk(path.parent, text),
        )
    if not labels and path.is_file():
        return Found([path], [shown(path.name)], None)
    raise InnerloopFileError(
        f"there is no folder {shown(path)}; expected {_layouts(path, kind)}"
    )


def _layouts(path: Path, kind: FileKind) -> str:
    columns = f" with the columns {kind.columns[0]} and label" if kind.columns else ""
    return (
        f"a folder {shown(path.name)}/{kind.example}"
        + (f", a table{columns}" if columns else "")
        + ", or a .zip of these"
    )


def _walk(root: Path) -> tuple[list[_Entry], list[str], list[str]]:
    """The files below a folder, its folders, and what cannot be opened. Hidden files
    and folders do not count; links to folders are followed in the folder itself only.
    """
    entries, refused = [], []

    def failed(error: OSError) -> None:
        where = Path(str(error.filename)).relative_to(root).as_posix()
        refused.append(f"{shown(where)}: {error.strerror or 'it cannot be opened'}")

    top = sorted(p for p in root.iterdir() if not is_hidden((p.name,)))
    folders = [p.name for p in top if p.is_dir()]
    files = [p for p in top if not p.is_dir()]
    for folder in folders:
        for where, below, names in os.walk(root / folder, onerror=failed):
            below[:] = [name for name in below if not is_hidden((name,))]
            files += [Path(where, name) for name in names if not is_hidden((name,))]
    for file in files:
        parts = file.relative_to(root).parts
        entries.append(_Entry(parts, shown("/".join(parts)), file))
    return entries, folders, refused


def _in_order(entry: _Entry) -> list[tuple[bool, str]]:
    """The files of a folder before those of its folders, each in order of name."""
    return [*((True, part) for part in entry.parts[:-1]), (False, entry.parts[-1])]


def _arranged(
    root: Path,
    entries: list[_Entry],
    folders: Sequence[str],
    refused: Sequence[str],
    kind: FileKind,
    labels: bool,
) -> Found:
    """The files of class folders, or without `labels` of any folders."""
    what, classes = kind.what, [shown(name) for name in sorted(folders)]
    if labels and not folders:
        raise InnerloopError(
            f"{shown(root)} holds no class folders: put the {what}s of each class into "
            f"a folder of its own; labels are not taken from file names. Expected "
            f"{_layouts(root, kind)}"
        )
    splits = len(classes) > 1 and {c.lower() for c in classes} <= _SPLIT_NAMES
    if labels and splits:
        raise InnerloopError(
            f"the folders in {shown(root)} are splits ({', '.join(classes)}), not "
            f"classes: pass one of them, such as {shown(root / classes[0])}"
        )
    taken, other, skipped, loose = [], list(refused), Counter[str](), 0
    filled = {line.split("/")[0] for line in refused}
    for entry in sorted(entries, key=_in_order):
        suffix = Path(entry.parts[-1]).suffix.lower()
        if labels and len(entry.parts) == 1:
            loose += suffix in kind.suffixes
        elif suffix in kind.suffixes:
            taken.append(entry)
            filled.add(entry.parts[0])
        elif suffix in kind.refused:
            other.append(f"{entry.name}: {kind.refused[suffix]}")
            filled.add(entry.parts[0])
        else:
            skipped[shown(suffix) or "without a suffix"] += 1
    for folder in sorted(folders) if labels else ():
        if folder not in filled:
            where = shown(root / folder)
            raise InnerloopError(f"{where} holds no {what}s ({kind.readable})")
    if not taken:
        raise InnerloopError(
            f"{shown(root)} holds no {what}s that can be read ({kind.readable})"
            + "".join(f"; {line[:160]}" for line in other[:1])
        )
    notes = []
    if labels and (deeper := sum(len(entry.parts) > 2 for entry in taken)):
        notes.append(f"{what}s in folders inside the class folders: {deeper}")
    if loose:
        notes.append(f"{what}s outside of the class folders are left out: {loose}")
    if skipped:
        kinds = ", ".join(f"{n} {suffix}" for suffix, n in sorted(skipped.items()))
        notes.append(f"files that are not {what}s are left out: {kinds}")
    known = all(len(entry.parts) > 1 for entry in taken) and not splits
    return Found(
        [entry.file for entry in taken],
        [entry.name for entry in taken],
        [shown(entry.parts[0]) for entry in taken] if known else None,
        tuple(other),
        "; ".join(notes),
    )


def _in_archive(
    path: Path,
    kind: FileKind,
    labels: bool,
    file_column: str | None,
    label_column: str | None,
) -> Found:
    archive = read_archive(path)
    around = len(surrounding(archive, kind.suffixes | kind.refused.keys()))
    entries = [
        _Entry(member.parts[around:], member.name, member)
        for member in archive.members
        if len(member.parts) > around
    ]
    folders = sorted({e.parts[0] for e in entries if len(e.parts) > 1})
    with_files = {
        e.parts[0]
        for e in entries
        if len(e.parts) > 1 and Path(e.parts[-1]).suffix.lower() in kind.suffixes
    }
    sheets = []
    if kind.columns and len(with_files) < 2:
        found = (table_of(e.file) for e in entries if is_table(e.parts))
        sheets = [
            sheet
            for sheet in found
            if any(sheet.find(name) is not None for name in _names(file_column, kind))
        ]
    if len(sheets) > 1:
        listed = some(sheet.path.name for sheet in sheets)
        raise InnerloopError(
            f"{shown(path)} holds several tables of {kind.what}s ({listed}): leave one"
        )
    if sheets:
        within = {m.parts: m for m in archive.members}
        first = archive.members[0].parts[:around]
        found = _in_table(
            sheets[0],
            kind,
            labels,
            file_column,
            label_column,
            lambda text: _in_members(within, first, text),
        )
        return found._replace(other=(*archive.refused, *found.other))
    return _arranged(path, entries, folders, archive.refused, kind, labels)


def surrounding(archive: Archive, suffixes: frozenset[str] | set[str]) -> tuple:
    """The folders around all class folders, tables and loose files of an archive."""
    wanted = [
        m.parts
        for m in archive.members
        if Path(m.parts[-1]).suffix.lower() in suffixes or is_table(m.parts[-1:])
    ]
    around: tuple[str, ...] = ()
    while wanted and len({parts[0] for parts in wanted}) == 1:
        inner = [parts[1:] for parts in wanted]
        loose = [p for p in inner if len(p) < 2]
        if () in inner or (loose and not all(is_table(parts) for parts in loose)):
            break
        around += wanted[0][:1]
        wanted = inner
    return around


def is_table(parts: tuple[str, ...]) -> bool:
    """Whether a path in an archive is a table directly in it."""
    return len(parts) == 1 and parts[0].lower().endswith(TABLE_SUFFIXES)


def table_of(file: File) -> Sheet:
    """The rows of a table on disk or in an archive."""
    if isinstance(file, Path):
        return read_sheet(file)
    where = file.archive / "/".join(file.parts)
    try:
        content = file.read()
    except Exception as error:
        raise InnerloopError(f"{shown(where)} cannot be read: {error}") from error
    return read_sheet(where, content=content)


def _names(chosen: str | None, kind: FileKind) -> tuple[str, ...]:
    return kind.columns if chosen is None else (chosen,)


def _in_table(
    sheet: Sheet,
    kind: FileKind,
    labels: bool,
    file_column: str | None,
    label_column: str | None,
    resolve: Callable[[str], File | str],
) -> Found:
    """The files that the rows of a table name; `resolve` gives the file of a path, or
    why there is none.
    """
    what = kind.what
    named = _column(sheet, _names(file_column, kind), f"{what}_column")
    known: list[str] | None = None
    if labels:
        sheet.check()
        names = LABEL_COLUMNS if label_column is None else (label_column,)
        known = sheet.labels(_column(sheet, names, "label_column"))
    else:
        names = LABEL_COLUMNS if label_column is None else (label_column,)
        column = next((n for n in names if sheet.find(n) is not None), None)
        if column is not None:
            every = [label_text(cell) for cell in sheet.column(column)]
            known = every if all(every) else None
    bad = {line: f"line {line}: it has {found}" for line, found in sheet.malformed}
    other: list[str] = []
    kept: list[tuple[int, str, File]] = []
    for i, cell in enumerate(sheet.column(named)):
        text, line = label_text(cell), sheet.lines[i]
        suffix = Path(text).suffix.lower()
        if not text:
            bad[line] = f"line {line}: it has no {named}"
        elif suffix in kind.refused:
            other.append(f"{shown(text)}: {kind.refused[suffix]}")
        elif "://" in text:
            bad[line] = f"line {line}: {text[:60]} is a URL; download the {what}s"
        elif isinstance(file := resolve(text), str):
            bad[line] = f"line {line}: {file}"
        else:
            kept.append((i, shown(text), file))
    lines = [bad[line] for line in sorted(bad)]
    if bad and (labels or not kept):
        raise InnerloopError(f"{shown(sheet.path)}, {some(lines, 2, 200)}")
    if not kept:
        raise InnerloopError(f"{shown(sheet.path)} names no {what} that can be read")
    return Found(
        [file for _, _, file in kept],
        [name for _, name, _ in kept],
        None if known is None else [known[i] for i, _, _ in kept],
        (*lines, *other),
        "; ".join(sheet.notes),
    )


def _column(sheet: Sheet, names: Sequence[str], option: str) -> str:
    """The first of these columns that a table has."""
    for name in names:
        if sheet.find(name) is not None:
            return name
    raise InnerloopError(
        f"{shown(sheet.path)} has no column {' or '.join(names)} in its header, the "
        f"first line; it has {some(sheet.columns)}: set {option} to one of them"
    )


def _on_disk(folder: Path, text: str) -> File | str:
    """The regular file at a path that is absolute or relative to the folder; it may
    have backslashes between folders.
    """
    for spelled in (text, text.replace("\\", "/")):
        file = folder / spelled
        try:
            if file.is_file():
                return file
        except (OSError, ValueError):
            break
    return f"there is no file {shown(folder / text)[:160]}"


def _in_members(
    members: dict[tuple[str, ...], Member], around: tuple[str, ...], text: str
) -> File | str:
    """The file of an archive at a path relative to the table or to the archive."""
    path: list[str] = []
    for part in text.replace("\\", "/").split("/"):
        if part == "..":
            path[-1:] = []
        elif part not in ("", "."):
            path.append(part)
    file = members.get((*around, *path)) or members.get(tuple(path))
    return file or f"the archive holds no file {shown(text)[:80]}"


def content(file: File | IO[bytes], most: int = MAX_FILE) -> bytes:
    """The bytes of a file.

    Raises OSError or InnerloopError for one that cannot be read, is not a regular file,
    or has more than `most` bytes.
    """
    if isinstance(file, Path):
        with regular_file(file).open("rb") as opened:
            found = opened.read(most + 1)
    else:
        found = file.open().read(most + 1) if isinstance(file, Member) else file.read()
    if len(found) > most:
        raise InnerloopError(f"it has more than {most >> 20} MiB")
    return found


def stamp(file: File) -> bytes:
    """A line that changes when a file is changed."""
    member = isinstance(file, Member)
    place, within = (file.archive, file.name) if member else (file, "")
    try:
        about = place.stat()
        line = f"{about.st_size} {about.st_mtime_ns} {within} "
    except OSError:  # such as a link to nowhere
        line = f"? {within} "
    return line.encode(errors="surrogateescape") + bytes(place.absolute()) + b"\n"
