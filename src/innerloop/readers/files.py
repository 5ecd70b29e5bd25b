"""Tables in files: delimited text, Excel workbooks and Parquet files as rows of cells.
Every task source and every command reads such files through `read_sheet`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import stat
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np

from innerloop.engine.errors import (
    InnerloopError,
    InnerloopFileError,
    MissingPackageError,
)

MAX_BYTES = 1 << 30  # of the text in a file, decompressed
MAX_CELLS = 50_000_000  # of a workbook, a Parquet or a JSON file
TABLE_SUFFIXES = (
    *(".csv", ".tsv", ".csv.gz", ".tsv.gz", ".xlsx", ".xlsm", ".parquet"),
    *(".json", ".jsonl", ".ndjson"),
)
SHOWN = 5  # how many lines, names or cells an error or note lists
DELIMITERS = (",", ";", "\t")
_NO_DELIMITER = "\x1f"  # for files with one column
_UNNAMED = re.compile(r"(unnamed: \d+)?", re.IGNORECASE)
_INTEGER = re.compile(r"([+-]?\d+)\.0+", re.ASCII)


@dataclass(frozen=True)
class Sheet:
    """The rows of a file.

    Args:
        path: the file.
        columns: names from the header, without surrounding spaces.
        rows: cells in the order of the columns; texts from delimited files, typed
            values and None from workbooks and Parquet files.
        lines: the line on which each row begins, counted from 1.
        malformed: line and reason of each row that does not fit the header and is not
            in `rows`.
        notes: what was assumed to read the file.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[list[Any]]
    lines: list[int]
    malformed: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises InnerloopError, naming the lines, where a row does not fit the
        header.
        """
        if self.malformed:
            found = some([f"line {line} has {what}" for line, what in self.malformed])
            raise InnerloopError(
                f"{self.path}: the header has {cells(len(self.columns))}, but {found}: "
                "put quotes around a cell that contains the delimiter"
            )

    def find(self, name: str) -> int | None:
        """The position of a column, or None; upper and lower case count as equal unless
        two columns differ by nothing else.
        """
        if name.strip() in self.columns:
            return self.columns.index(name.strip())
        folded = [column.casefold() for column in self.columns]
        wanted = name.strip().casefold()
        return folded.index(wanted) if wanted in folded else None

    def column(self, name: str, hint: str = "") -> list[Any]:
        """The cells of a column. Raises InnerloopError where there is no such
        column.
        """
        place = self.find(name)
        if place is None:
            raise InnerloopError(
                f"{self.path} has no column {name!r} in its header, the first line; it "
                f"has {some(self.columns)}{hint}"
            )
        return [row[place] for row in self.rows]

    def matching(self, patterns: str) -> list[str]:
        """The columns that patterns name, separated by commas, in which "*" stands for
        any characters. Raises InnerloopError where one names none.
        """
        found: dict[str, None] = {}
        for pattern in map(str.strip, patterns.split(",")):
            fitting = [name for name in self.columns if fnmatchcase(name, pattern)]
            if not fitting:
                raise InnerloopError(
                    f"{self.path} has no column {pattern!r}; it has "
                    f"{some(self.columns)}"
                )
            found |= dict.fromkeys(fitting)
        return list(found)

    def labels(self, name: str, hint: str = "") -> list[str]:
        """The cells of a column as labels, without surrounding spaces.

        Raises InnerloopError, naming the lines, where one is empty.
        """
        found = [label_text(cell) for cell in self.column(name, hint)]
        empty = [self.lines[i] for i, label in enumerate(found) if not label]
        if empty:
            raise InnerloopError(
                f"{self.path} has no {name} in line {some(empty)}: give these rows one "
                "or delete them"
            )
        return found


def read_sheet(
    path: Path | str, *, keep_blank: bool = False, content: bytes | None = None
) -> Sheet:
    """The rows of a delimited text file (`.csv`, `.tsv`, `.txt`, plain or as `.gz`),
    the first sheet of an Excel workbook, a Parquet file, or JSON objects: its content
    decides which, but JSON has the suffix `.json`, `.jsonl` or `.ndjson`.

    The delimiter (`,`, `;` or tab) is the one under which most rows fit the header.
    Text is UTF-8, UTF-16 or UTF-32 by its byte order mark, else UTF-8, else cp1252.

    Rows of a text file without any content are left out, unless `keep_blank`.

    `content` is read in place of the file, which then only gives the name.

    Raises:
        InnerloopFileError: the file is missing or not a regular file.
        MissingPackageError: openpyxl or pyarrow is needed.
        InnerloopError: the file cannot be decoded, or has no rows.
    """
    path = regular_file(path) if content is None else Path(path)
    with (
        decoding(path, "a table"),
        path.open("rb") if content is None else io.BytesIO(content) as opened,
    ):
        start = opened.read(8)
        opened.seek(0)
        if start.startswith(b"PK\x03\x04"):
            return _named(path, *_workbook(path, opened))
        if start.startswith(b"PAR1"):
            return _named(path, *_parquet(path, opened))
        if start.startswith(b"\xd0\xcf\x11\xe0"):
            raise InnerloopError(
                f"{path} is a workbook of Excel 2003 or older: save it as .xlsx or .csv"
            )
        text, notes = _text_in(path, opened, start.startswith(b"\x1f\x8b"))
        name = path.name.lower().removesuffix(".gz")
        if name.endswith((".json", ".jsonl", ".ndjson")):
            return _named(path, *_objects(path, text), notes)
        return _delimited(path, text, notes, keep_blank)


def read_npz(path: Path | str) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file; pickled objects are refused.

    Raises InnerloopFileError for a missing file and InnerloopError for one that cannot
    be decoded.
    """
    path = regular_file(path)
    with decoding(path, ".npz arrays without pickled objects"), np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def regular_file(path: Path | str) -> Path:
    """The path of a regular file.

    Raises InnerloopFileError for one that is missing, a folder, a pipe or a device.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise InnerloopFileError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise InnerloopFileError(f"{path} cannot be opened: {error}") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise InnerloopFileError(f"{path} is {what}; expected a regular file")
    return path


@contextmanager
def decoding(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a decoder raises into an InnerloopError that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InnerloopError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InnerloopError(f"{path} cannot be read as {what}: {reason}") from error


def label_text(label: Any) -> str:
    """A label as a text without surrounding spaces; "" for None and NaN. Whole numbers
    read the same whether they are stored as integers or as floats.
    """
    # NaN and pandas.NaT are not equal to themselves
    if label is None or type(label).__name__ == "NAType" or _unequal(label):
        return ""
    if isinstance(label, bytes):
        label = label.decode(errors="replace")
    text = str(label).strip()
    whole = not isinstance(label, str) and _INTEGER.fullmatch(text)
    return whole[1] if whole else text


def _unequal(value: Any) -> bool:
    return bool(value != value)


def some(items: Iterable[Any], number: int = SHOWN, width: int = 80) -> str:
    """The first items, and how many more there are."""
    listed = [str(item)[:width] for item in items]
    more = len(listed) - number
    return ", ".join(listed[:number]) + (f" and {more:,} more" if more > 0 else "")


def cells(number: int) -> str:
    return f"{number} cell{'s' if number != 1 else ''}"


def shown(path: Path | str) -> str:
    """A path as text that can be printed, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _text_in(path: Path, opened: IO[bytes], compressed: bool) -> tuple[str, list[str]]:
    with gzip.open(opened) if compressed else opened as plain:
        raw = plain.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise InnerloopError(
            f"{path} has more than {MAX_BYTES >> 20:,} MiB of text: use an .npz or "
            "Parquet file, or fewer rows"
        )
    if not raw.strip():
        raise InnerloopError(f"{path} is empty")
    return decoded(path, raw)


def _delimited(path: Path, text: str, notes: list[str], keep_blank: bool) -> Sheet:
    delimiter = _delimiter(text)
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, lines, begin = [], [], 1
    try:
        for row in reader:
            blank = not any(cell.strip() for cell in row)
            if row and (not blank or (keep_blank and rows)):
                rows.append(row)
                lines.append(begin)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise InnerloopError(
            f"{path}, row from line {begin}: {error}. Close every quote, and write a "
            'quote inside a quoted cell twice: ""'
        ) from error
    return _named(path, rows, lines, notes)


def _objects(path: Path, text: str) -> tuple[list[list[Any]], list[int]]:
    """JSON objects, in a list or one after another, as rows below a header."""
    decoder, objects, lines = json.JSONDecoder(), [], [0]
    gap = re.compile(r"[\s,]*")
    listed = text.lstrip().startswith("[")
    place = text.index("[") + 1 if listed else 0
    line, counted = 1, 0
    while True:
        place = gap.match(text, place).end()  # pyright: ignore[reportOptionalMemberAccess]
        line, counted = line + text.count("\n", counted, place), place
        if text[place : place + 1] == ("]" if listed else ""):
            break
        try:
            found, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise InnerloopError(
                f"{path}, line {error.lineno}, is not JSON: {error.msg}"
            ) from error
        if not isinstance(found, dict):
            raise InnerloopError(
                f"{path}, line {line}: expected a JSON object such as "
                f'{{"text": "a text", "label": "a label"}}; got {found!r:.60}'
            )
        objects.append(found)
        lines.append(line)
    columns = list(dict.fromkeys(name for row in objects for name in row))
    _check_cells(path, len(objects) * len(columns))
    if not columns:
        raise InnerloopError(f"{path} has no JSON objects with values")
    rows = [[_printable(row.get(name)) for name in columns] for row in objects]
    return [columns, *rows], lines


def _printable(cell: Any) -> Any:
    """A cell without halves of surrogate pairs, which no file can hold."""
    if not isinstance(cell, str) or cell.isascii():
        return cell
    return cell.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _check_cells(path: Path, number: int) -> None:
    if number > MAX_CELLS:
        raise InnerloopError(
            f"{path} has {number:,} cells, more than the {MAX_CELLS:,} that are read: "
            "use fewer rows"
        )


def decoded(path: Path | str, raw: bytes) -> tuple[str, list[str]]:
    """The text of a file, UTF-8, UTF-16 or UTF-32 by its byte order mark, else UTF-8,
    else cp1252, and a note where that was assumed.

    Raises InnerloopError for bytes that are no text.
    """
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\xff\xfe\x00\x00", "utf-32"),
        (b"\x00\x00\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if raw.startswith(mark):
            return raw.decode(encoding), []
    if b"\x00" in raw:  # UTF-16 without a byte order mark, or no text
        even, odd = (raw[i::2].count(0) for i in (0, 1))
        if max(even, odd) > len(raw) // 4 and min(even, odd) < len(raw) // 100 + 1:
            return raw.decode("utf-16-be" if even > odd else "utf-16-le"), []
        raise InnerloopError(f"{path} is not a text file: it holds zero bytes")
    try:
        return raw.decode("utf-8"), []
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        try:
            text = raw.decode("cp1252")
        except UnicodeDecodeError:
            raise InnerloopError(
                f"{path} is encoded neither as UTF-8 (line {line}) nor as cp1252: save "
                "it as UTF-8"
            ) from error
        return text, [
            f"the text is not UTF-8 (line {line}) and was read as cp1252: save it as "
            "UTF-8 if letters are wrong"
        ]


def _delimiter(text: str) -> str:
    """The delimiter under which most of the first rows have as many cells as the
    header; of several, the one with most cells.
    """
    best, chosen = (0.0, 1), _NO_DELIMITER
    csv.field_size_limit(2**31 - 1)
    for delimiter in DELIMITERS:
        sizes = []
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if any(cell.strip() for cell in row):
                sizes.append(len(row))
            if len(sizes) == 100:
                break
        if sizes and sizes[0] > 1:
            fit = sum(size == sizes[0] for size in sizes) / len(sizes)
            if (fit, sizes[0]) > best:
                best, chosen = (fit, sizes[0]), delimiter
    return chosen


def _package(path: Path, name: str, what: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"{path} is {what}, which needs {name.split('.')[0]}: pip install "
            "'innerloop[files]', or save the file as .csv"
        ) from error


def _workbook(
    path: Path, opened: IO[bytes]
) -> tuple[list[list[Any]], list[int], list[str]]:
    openpyxl = _package(path, "openpyxl", "an Excel workbook")
    with zipfile.ZipFile(opened) as archive:
        members = archive.infolist()
    if not any(member.filename.startswith("xl/") for member in members):
        raise InnerloopError(f"{path} is an archive and not a workbook")
    if sum(member.file_size for member in members) > MAX_BYTES:
        raise InnerloopError(
            f"{path} has more than {MAX_BYTES >> 20:,} MiB when it is decompressed: "
            "save it as .csv"
        )
    book = openpyxl.load_workbook(opened, read_only=True, data_only=True)
    try:
        sheets = book.worksheets
        rows, lines = [], []
        for line, row in enumerate(sheets[0].iter_rows(values_only=True), 1):
            filled = [i for i, cell in enumerate(row) if cell is not None]
            if filled:
                rows.append(list(row))
                lines.append(line)
    finally:
        book.close()
    width = max(
        (i + 1 for row in rows for i, c in enumerate(row) if c is not None), default=0
    )
    rows = [(row + [None] * width)[:width] for row in rows]
    more = f"{sheets[0].title!r}, the first of {len(sheets)} sheets, was read"
    return rows, lines, [more] if len(sheets) > 1 else []


def _parquet(
    path: Path, opened: IO[bytes]
) -> tuple[list[list[Any]], list[int], list[str]]:
    parquet = _package(path, "pyarrow.parquet", "a Parquet file")
    about = parquet.read_metadata(opened)
    _check_cells(path, about.num_rows * about.num_columns)
    table = parquet.read_table(opened)
    kept = [
        name for name in table.column_names if not name.startswith("__index_level_")
    ]
    columns = [table.column(name).to_pylist() for name in kept]
    rows: list[list[Any]] = [
        list(kept),
        *(list(row) for row in zip(*columns, strict=True)),
    ]
    return rows, list(range(len(rows))), []


def _named(
    path: Path, rows: list[list[Any]], lines: list[int], notes: Sequence[str]
) -> Sheet:
    """A sheet from rows of which the first is the header."""
    if not rows:
        raise InnerloopError(f"{path} has no rows: a header and rows are needed")
    notes = list(notes)
    header = ["" if cell is None else str(cell).strip() for cell in rows[0]]
    body, malformed, places = [], [], []
    for line, row in zip(lines[1:], rows[1:], strict=True):
        if len(row) == len(header):
            body.append(row)
            places.append(line)
        else:
            malformed.append((line, cells(len(row))))
    dropped = set()
    for i, name in enumerate(header):
        if not _UNNAMED.fullmatch(name):
            continue
        if i == 0 and len(header) > 1:
            notes.append(
                "the first column has no name, was taken for row numbers and "
                "is not used"
            )
        elif any(label_text(row[i]) for row in body):
            raise InnerloopError(f"{path}: column {i + 1} of the header has no name")
        dropped.add(i)
    kept = [i for i in range(len(header)) if i not in dropped]
    names = [header[i] for i in kept]
    if twice := sorted(n for n, count in Counter(names).items() if count > 1):
        raise InnerloopError(
            f"{path} has several columns with the name {some(twice)}: rename or delete "
            "all but one"
        )
    if not body and not malformed:
        raise InnerloopError(
            f"{path} has a header ({some(names)}) but no rows below it"
        )
    if dropped:
        body = [[row[i] for i in kept] for row in body]
    return Sheet(path, tuple(names), body, places, tuple(malformed), tuple(notes))


def harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: one that would be is preceded by
    an apostrophe, numbers are not.
    """
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return "'" + text
    return text


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as the text of a .csv, whose texts no spreadsheet takes for formulas."""
    memory = io.StringIO()
    csv.writer(memory).writerows(
        [harmless(cell) if isinstance(cell, str) else cell for cell in row]
        for row in rows
    )
    return memory.getvalue()
