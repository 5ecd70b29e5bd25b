"""Stored results of studies: results/NAME.json, one line for each training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from innerloop.engine.errors import InnerloopError
from innerloop.measurements import Measurement, Report, Row, Table, plain, student_t
from innerloop.runs import write_atomically
from innerloop.studies.study import Study, StudyRow, Test

FORMAT = 1
_NUMBER = (int, float, type(None))
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("row", "line", "date", "note"), str),
    **dict.fromkeys(("needs", "tests", "experiment", "system"), dict),
    **dict.fromkeys(("steps", "seconds"), _NUMBER),
    "seed": int,
    "curve": list,
}


@dataclass(frozen=True)
class Result:
    """One training of a study, and what was measured of it.

    Args:
        row: id of the row.
        seed: of the training.
        line: the command line of the row, as it was.
        needs: the command lines of the rows whose runs it used, by id.
        tests: by the name of the test: its flags, and the report as JSON data, or "as",
            the name of the test whose report it is.
        steps, seconds: of the training; None for scripts.
        curve: (step, seconds, validation score, interval) of each validation.
        experiment: the complete settings.
        system: the machine, the versions and the commit.
        date: when it was measured.
        note: how it came about, where that was not `innerloop study run`.
    """

    row: str
    seed: int
    line: str
    needs: dict[str, str] = field(default_factory=dict)
    tests: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: int | None = None
    seconds: float | None = None
    curve: list[list[float | None]] = field(default_factory=list)
    experiment: dict[str, Any] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    note: str = ""

    @property
    def key(self) -> tuple[str, int, str]:
        return self.row, self.seed, self.line

    def has(self, test: Test) -> bool:
        """Whether a test was measured, with these flags."""
        return self.tests.get(test.name, {}).get("flags") == test.flags

    def check(self) -> None:
        """Raises TypeError, ValueError or KeyError where a field cannot be used."""
        for name, kind in _TYPES.items():
            if not isinstance(vars(self)[name], kind):
                raise TypeError(f"{name} is {vars(self)[name]!r:.60}")
        for name in self.tests:
            self.report(name)
        for point in self.curve:
            if len(point) != 4 or not all(isinstance(p, _NUMBER) for p in point):
                raise ValueError(f"the curve has {point!r:.60}")

    def report(self, test: str) -> Report:
        entry = self.tests[test]
        return Report.from_dict(self.tests[entry.get("as", test)]["report"])

    def compact(self) -> Result:
        """The same, with reports that several tests share stored once."""
        tests: dict[str, dict[str, Any]] = {}
        for name, entry in self.tests.items():
            report = entry.get("report")
            same = (k for k, e in tests.items() if report and e.get("report") == report)
            if first := next(same, None):
                tests[name] = {"flags": entry["flags"], "as": first}
            else:
                tests[name] = entry
        return replace(self, tests=tests)


class Results:
    """The results of a study, in a file.

    Args:
        file: results/NAME.json; it need not exist.
    """

    def __init__(self, file: Path):
        self.file = file
        self.all: list[Result] = self._read()

    def _read(self) -> list[Result]:
        if not self.file.exists():
            return []
        try:
            data = json.loads(self.file.read_text("utf-8"))
            if data["format"] != FORMAT:
                raise InnerloopError(
                    f"{self.file} has format {data['format']!r}; this version of "
                    f"innerloop reads {FORMAT}"
                )
            found = [Result(**entry) for entry in data["results"]]
            for result in found:
                result.check()
            return found
        except InnerloopError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InnerloopError(
                f"{self.file} cannot be read as results: {error}"
            ) from error

    def put(self, result: Result) -> None:
        """Store a result, in place of an earlier one of the same training; results that
        other processes stored meanwhile stay.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.file.with_name(f".{self.file.name}.lock")):
            kept = [other for other in self._read() if other.key != result.key]
            self.all = sorted([*kept, result.compact()], key=lambda r: r.key)
            lines = ",\n".join(
                json.dumps(plain(asdict(r)), ensure_ascii=False) for r in self.all
            )
            head = f'{{"format": {FORMAT}, "study": {json.dumps(self.file.stem)}'
            text = f'{head}, "results": [\n{lines}\n]}}\n'
            write_atomically(self.file, text.encode())

    def find(self, study: Study, row: StudyRow, seed: int) -> Result | None:
        """The result of a training as the study has it now."""
        needs = {key: study.row(key).line for key in row.needs}
        for result in self.all:
            if result.key == (row.id, seed, row.line) and result.needs == needs:
                return result
        return None

    def of(self, study: Study, row: StudyRow) -> list[Result]:
        """All trainings of a row as the study has it now; copied numbers only where
        there is none.
        """
        exact = [r for r in self.all if self.find(study, row, r.seed) is r]
        return [r for r in exact if not r.note] or exact or self._others(row)

    def measured(
        self, study: Study, row: StudyRow, seed: int, tests: Iterable[Test]
    ) -> bool:
        """Whether a training and its tests were run as the study has them now."""
        found = self.find(study, row, seed)
        return found is not None and not found.note and all(map(found.has, tests))

    def _others(self, row: StudyRow) -> list[Result]:
        """The trainings of a row that agree with each other, of another length or of an
        earlier version of the study: the latest.
        """
        found = [r for r in self.all if r.row == row.id]
        latest = max(found, key=lambda r: r.date, default=None)
        return [r for r in found if latest and r.line == latest.line]


class Cell(NamedTuple):
    """One number of a table.

    Args:
        value: over all trainings.
        seeds: how many trainings.
        low, high: the smallest and the largest mean of a training.
        signature: on what it was measured, "" where it is not known.
    """

    value: Measurement
    seeds: int
    low: float
    high: float
    signature: str


def cell(results: Iterable[Result], test: Test) -> Cell | None:
    """The number that a test shows, over trainings; None where it was not measured."""
    found = [
        (picked, row.signature)
        for result in results
        if result.has(test)
        for row, picked in [pick(result.report(test.name), test.measure)]
    ]
    if not found:
        return None
    values = [value for value, _ in found]
    signatures = {signature for _, signature in found}
    means = [value.mean for value in values]
    return Cell(
        pooled(values),
        len(values),
        min(means),
        max(means),
        signatures.pop() if len(signatures) == 1 else "",
    )


def pooled_report(results: Iterable[Result], test: str) -> Report:
    """The reports of a test as one: each number is pooled over trainings, where all of
    them have it. Raises InnerloopError where there is none.
    """
    reports = [result.report(test) for result in results if test in result.tests]
    if not reports:
        raise InnerloopError(f"{test} was not measured")
    found: dict[tuple[Any, ...], list[Measurement]] = {}
    for report in reports:
        for table in report.tables:
            for row in table.rows:
                for value in row.values:
                    place = table.title, tuple(row.labels.items()), value.name
                    found.setdefault(place, []).append(value)
    tables = []
    for table in reports[0].tables:
        rows = []
        for row in table.rows:
            places = [
                (table.title, tuple(row.labels.items()), v.name) for v in row.values
            ]
            values = [found[p] for p in places if len(found[p]) == len(reports)]
            rows.append(replace(row, values=tuple(map(pooled, values))))
        tables.append(Table(table.title, tuple(rows)))
    return Report(tuple(tables), reports[0].notes)


def pick(report: Report, measure: str = "") -> tuple[Row, Measurement]:
    """A number of a report and its row: the first, or the one that `measure` names, see
    `Test`. Raises InnerloopError where there is none.
    """
    where, _, name = measure.rpartition(" / ")
    label, _, wanted = where.partition("=")
    for table in report.tables:
        for row in table.rows:
            if where and str(row.labels.get(label)) != wanted:
                continue
            for value in row.values:
                if name in ("", value.name):
                    return row, value
    raise InnerloopError(f"the report has no measurement {measure!r}")


def pooled(values: list[Measurement]) -> Measurement:
    """The mean over trainings that were tested on the same tasks.

    Its interval covers both the trainings and the tasks: the variances of the mean that
    each of them causes are added, with Satterthwaite's degrees of freedom for Student's
    t.
    """
    first, k = values[0], len(values)
    if k == 1:
        return first
    mean = math.fsum(v.mean for v in values) / k
    between = math.fsum((v.mean - mean) ** 2 for v in values) / (k - 1) / k
    within = 0.0
    if all(v.interval is not None and v.n > 1 for v in values):
        errors = [(v.interval or 0.0) / student_t(v.n - 1) for v in values]
        within = math.fsum(e * e for e in errors) / k
    total = between + within
    freedom = 1.0
    if total > 0:
        parts = between**2 / (k - 1) + within**2 / max(1, first.n - 1)
        freedom = total**2 / parts if parts else math.inf
    half = student_t(max(1, int(min(freedom, 1e6)))) * math.sqrt(total)
    return Measurement(
        first.name, mean, half, first.n, first.unit, any(v.transductive for v in values)
    )
