"""Tables of studies, from their stored results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from innerloop.measurements import Measurement, plain
from innerloop.studies.results import Cell, Result, Results, cell
from innerloop.studies.study import Published, Study, StudyError, StudyRow

MARKS = {
    "†": "published for transductive prediction, measured for inductive prediction, or "
    "the other way round",
    "‡": "its signature differs from the rest of its column: other test tasks, or "
    "other options of them",
    "§": "of another training than the study's: another length, or an earlier version",
    "¶": "measured with an earlier version, before results were stored",
}


@dataclass(frozen=True)
class Line:
    """A row of a table: its name, a cell and a published figure for each test, and the
    results that it comes from.
    """

    row: StudyRow
    cells: tuple[Cell | None, ...]
    published: tuple[Published | None, ...]
    results: tuple[Result, ...]
    marks: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        found = [r.seconds for r in self.results if r.seconds is not None]
        return sum(found) / len(found) if found else None

    @property
    def steps(self) -> int | None:
        found = [r.steps for r in self.results if r.steps is not None]
        return round(sum(found) / len(found)) if found else None


@dataclass(frozen=True)
class StudyTable:
    """All that was measured of a study."""

    study: Study
    lines: tuple[Line, ...]

    def cells(self) -> list[list[str]]:
        """The table as text: a header, then its rows; see `Study.transposed`. A
        published figure stands in brackets behind the measured one.
        """
        tests = list(self.study.tests)
        found = []
        for line in self.lines:
            shown = [
                _joined(cell, published, mark)
                for cell, published, mark in zip(
                    line.cells, line.published, line.marks, strict=True
                )
            ]
            found.append([line.row.name, *shown, *_facts(line)])
        header = ["", *tests, "steps", "minutes", "trainings"]
        if all(cells[-1] in ("", "1") for cells in found):
            found = [[*cells[:-1], ""] for cells in found]
        keep = [0] + [
            i for i in range(1, len(header)) if any(cells[i] for cells in found)
        ]
        kept = [[cells[i] for i in keep] for cells in [header, *found]]
        columns = [list(column) for column in zip(*kept, strict=True)]
        return columns if self.study.transposed else kept

    def part(self, rows: Sequence[str] = (), tests: Sequence[str] = ()) -> StudyTable:
        """These rows and columns only, in this order (default: all), without the rows
        that have none of the columns. Raises StudyError for others than there are.
        """
        known = list(self.study.tests)
        for name in tests:
            if name not in known:
                raise StudyError(f"the study {self.study.name} has no test {name!r}")
        places = [known.index(name) for name in tests or known]
        by_id = {line.row.id: line for line in self.lines}
        wanted = [self.study.row(key).id for key in rows] or list(by_id)
        chosen = {known[i]: self.study.tests[known[i]] for i in places}
        lines = tuple(
            replace(
                line,
                cells=tuple(line.cells[i] for i in places),
                published=tuple(line.published[i] for i in places),
                marks=tuple(line.marks[i] for i in places),
            )
            for line in map(by_id.__getitem__, wanted)
            if any(test.name in chosen for test in self.study.tests_of(line.row))
        )
        return StudyTable(replace(self.study, tests=chosen), lines)

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers."""
        used = {mark for line in self.lines for marks in line.marks for mark in marks}
        notes = [f"{mark} {text}" for mark, text in MARKS.items() if mark in used]
        return [*notes, *(f"{r.name}: {r.note}" for r in self._rows() if r.note)]

    def _rows(self) -> list[StudyRow]:
        return [line.row for line in self.lines]

    def sources(self) -> str:
        """Where the published figures come from."""
        found = dict.fromkeys(r.source for r in self._rows() if r.source)
        return "; ".join(found)


def table(study: Study, results: Results) -> StudyTable:
    """The table of a study from its results; rows that were never measured have
    published figures only. Tests whose whole report is shown are left out.
    """
    tests = [test for test in study.tests.values() if not test.report]
    chosen = replace(study, tests={test.name: test for test in tests})
    lines = []
    for row in study.rows:
        mine = chosen.tests_of(row)
        if row.hidden or not mine:
            continue
        found = results.of(study, row)
        cells = tuple(cell(found, test) if test in mine else None for test in tests)
        published = tuple(row.published.get(test.name) for test in tests)
        lines.append(Line(row, cells, published, tuple(found), ("",) * len(tests)))
    return StudyTable(chosen, tuple(_marked(line, lines) for line in lines))


def _marked(line: Line, lines: Sequence[Line]) -> Line:
    marks = []
    for i, found in enumerate(line.cells):
        mark = ""
        if found is not None:
            column = [other.cells[i] for other in lines]
            if line.published[i] and line.row.transductive != found.value.transductive:
                mark += "†"
            if found.signature and _unlike(found, column):
                mark += "‡"
            if any(r.line != line.row.line and not r.note for r in line.results):
                mark += "§"
            if any(r.note for r in line.results):
                mark += "¶"
        marks.append(mark)
    return Line(line.row, line.cells, line.published, line.results, tuple(marks))


def _unlike(found: Cell, column: Sequence[Cell | None]) -> bool:
    """Whether most others of a column were measured on other test tasks."""
    own = _comparable(found.signature)
    others = [_comparable(c.signature) for c in column if c is not None and c.signature]
    return others.count(own) * 2 < len(others)


def _comparable(signature: str) -> str:
    """A signature without what a mark of its own says, or what does not matter."""
    parts = signature.split("/")
    return "/".join(p for p in parts if p not in ("inductive", "transductive"))


def _joined(found: Cell | None, published: Published | None, mark: str) -> str:
    text = f"{number(found.value)}{mark}" if found is not None else ""
    if published is None:
        return text
    return f"{text} ({published.text})" if text else f"({published.text})"


def _facts(line: Line) -> list[str]:
    seconds, steps = line.seconds, line.steps
    minutes = (
        "" if seconds is None else f"{seconds / 60:.{0 if seconds >= 600 else 1}f}"
    )
    count = str(len({r.seed for r in line.results})) if line.results else ""
    return [f"{steps:,}" if steps is not None else "", minutes, count]


def number(value: Measurement) -> str:
    """A measurement as tables of the documentation show it: an interval has two digits
    that count, fractions in per cent have two decimals.
    """
    if value.unit:
        return str(value)
    mean, half = value.mean, value.interval
    if half is None:
        return f"{mean:,.0f}" if 1000 <= abs(mean) < math.inf else f"{mean:.4g}"
    digits = 4 if half <= 0 else min(4, max(0, 1 - math.floor(math.log10(half))))
    return f"{mean:,.{digits}f} ± {half:,.{digits}f}"


def records(study: Study, results: Results) -> list[dict[str, Any]]:
    """Every stored number of a study as a row of its own: a column for each fact about
    the training and the machine; validations in training first, then tests.
    """
    found = []
    for row in study.rows:
        for result in results.of(study, row):
            about = {
                "study": study.name,
                "learner": row.name,
                "command": row.line,
                "seed": result.seed,
            }
            facts = {**result.system, "date": result.date, "note": result.note}
            for step, seconds, score, interval in result.curve:
                point = {"what": "validation", "step": step, "seconds": seconds}
                value = {"mean": score, "interval": interval}
                found.append({**about, **point, **value, **facts})
            end = {"step": result.steps, "seconds": result.seconds}
            for test in result.tests:
                for table in result.report(test).tables:
                    for line in table.rows:
                        labels = " ".join(f"{k}={v}" for k, v in line.labels.items())
                        what = {"what": test, "labels": labels, **end}
                        what["signature"] = line.signature
                        found += [
                            {**about, **what, **plain(asdict(value)), **facts}
                            for value in line.values
                        ]
    return found


def difference(found: Cell, published: Published) -> float:
    """Ours less the published figure, in the unit that is shown."""
    return _scale(found.value) * found.value.mean - published.value


def _scale(value: Measurement) -> float:
    return 100.0 if value.unit == "%" else 1.0


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """Cells as a Markdown table: a header, then rows."""
    head, *body = [[text.replace("|", r"\|") for text in line] for line in cells]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
