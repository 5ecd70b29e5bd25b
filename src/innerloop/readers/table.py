"""Rows of a table, with numbers, dates, words and gaps, to vectors."""

from __future__ import annotations

import datetime
import math
import numbers
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import Positive, Real, check_options, checked
from innerloop.readers.base import Inputs, Reader
from innerloop.readers.files import Sheet, label_text, read_npz, read_sheet, some

Cells = Sequence[Any] | NDArray[Any]
_T = TypeVar("_T")
Kind = Literal["numbers", "dates", "words", "unused"]

MAX_WORDS = 50  # features that a column of words becomes at most
MAX_NUMBER = 3.4e38  # the largest float32
GAPS = {"", "na", "<na>", "n/a", "#n/a", "nan", "nat", "null", "none", "?"}

_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_WHOLE = re.compile(r"([+-]?\d+)\.0+", re.ASCII)
_SPACES = "' \u00a0\u202f\u2019"  # separate thousands in either style
_NUMBER = {
    "point": re.compile(
        rf"[+-]?(?:(?:[1-9]\d{{0,2}}(?:[,{_SPACES}]\d{{3}})+|\d+)(?:\.\d*)?|\.\d+)"
        r"(?:[eE][+-]?\d+)?",
        re.ASCII,
    ),
    "comma": re.compile(
        rf"[+-]?(?:[1-9]\d{{0,2}}(?:[.{_SPACES}]\d{{3}})+|\d+)(?:,\d*)?"
        r"(?:[eE][+-]?\d+)?",
        re.ASCII,
    ),
}
_TIME = (
    r"(?:[T ]+(?P<H>\d{1,2}):(?P<M>\d\d)(?::(?P<S>\d\d(?:\.\d+)?))?)?"
    r"(?P<z>Z|[+-]\d\d:?\d\d)?"
)
_DATE = {
    "year first": re.compile(
        rf"(?P<y>\d{{4}})([-/.])(?P<m>\d\d?)\2(?P<d>\d\d?){_TIME}", re.ASCII
    ),
    "day first": re.compile(
        rf"(?P<d>\d\d?)([-/.])(?P<m>\d\d?)\2(?P<y>\d{{4}}){_TIME}", re.ASCII
    ),
    "month first": re.compile(
        rf"(?P<m>\d\d?)([-/.])(?P<d>\d\d?)\2(?P<y>\d{{4}}){_TIME}", re.ASCII
    ),
}


@dataclass(frozen=True)
class Column:
    """What a column of a table is taken for, and how its cells become features.

    Args:
        name: its name in the header.
        kind: "numbers" (durations in days) and "dates" (days since 1970) become one
            feature, standardized;
            "words" become a feature of 0 and 1 for each word in `words`; "unused"
            columns become none.
        style: of numbers, whether the decimal sign is a "point" or a "comma"; of dates,
            "year first", "day first" or "month first"; why a column is unused.
        mean, deviation: of the training rows.
        gaps: whether a second feature says where there is no number.
        words: the words of the training rows, each a feature. A gap, and any other
            word, is 0 in all of them.
    """

    name: str
    kind: Kind
    style: str = ""
    mean: Real = 0.0
    deviation: Positive = 1.0
    gaps: bool = False
    words: tuple[str, ...] = ()

    @classmethod
    def fitted(
        cls, name: str, cells: Cells, training: Sequence[int], standardize: bool = True
    ) -> Self:
        """The kind of a column from all its cells, its mean, deviation and words from
        the training rows.

        A column holds numbers, or dates, if more than half of its known cells do.
        """
        kind, style = _kind(cells)
        column = cls(name, kind, style)
        if kind == "unused":
            return column
        if kind == "words":
            counts = Counter(word(cells[i]) for i in training if not _gap(cells[i]))
            often = [word for word, count in counts.most_common() if count > 1]
            if not often:
                return cls(name, "unused", "all words differ")
            return replace(column, words=tuple(sorted(often[:MAX_WORDS])))
        values = column.values(cells)
        finite = values[np.isfinite(values) & (np.abs(values) <= MAX_NUMBER)]
        column = replace(column, gaps=bool(np.isnan(values).any()))
        values = values[np.asarray(training, dtype=np.int64)]
        values = values[np.isfinite(values) & (np.abs(values) <= MAX_NUMBER)]
        if not standardize or not len(values):
            return column
        deviation, size = float(values.std()), float(np.abs(finite).max())
        return replace(
            column,
            mean=float(values.mean()),
            deviation=deviation if deviation > 1e-12 * size else 1.0,
        )

    @property
    def width(self) -> int:
        """The number of features."""
        if self.kind in ("numbers", "dates"):
            return 1 + self.gaps
        return len(self.words)

    def values(self, cells: Cells) -> NDArray[np.float64]:
        """Numbers and dates as float64 (n,), NaN for gaps and for what is neither."""
        if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiu":
            return cells.astype(np.float64)
        parse = once_each(partial(_PARSERS[self.kind][1], style=self.style))
        found = [None if _gap(cell) else parse(cell) for cell in cells]
        return np.array([math.nan if v is None else v for v in found], dtype=np.float64)

    def encode(
        self, cells: Cells, errors: dict[int, str], misfits: list[tuple[int, str]]
    ) -> NDArray[np.float64]:
        """Features (n, width). Rows with a value that no feature can hold go into
        `errors`; cells that are not of the column's kind count as gaps and go into
        `misfits`.
        """
        if self.kind == "unused":
            return np.empty((len(cells), 0))
        if self.kind == "words":
            places = {word: i for i, word in enumerate(self.words)}
            features = np.zeros((len(cells), len(self.words)))
            for row, cell in enumerate(cells):
                place = None if _gap(cell) else places.get(word(cell))
                if place is not None:
                    features[row, place] = 1.0
            return features
        values = self.values(cells)
        with np.errstate(over="ignore"):
            scaled = (values - self.mean) / self.deviation
        for row in np.flatnonzero(np.isnan(values)).tolist():
            if not _gap(cells[row]):
                cell = f"{cells[row]!r} in column {self.name}"
                misfits.append((row, f"{cell}, which holds {self.kind}"))
        large = (np.abs(values) > MAX_NUMBER) | (np.abs(scaled) > MAX_NUMBER)
        for row in np.flatnonzero(large).tolist():
            what = "infinite" if _infinite(cells[row]) else "too large for float32"
            errors.setdefault(row, f"{cells[row]} in column {self.name} is {what}")
        scaled[np.isnan(values) | large] = 0.0
        gap = np.isnan(values).astype(np.float64)
        return np.stack([scaled, gap] if self.gaps else [scaled], 1)


def _column(data: Mapping[str, Any]) -> Column:
    """A column from JSON. Raises InnerloopError for values of other types."""
    column = Column(**checked(Column, data, "a column"))
    for word in column.words:
        if not isinstance(word, str):
            raise InnerloopTypeError(
                f"words of a column must be texts; got {word!r:.60}"
            )
    return column


@dataclass(frozen=True)
class TableReader(Reader):
    """Tables: numbers, dates, categories and missing values as vectors.

    What a column holds is decided when the reader is fitted. Numbers may be written
    with separators of thousands, a decimal comma, a currency sign or a per cent sign.
    Numbers and dates are standardized in float64. The commonest 50 words of a column
    that occur more than once become features.

    Args:
        columns: how each column becomes features.
        label_column: column of the labels in a file.
        task_column: column of the tasks in a file.
        name_column: column of what a row is called in results, in place of its line.
        center, deviation: mean and standard deviation of the targets in training, in
            units of which learners see them; see `Reader`.
        classes: the labels in the order of a learner's outputs; see `Reader`.
    """

    columns: tuple[Column, ...]
    label_column: str = "y"
    task_column: str = "task"
    name_column: str = ""
    center: Real = 0.0
    deviation: Positive = 1.0
    classes: tuple[str, ...] = ()

    kind: ClassVar[str] = "table"
    what: ClassVar[str] = "row"
    tabular: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)
        made = (e if isinstance(e, Column) else _column(e) for e in self.columns)
        columns = tuple(replace(e, words=tuple(e.words)) for e in made)
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "classes", tuple(self.classes))
        if not sum(column.width for column in columns):
            raise InnerloopError(
                f"the table has no column of features: {self.describe() or 'none left'}"
            )

    @classmethod
    def fitted(
        cls,
        cells: Mapping[str, Cells],
        training: Sequence[int] | None = None,
        *,
        standardize: bool = True,
        label_column: str = "y",
        task_column: str = "task",
    ) -> Self:
        """A reader for a table.

        Args:
            cells: the cells of every column of features, by name.
            training: the rows to take means, deviations and words from (default: all).
            standardize: whether to subtract the mean of a column of numbers and divide
                by its deviation.
            label_column, task_column: see the class.
        """
        n = max((len(column) for column in cells.values()), default=0)
        rows = range(n) if training is None else training
        columns = tuple(
            Column.fitted(name, column, rows, standardize)
            for name, column in cells.items()
        )
        return cls(columns, label_column, task_column)

    @classmethod
    def of_array(
        cls, x: NDArray[Any], training: Sequence[int], *, standardize: bool
    ) -> Self:
        """A reader for an array of numbers (n, features).

        Raises InnerloopError where float32 cannot hold the differences within a feature
        and `standardize` is false.
        """
        if not standardize and x.dtype.kind == "f" and len(x) > 1:
            wide = x.astype(np.float64)
            error = np.abs(wide - x.astype(np.float32)).max(0)
            lost = np.flatnonzero(error > 1e-3 * wide.std(0))
            if len(lost):
                of = wide[:, lost[0]]
                raise InnerloopError(
                    f"feature {lost[0]} of x loses its differences in float32 (mean "
                    f"{of.mean():g}, standard deviation {of.std():g}): pass "
                    "standardize=True or subtract the mean"
                )
        if x.dtype.kind == "b":
            x = x.astype(np.float32)
        cells = {f"x{i}": x[:, i] for i in range(x.shape[1])}
        return cls.fitted(cells, training, standardize=standardize)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (sum(column.width for column in self.columns),)

    @property
    def called(self) -> str:
        return self.name_column or self.what

    def settings(self) -> dict[str, Any]:
        return asdict(self)

    def describe(self) -> str:
        """What every column was taken for, in a few words."""
        groups: dict[str, list[str]] = {}
        for column in self.columns:
            kind, name = column.kind, column.name
            if kind == "words":
                name += f" ({len(column.words)} words)"
            elif kind == "unused":
                name += f" ({column.style})"
            elif column.style not in ("point", "year first"):
                decimal = column.kind == "numbers"
                name += f" ({'decimal comma' if decimal else column.style})"
            groups.setdefault(kind, []).append(name)
        return "; ".join(f"{kind}: {some(names)}" for kind, names in groups.items())

    def read(self, path: Path | str, *, labels: bool) -> Inputs:
        if str(path).endswith(".npz"):
            return self._from_npz(path, labels)
        return self.from_sheet(read_sheet(path), labels=labels)

    def from_sheet(self, sheet: Sheet, *, labels: bool) -> Inputs:
        """What `read` returns, from a file that was read already."""
        known: list[str] | None = None
        if labels:
            sheet.check()
            known = sheet.labels(self.label_column, "; label_column names another")
        elif (place := sheet.find(self.label_column)) is not None:
            known = [label_text(row[place]) for row in sheet.rows]
            known = known if all(known) else None
        hint = "; the reader takes features from this column"
        x, errors, misfits = self._encode(
            {c.name: sheet.column(c.name, hint) for c in self._used}, len(sheet.rows)
        )
        if errors and labels:
            found = some(f"line {sheet.lines[i]}: {why}" for i, why in errors.items())
            raise InnerloopError(f"{sheet.path}, {found}")
        kept = [i for i in range(len(x)) if i not in errors]
        bad = {sheet.lines[i]: why for i, why in errors.items()}
        bad |= {line: f"has {what}" for line, what in sheet.malformed}
        unreadable = tuple(f"line {line}: {bad[line]}" for line in sorted(bad))
        if not kept:
            raise InnerloopError(
                f"{sheet.path} has no row that can be read: {some(unreadable)}"
            )
        notes = [*sheet.notes, self.describe()]
        thousands = [
            column.name
            for column in self._used
            if column.kind == "numbers" and column.style == "point"
            if any("," in str(cell) for cell in sheet.column(column.name))
        ]
        if thousands:
            notes.append(f"',' separates thousands in {some(thousands)}")
        if misfits:
            listed = some(f"{what} (line {sheet.lines[i]})" for i, what in misfits)
            notes.append(f"taken for gaps: {listed}")
        called = sheet.lines if not self.name_column else sheet.labels(self.name_column)
        return Inputs(
            x[torch.tensor(kept)],
            [str(called[i]) for i in kept],
            [known[i] for i in kept] if known else None,
            unreadable,
            "; ".join(notes),
        )

    def convert(self, X: Any) -> Tensor:
        """Rows as vectors (n, features): a data frame, a sequence of dicts from column
        to cell, or numbers (n, columns) in the order of the columns.

        Raises InnerloopError for a missing column, and for a cell that is not of its
        column's kind, naming the row.
        """
        columns = self._columns_of(X)
        x, errors, misfits = self._encode(columns, len(next(iter(columns.values()))))
        if bad := sorted([*errors.items(), *misfits]):
            found = some(f"row {row + 1} has {what}" for row, what in bad)
            raise InnerloopError(f"X cannot be read: {found}")
        return x

    @property
    def _used(self) -> list[Column]:
        return [column for column in self.columns if column.width]

    def _encode(
        self, cells: Mapping[str, Cells], n: int
    ) -> tuple[Tensor, dict[int, str], list[tuple[int, str]]]:
        errors: dict[int, str] = {}
        misfits: list[tuple[int, str]] = []
        features = [c.encode(cells[c.name], errors, misfits) for c in self._used]
        x = np.concatenate([*features, np.empty((n, 0))], 1).astype(np.float32)
        return torch.from_numpy(x), errors, sorted(misfits)

    def _columns_of(self, X: Any) -> dict[str, Cells]:
        """The cells of each used column, from data in memory."""
        wanted = [column.name for column in self._used]
        if isinstance(X, Mapping) or hasattr(X, "columns"):
            by_name = columns_of(X)
        elif isinstance(X, Sequence) and X and all(isinstance(r, Mapping) for r in X):
            for place, row in enumerate(X, 1):
                if missing := [name for name in wanted if _match(row, name) is None]:
                    raise InnerloopError(
                        f"row {place} has no column {some(missing)}: it has {some(row)}"
                    )
            return {name: [row[_match(row, name)] for row in X] for name in wanted}
        else:
            array = as_array(X)
            if array.dtype.kind == "b":
                array = array.astype(np.float32)
            if array.ndim != 2 or array.shape[1] != len(self.columns):
                raise InnerloopError(
                    "rows of a table are needed: a data frame, dicts from column to "
                    f"cell, or an array (n, {len(self.columns)}); columns: "
                    f"{some(wanted)}; got {type(X).__name__} of shape {array.shape}"
                )
            names = [column.name for column in self.columns]
            by_name = dict(zip(names, array.T, strict=True))
        found = {name: _match(by_name, name) for name in wanted}
        if missing := [name for name, match in found.items() if match is None]:
            raise InnerloopError(
                f"X has no column {some(missing)}: it has {some(by_name)}"
            )
        columns = {name: by_name[match] for name, match in found.items() if match}
        if not len(next(iter(columns.values()))):
            raise InnerloopError("X has 0 rows of the table; at least one is needed")
        return columns

    def _from_npz(self, path: Path | str, labels: bool) -> Inputs:
        stored = read_npz(path)
        x, y = (stored.get(name) for name in ("X", "y"))
        if x is None or (labels and y is None):
            raise InnerloopError(
                f"{path} needs the array{'s X and y' if labels else ' X'}; it has "
                f"{some(stored) or 'none'}"
            )
        inputs = self.convert(x)
        known = None if y is None else label_texts(y, len(x), f"y in {path}")
        return Inputs(inputs, [str(i) for i in range(1, len(x) + 1)], known)


def label_texts(y: Any, n: int, what: str = "y") -> list[str]:
    """Class labels (n,) or (n, 1) as texts without surrounding spaces.

    Raises InnerloopError for labels of another shape, complex or missing labels.
    """
    y = as_array(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InnerloopError(
            f"{what} has shape {tuple(y.shape)}; class labels have shape ({n},), one "
            "label a row"
        )
    labels = y.tolist()
    if any(isinstance(label, complex) for label in labels):
        raise InnerloopTypeError(f"{what} holds complex numbers; labels are expected")
    if len(labels) != n:
        raise InnerloopError(f"x has {n} rows and {what} has {len(labels)}")
    found = [label_text(label) for label in labels]
    if missing := [i for i, label in enumerate(found) if not label]:
        raise InnerloopError(
            f"{what} holds NaN, None or empty labels in row {some(missing)}: drop "
            "these rows or label them"
        )
    return found


def as_array(values: Any) -> NDArray[Any]:
    """Tensors, arrays and sequences as a NumPy array; sequences keep the types of their
    items.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        # NumPy has no bfloat16
        half = values.dtype in (torch.bfloat16, torch.float16)
        return (values.float() if half else values).numpy()
    if not isinstance(values, list | tuple):
        return np.asarray(values)
    try:
        array = np.asarray(values)
        return array if array.dtype.kind in "biufc" else np.asarray(values, object)
    except ValueError:  # rows of different lengths
        array = np.empty(len(values), object)
        array[:] = values
        return array


def columns_of(frame: Any) -> dict[str, Cells]:
    """The cells of a data frame, or of a dict of columns, by name.

    Raises InnerloopError for columns of different lengths.
    """
    names = frame if isinstance(frame, Mapping) else frame.columns
    columns: dict[str, Cells] = {str(name): as_array(frame[name]) for name in names}
    if len({len(cells) for cells in columns.values()}) > 1:
        sizes = some(f"{name}: {len(cells)}" for name, cells in columns.items())
        raise InnerloopError(f"the columns of x have different lengths ({sizes})")
    return columns


def as_numbers(cells: Cells, places: list[str] | None = None) -> NDArray[np.float64]:
    """A column in which every cell must be a number, as float64 (n,).

    Raises InnerloopError, naming the rows by `places`, for any other cell.
    """
    _, style = _kind(cells)
    column = Column("", "numbers", style if style in _NUMBER else "point")
    values = column.values(cells)
    bad = np.flatnonzero(~(np.abs(values) <= MAX_NUMBER)).tolist()
    if bad:
        found = some(
            f"{cells[i]!r} in {places[i] if places else f'row {i}'}" for i in bad
        )
        raise InnerloopError(
            "rows with a task are regression tasks, so y must be finite numbers up to "
            f"{MAX_NUMBER:g}; got {found}"
        )
    return values


def _match(names: Mapping[str, Any], wanted: str) -> str | None:
    """The key that is `wanted`, or differs from it in case and outer spaces only."""
    if wanted in names:
        return wanted
    folded = wanted.strip().casefold()
    return next(
        (name for name in names if str(name).strip().casefold() == folded), None
    )


def _kind(cells: Cells) -> tuple[Kind, str]:
    """The kind and style of a column; see `Column`."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiu":
        return "numbers", "point"
    known = [cell for cell in cells if not _gap(cell)]
    if not known:
        return "unused", "empty"
    for kind, (styles, parse) in _PARSERS.items():
        fits = {
            style: sum(
                map(once_each(lambda cell: parse(cell, style) is not None), known)  # noqa: B023
            )
            for style in styles
        }
        best = max(fits, key=lambda style: fits[style])  # the first of the best
        if 2 * fits[best] > len(known):
            return kind, best
    return "words", ""


def once_each(function: Callable[[Any], _T]) -> Callable[[Any], _T]:
    """A function of cells that computes the result for each different text once."""
    seen: dict[str, _T] = {}

    def found(cell: Any) -> _T:
        if not isinstance(cell, str):
            return function(cell)
        if cell not in seen:
            seen[cell] = function(cell)
        return seen[cell]

    return found


def _gap(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell.strip().lower() in GAPS
    return not label_text(cell)


def word(cell: Any) -> str:
    """A cell of a column of words: `1` and `1.0` are the same word, and so are `True`
    and `TRUE`.
    """
    text = label_text(cell)
    if whole := _WHOLE.fullmatch(text):
        return whole[1]
    return text.lower() if text.lower() in ("true", "false") else text


def _infinite(cell: Any) -> bool:
    return bool(_INFINITE.fullmatch(str(cell).strip()))


def _number(cell: Any, style: str) -> float | None:
    """The number in a cell, as people write it, or None."""
    if isinstance(cell, complex | np.complexfloating):
        raise InnerloopTypeError(f"a table cannot hold complex numbers; got {cell!r}")
    if isinstance(cell, bool | np.bool_):
        return None
    if isinstance(cell, np.timedelta64):
        cell = cell.astype("timedelta64[us]").item()
    if isinstance(cell, datetime.timedelta):
        return cell / datetime.timedelta(days=1)
    if isinstance(cell, numbers.Real | Decimal):
        return float(cell)
    if not isinstance(cell, str):
        return None
    text = cell.strip().replace("\u2212", "-")
    if _INFINITE.fullmatch(text):
        return math.copysign(math.inf, -1.0 if text[0] == "-" else 1.0)
    percent = text.endswith("%")
    text = re.sub(r"^([+-]?)\s*[$€£¥]\s*", r"\1", text.removesuffix("%"))
    text = re.sub(r"\s*[$€£¥]$", "", text).strip()
    if not _NUMBER[style].fullmatch(text):
        return None
    thousands, decimal = (",", ".") if style == "point" else (".", ",")
    text = re.sub(f"[{thousands}{_SPACES}]", "", text).replace(decimal, ".")
    return float(text) / (100.0 if percent else 1.0)


def _date(cell: Any, style: str) -> float | None:
    """The date in a cell as days since 1970-01-01, or None."""
    if isinstance(cell, np.datetime64):
        cell = cell.astype("datetime64[us]").item()
    if isinstance(cell, str):
        match = _DATE[style].fullmatch(cell.strip())
        if match is None:
            return None
        try:
            day = datetime.date(int(match["y"]), int(match["m"]), int(match["d"]))
        except ValueError:
            return None
        hours, minutes = int(match["H"] or 0), int(match["M"] or 0)
        seconds = 3600 * hours + 60 * minutes + float(match["S"] or 0)
        if match["z"] and match["z"] != "Z":
            sign, digits = match["z"][0], match["z"][1:].replace(":", "")
            offset = 3600 * int(digits[:2]) + 60 * int(digits[2:])
            seconds -= offset if sign == "+" else -offset
        return (day - datetime.date(1970, 1, 1)).days + seconds / 86400
    if isinstance(cell, datetime.datetime):
        epoch = datetime.datetime(1970, 1, 1, tzinfo=cell.tzinfo)
        return (cell - epoch) / datetime.timedelta(days=1)
    if isinstance(cell, datetime.date):
        return float((cell - datetime.date(1970, 1, 1)).days)
    return None


_PARSERS: dict[Kind, tuple[dict[str, re.Pattern[str]], Any]] = {
    "numbers": (_NUMBER, _number),
    "dates": (_DATE, _date),
}
