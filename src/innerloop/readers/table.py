"""Tables with columns of numbers and of words, and with gaps, as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from innerloop.engine.errors import InnerloopError

Row = Mapping[str, Any]  # cells by the name of their column
GAPS = ("", "na", "<na>", "n/a", "nan", "nat", "null", "none", "?")


@dataclass(frozen=True)
class Columns:
    """How the rows of a table become vectors; saved with every run, so that later rows
    are read the same way.

    numbers: name to mean, standard deviation and whether there are gaps: a number is
    standardised, a gap is 0, and a column that has gaps is followed by one that is 1
    where there is one. words: name to the words of the column, each of which becomes a
    column of 0 and 1; a gap, and a word that was not there, is 0 in all of them.
    """

    numbers: dict[str, tuple[float, float, bool]]
    words: dict[str, tuple[str, ...]]

    @classmethod
    def fitted(cls, rows: Sequence[Row], training: Sequence[Row]) -> Columns:
        """The columns of a table. What a column holds is told by all rows, its mean,
        deviation and words by those to train on.
        """
        numbers, words = {}, {}
        for name in rows[0]:
            known = [
                number for row in rows if (number := _number(row[name])) is not None
            ]
            if any(_number(row[name]) is None and not _gap(row[name]) for row in rows):
                words[name] = tuple(
                    sorted(
                        {
                            str(row[name]).strip()
                            for row in training
                            if not _gap(row[name])
                        }
                    )
                )
            else:
                some = torch.tensor(
                    [
                        number
                        for row in training
                        if (number := _number(row[name])) is not None
                    ]
                    or [0.0],
                    dtype=torch.float64,
                )
                mean, deviation = float(some.mean()), float(some.std(correction=0))
                numbers[name] = (
                    mean,
                    deviation if deviation > 1e-9 * max(1.0, abs(mean)) else 1.0,
                    len(known) < len(rows),
                )
        return cls(numbers, words)

    def read_all(self, rows: Sequence[Row]) -> Tensor:
        """Rows as vectors (n, features), float32. Raises ValueError for no rows, a
        missing column, or a word in a column of numbers.
        """
        if not len(rows) or not all(isinstance(row, Mapping) for row in rows):
            raise InnerloopError(
                "rows of a table are needed, each a dict from column to cell, or a data frame, and at least one"
            )
        return torch.tensor(
            [self._read(row, place) for place, row in enumerate(rows, 1)]
        )

    def _read(self, row: Row, place: int) -> list[float]:
        if missing := [
            name for name in (*self.numbers, *self.words) if name not in row
        ]:
            raise InnerloopError(
                f"row {place} has no column {', '.join(missing)}: it has {', '.join(row)}"
            )
        found: list[float] = []
        for name, (mean, deviation, gaps) in self.numbers.items():
            number = _number(row[name])
            if number is None and not _gap(row[name]):
                raise InnerloopError(
                    f"row {place} has {row[name]!r} in the column {name}, which holds numbers"
                )
            found.append(0.0 if number is None else (number - mean) / deviation)
            found += [float(number is None)] if gaps else []
        for name, known in self.words.items():
            found += [float(str(row[name]).strip() == word) for word in known]
        return found

    def settings(self) -> dict[str, Any]:
        return asdict(self)


def _gap(cell: Any) -> bool:
    return cell is None or str(cell).strip().lower() in GAPS


def _number(cell: Any) -> float | None:
    """The number in a cell; None for a gap and for words. Raises ValueError for one
    that is infinite.
    """
    if _gap(cell):
        return None
    try:
        number = float(cell)
    except (TypeError, ValueError):
        return None
    if math.isinf(number):
        raise InnerloopError(
            f"a table cannot hold infinite values, and this one has {cell!r}"
        )
    return number
