"""Results: typed measurements in tables, JSON in and JSON out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from html import escape
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from innerloop.engine.options import Count, Seed, check_options
from innerloop.engine.precision import Precision

Unit = Literal["", "%", "s"]  # "%": the number is a fraction, shown in per cent


@lru_cache(maxsize=256)
def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution.

    By bisection of its distribution function, integrated with Simpson's rule in the
    angle atan(t / sqrt(freedom)).
    """
    if freedom >= 100_000:
        return 1.959963984540054

    def tail(t: float) -> float:  # P(|T| < t)
        end, pieces = math.atan(t / math.sqrt(freedom)), 2000
        step = end / pieces
        weights = [1.0, *([4.0, 2.0] * (pieces // 2))[:-1], 1.0]
        total = sum(
            w * math.cos(i * step) ** (freedom - 1) for i, w in enumerate(weights)
        )
        log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
        return 2 * math.exp(log_scale) / math.sqrt(math.pi) * total * step / 3

    low, high = 1.9, 13.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle) < 0.95 else (low, middle)
    return high


class Estimate(NamedTuple):
    """A mean over independent tasks and the half width of its 95 % interval (Student's
    t); the interval is None for a single task.
    """

    mean: float
    interval: float | None

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """From one value for each task, (n,)."""
        values = values.double()
        n = len(values)
        if n < 2:
            return cls(float(values.mean()), None)
        deviation = float(values.std()) / math.sqrt(n)
        return cls(float(values.mean()), student_t(n - 1) * deviation)


@dataclass(frozen=True)
class Measurement:
    """One number of a result.

    Args:
        name: what was measured, such as "accuracy".
        mean: its mean over tasks.
        interval: half width of the 95 % interval, or None for a number without one.
        n: how many tasks (or trials, streams) it is the mean of.
        unit: "%" for fractions, "s" for seconds, "" otherwise.
        transductive: whether predictions for one query example used the others.
    """

    name: str
    mean: float
    interval: float | None = None
    n: int = 1
    unit: Unit = ""
    transductive: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        estimate: Estimate,
        n: int,
        unit: Unit = "",
        transductive: bool = False,
    ) -> Measurement:
        return cls(name, estimate.mean, estimate.interval, n, unit, transductive)

    def __str__(self) -> str:
        scale, digits = (100.0, 2) if self.unit == "%" else (1.0, 4)
        if self.unit == "s":  # three digits where it is less than a second
            size = abs(self.mean) or 1.0
            digits = 1 if not size < 1 else 2 - math.floor(math.log10(size))
        text = f"{scale * self.mean:.{digits}f}"
        if self.interval is not None:
            text += f" ± {scale * self.interval:.{digits}f}"
        return text + (f" {self.unit}" if self.unit else "")


@dataclass(frozen=True)
class TaskScores:
    """One score for every task of a test.

    Args:
        name: what was measured, such as "accuracy".
        values: (n,).
        unit: "%" for fractions, "" otherwise.
        higher_is_better: whether a larger score is better.
        transductive: whether predictions for one query example used the others.
    """

    name: str
    values: Tensor
    unit: Unit = ""
    higher_is_better: bool = True
    transductive: bool = False

    def measurement(self) -> Measurement:
        """Their mean."""
        estimate = Estimate.of(self.values)
        n = len(self.values)
        return Measurement.of(self.name, estimate, n, self.unit, self.transductive)


@dataclass(frozen=True)
class Row:
    """A row of a table: what tells it from the others, and what was measured.

    Args:
        signature: on what it was measured, see `innerloop.signature`; rows
            with different signatures are not comparable. Empty where it is not known.
    """

    labels: dict[str, str | int | float | None]
    values: tuple[Measurement, ...]
    signature: str = ""


@dataclass(frozen=True)
class Table:
    """Rows with the same labels and measurements."""

    title: str
    rows: tuple[Row, ...]

    def cells(self, text: Callable[[Measurement], str] = str) -> list[list[str]]:
        """The table as text: a header, then its rows; a cell that a row lacks is
        empty.

        Args:
            text: of a measurement.
        """
        labels = list(dict.fromkeys(key for row in self.rows for key in row.labels))
        names = list(dict.fromkeys(v.name for row in self.rows for v in row.values))
        lines = [[*labels, *names]]
        for row in self.rows:
            shown = {key: "-" if v is None else str(v) for key, v in row.labels.items()}
            values = {value.name: text(value) for value in row.values}
            lines.append(
                [shown.get(key, "") for key in labels]
                + [values.get(name, "") for name in names]
            )
        return lines

    def __str__(self) -> str:
        lines = self.cells()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                cell.rjust(width) for cell, width in zip(line, widths, strict=True)
            )
            for line in lines
        ]
        return "\n".join([self.title, *text])

    def _repr_html_(self) -> str:
        head, *body = (
            "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in line)
            for tag, line in zip(
                ["th", *["td"] * len(self.rows)], self.cells(), strict=True
            )
        )
        rows = "".join(f"<tr>{row}</tr>" for row in [head, *body])
        return f"<table><caption>{escape(self.title)}</caption>{rows}</table>"


@dataclass(frozen=True)
class Report:
    """All that one test measured: tables, and further lines to print below them."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    context: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n\n".join([*map(str, self.tables), *self.notes])

    def _repr_html_(self) -> str:
        notes = [f"<p>{escape(note)}</p>" for note in self.notes]
        return "".join([*(table._repr_html_() for table in self.tables), *notes])

    def signed(self, sign: Callable[[bool], str]) -> Report:
        """The same with signatures, made from whether a row is transductive."""
        tables = tuple(
            Table(
                table.title,
                tuple(
                    replace(
                        row, signature=sign(any(v.transductive for v in row.values))
                    )
                    for row in table.rows
                ),
            )
            for table in self.tables
        )
        return replace(self, tables=tables)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; numbers that are not finite become None."""
        return plain(asdict(self))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Report:
        tables = tuple(
            Table(
                table["title"],
                tuple(
                    Row(
                        row["labels"],
                        tuple(map(_measurement, row["values"])),
                        row.get("signature", ""),
                    )
                    for row in table["rows"]
                ),
            )
            for table in data["tables"]
        )
        return cls(tables, tuple(data["notes"]), data["context"])


def _measurement(data: dict[str, Any]) -> Measurement:
    mean = math.nan if data["mean"] is None else data["mean"]
    return Measurement(**{**data, "mean": mean})


def plain(value: Any) -> Any:
    """Plain data as JSON can hold it: numbers that are not finite become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def merged(reports: Sequence[Report]) -> Report:
    """Several reports as one; first tables with the same title are joined."""
    tables: dict[str, list[Row]] = {}
    for report in reports:
        for table in report.tables:
            tables.setdefault(table.title, []).extend(table.rows)
    notes = [note for report in reports for note in report.notes]
    context = {key: value for r in reports for key, value in r.context.items()}
    joined = tuple(Table(title, tuple(rows)) for title, rows in tables.items())
    return Report(joined, tuple(notes), context)


@dataclass(frozen=True)
class TestPlan:
    """How a learner is tested; JSON in, JSON out.

    Args:
        n: number of tasks.
        seed: seed of the tasks.
        steps: gradient steps of learners that take steps; the score after every number
            of them up to this one is measured too.
        precision: arithmetic, "float32" or "bf16".
        labels: labels of the first table's rows, such as ways and shots.
    """

    __test__ = False  # not a test case, despite its name

    n: Count = 1000
    seed: Seed = 0
    steps: Count | None = None
    precision: Precision = "float32"
    labels: dict[str, str | int | float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_options(self)

    def generator(self) -> torch.Generator:
        """What draws the tasks."""
        return torch.Generator().manual_seed(self.seed)
