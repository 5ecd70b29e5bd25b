"""Numbers in the documentation, from the stored results of studies.

What stands between a marker and its end is replaced:

<!-- study NAME -->                     the table of a study, with its notes; with
<!-- study NAME | A; B | C; D -->       these rows (names or ids) and tests only
<!-- report NAME | ROW | TEST -->       the report of a test, its first table; with
<!-- report NAME | ROW | TEST | TITLE | A; B -->  the table of that title, and these
                                        measurements only; with "A; B" for TEST a table
                                        of several tests
<!-- value NAME | ROW | TEST -->        one number; with
<!-- value NAME | ROW | TEST | MEASURE -->  another than the first, see `Test.measure`

and ends with <!-- /study -->, <!-- /report --> or <!-- /value -->.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from innerloop.engine.errors import InnerloopError
from innerloop.measurements import Row, Table
from innerloop.studies import Result, Results, Study, find_study, markdown, table
from innerloop.studies.results import cell, pooled_report
from innerloop.studies.tables import MARKS, number

RESULTS = Path(__file__).resolve().parent.parent / "results"
MARKER = re.compile(r"<!-- (study|report|value) (.+?) -->.*?<!-- /\1 -->", re.DOTALL)
COPIED = "¶"
BLOCK = re.compile(r"^```\w*\n.*?^```$", re.M | re.S)
FIGURE = re.compile(r"\d\.\d|\d ?(?:%|(?:ms|MiB|GiB)\b)")


@cache
def opened(name: str) -> tuple[Study, Results]:
    return find_study(name), Results(RESULTS / f"{name}.json")


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(";") if word.strip()]


def study_table(name: str, rows: str = "", tests: str = "") -> str:
    found = table(*opened(name)).part(words(rows), words(tests))
    lines = [markdown(found.cells()), ""] if found.lines else []
    if not any(line.results for line in found.lines):
        lines += [missing(name), ""]
    if source := found.sources():
        lines += [f"In brackets: as published ({source}).", ""]
    lines += [f"{note}\n" for note in found.notes()]
    return "\n".join(lines).rstrip()


def report_table(
    name: str, row: str, tests: str, title: str = "", columns: str = ""
) -> str:
    study, results = opened(name)
    found = results.of(study, study.row(row))
    names, kept = words(tests), words(columns)
    rows = []
    for test in names:
        if test not in study.tests:
            raise InnerloopError(f"{name} has no test {test!r}")
        labels = {"test": test} if len(names) > 1 else {}
        if any(test in result.tests for result in found):
            rows += _rows(found, test, title, kept, labels)
    if not rows:
        return missing(name)
    shown = Table(title, tuple(rows)).cells(number)
    return "\n\n".join([markdown(shown), *age(found)])


def missing(name: str) -> str:
    return f"Not measured yet: `innerloop study run {name}`."


def _rows(
    found: Iterable[Result],
    test: str,
    title: str,
    columns: Sequence[str],
    labels: dict[str, str],
) -> list[Row]:
    tables = pooled_report(found, test).tables
    chosen = next((t for t in tables if title in ("", t.title)), None)
    if chosen is None:
        raise InnerloopError(f"the report of {test} has no table {title!r}")
    return [
        replace(
            row,
            labels={**labels, **row.labels},
            values=tuple(v for v in row.values if not columns or v.name in columns),
        )
        for row in chosen.rows
    ]


def age(found: Iterable[Result]) -> list[str]:
    """The note below a report whose numbers are copied."""
    return [f"{MARKS[COPIED].capitalize()}."] if any(r.note for r in found) else []


def value(name: str, row: str, test: str, measure: str = "") -> str:
    study, results = opened(name)
    chosen = replace(study.tests[test], measure=measure or study.tests[test].measure)
    found = results.of(study, study.row(row))
    shown = cell(found, chosen)
    if shown is None:
        raise InnerloopError(f"{name}, {row}: {test} was not measured")
    return number(shown.value) + (COPIED if age(found) else "")


def filled(text: str) -> str:
    """A page with the numbers of the stored results. Raises InnerloopError for a marker
    that names none.
    """

    def replaced(found: re.Match[str]) -> str:
        kind = found[1]
        parts = [part.strip() for part in re.split(r"\s\|(?=\s|$)", found[2])]
        makers = {"study": study_table, "report": report_table, "value": value}
        try:
            inside = makers[kind](*parts)
        except (TypeError, KeyError) as error:
            raise InnerloopError(f"the marker {found[2]!r}: {error}") from error
        inside = inside if kind == "value" else f"\n\n{inside}\n\n"
        return f"<!-- {kind} {found[2]} -->{inside}<!-- /{kind} -->"

    return MARKER.sub(replaced, text)


def typed(text: str) -> list[str]:
    """Measured numbers that stand outside markers: lines with an interval or a decimal
    percentage, and rows of tables with a decimal number or a percentage that is no
    code.
    """
    outside = MARKER.sub("", text)
    tables = [
        re.sub(r"`[^`]*`", "", line)
        for line in BLOCK.sub("", outside).splitlines()
        if line.lstrip().startswith("|")
    ]
    found = [line for line in outside.splitlines() if re.search(r"±|\d\.\d+ ?%", line)]
    return [*found, *filter(FIGURE.search, tables)]
