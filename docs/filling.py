"""Numbers in the documentation, from the stored results of studies.

What stands between a marker and its end is replaced:

<!-- study NAME -->                     the table of a study, with its notes; with
<!-- study NAME | A, B -->              these rows only (names or ids)
<!-- report NAME | ROW | TEST -->       the report of a test, its first table; with
<!-- report NAME | ROW | TEST | TITLE | A, B -->  the table of that title, and these
                                        columns only
<!-- value NAME | ROW | TEST -->        one number; with
<!-- value NAME | ROW | TEST | MEASURE -->  another than the first, see `Test.measure`

and ends with <!-- /study -->, <!-- /report --> or <!-- /value -->.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from innerloop.engine.errors import InnerloopError
from innerloop.measurements import Table
from innerloop.studies import Results, Study, find_study, markdown, table
from innerloop.studies.results import cell, pooled_report

RESULTS = Path(__file__).resolve().parent.parent / "results"
MARKER = re.compile(r"<!-- (study|report|value) (.+?) -->.*?<!-- /\1 -->", re.DOTALL)


@cache
def opened(name: str) -> tuple[Study, Results]:
    return find_study(name), Results(RESULTS / f"{name}.json")


def study_table(name: str, rows: str = "") -> str:
    study, results = opened(name)
    if rows:
        kept = [study.row(key.strip()) for key in rows.split(",")]
        study = replace(study, rows=tuple(kept))
    found = table(study, results)
    lines = [markdown(found.cells()), ""]
    if source := found.sources():
        lines += [f"In brackets: as published ({source}).", ""]
    lines += [f"{note}\n" for note in found.notes()]
    return "\n".join(lines).rstrip()


def report_table(
    name: str, row: str, test: str, title: str = "", columns: str = ""
) -> str:
    study, results = opened(name)
    tables = pooled_report(results.of(study, study.row(row)), test).tables
    found = next((t for t in tables if title in ("", t.title)), None)
    if found is None:
        raise InnerloopError(f"{name}, {row}, {test}: there is no table {title!r}")
    kept = [text.strip() for text in columns.split(",") if text.strip()]
    shown = Table(
        found.title,
        tuple(
            replace(r, values=tuple(v for v in r.values if not kept or v.name in kept))
            for r in found.rows
        ),
    )
    return markdown(shown.cells())


def value(name: str, row: str, test: str, measure: str = "") -> str:
    study, results = opened(name)
    chosen = replace(study.tests[test], measure=measure or study.tests[test].measure)
    found = cell(results.of(study, study.row(row)), chosen)
    if found is None:
        raise InnerloopError(f"{name}, {row}: {test} was not measured")
    return str(found.value)


def filled(text: str) -> str:
    """A page with the numbers of the stored results. Raises InnerloopError for a marker
    that names none.
    """

    def replaced(found: re.Match[str]) -> str:
        kind, words = found[1], [word.strip() for word in found[2].split(" | ")]
        makers = {"study": study_table, "report": report_table, "value": value}
        try:
            inside = makers[kind](*words)
        except (TypeError, KeyError) as error:
            raise InnerloopError(f"the marker {found[2]!r}: {error}") from error
        inside = inside if kind == "value" else f"\n\n{inside}\n\n"
        return f"<!-- {kind} {found[2]} -->{inside}<!-- /{kind} -->"

    return MARKER.sub(replaced, text)
