"""The pages about studies: docs/studies.md, every study with its commands and numbers,
and docs/leaderboard.md, the learners of each benchmark side by side.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from filling import age, opened, study_table

from innerloop.studies import Results, Study, StudyTable, markdown, names, table
from innerloop.studies.results import Cell, pooled_report
from innerloop.studies.study import Published, Test
from innerloop.studies.tables import difference, number

DOCS = Path(__file__).resolve().parent
HEAD = """\
Every number comes from a study: trainings and tests that `innerloop study run NAME`
repeats, on this protocol, and stores in `results/NAME.json` with the commit, the
settings, the machine, the training curve and a signature of the test tasks
(`innerloop study show NAME`). Intervals are 95 %, over test tasks and, where there are
several trainings, over trainings too. Minutes are those of one core of a shared
machine without a GPU."""


def studies_page() -> str:
    lines = ["# Studies", "", HEAD, ""]
    for name in names():
        study, results = opened(name)
        lines += [f"## {study.title}", ""]
        lines += [study.reference + ".", ""] if study.reference else []
        lines += [" ".join(study.text.split()), ""] if study.text else []
        shown = study_table(name)
        lines += [*([shown, ""] if shown else []), *_reports(study, results)]
        lines += ["```sh", f"innerloop study run {name}"]
        for row in study.rows:
            line = row.command + f" --out runs/{name}/{row.id}" * bool(row.train)
            for key in row.needs:
                line = line.replace(f"{{{key}}}", f"runs/{name}/{key}")
            lines.append(f"{line}  # {row.name}")
        for test in study.tests.values():
            if test.flags:
                lines.append(f"innerloop test RUN {test.flags}  # {test.name}")
        lines += ["```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _reports(study: Study, results: Results) -> list[str]:
    """The tables of tests whose whole report is shown."""
    lines = []
    for row in study.rows:
        for test in study.tests_of(row):
            found = results.of(study, row)
            if not test.report or not any(test.name in r.tests for r in found):
                continue
            for shown in pooled_report(found, test.name).tables:
                cells = markdown(shown.cells(number))
                lines += [f"{row.name}, {shown.title}:", "", cells, ""]
            lines += [f"{note}\n" for note in age(found)]
    return lines


class Entry(NamedTuple):
    """A measured number and what stands beside it."""

    name: str
    test: Test
    seconds: float | None
    cell: Cell
    published: Published | None
    mark: str


def leaderboard() -> str:
    lines = ["# Leaderboard", "", HEAD, ""]
    for name in names():
        found = table(*opened(name))
        for title, entries in _columns(found).items():
            if len(entries) > 1:
                shown = markdown(_ranked(entries))
                lines += [f"## {found.study.title}: {title}", "", shown, ""]
    return "\n".join(lines).rstrip() + "\n"


def _columns(found: StudyTable) -> dict[str, list[Entry]]:
    """The measured numbers of each column of the table, by its title."""
    columns: dict[str, list[Entry]] = {}
    for line in found.lines:
        for i, test in enumerate(found.study.tests.values()):
            cell = line.cells[i]
            if cell is None or not test.ranked:
                continue
            title, name, seconds = test.name, line.row.name, line.seconds
            if found.study.transposed:  # a training belongs to one of the methods
                title, name, seconds = name, title, None
            entry = Entry(name, test, seconds, cell, line.published[i], line.marks[i])
            columns.setdefault(title, []).append(entry)
    return columns


def _ranked(entries: list[Entry]) -> list[list[str]]:
    """The entries as a table, the best number first."""

    def order(entry: Entry) -> float:
        return entry.cell.value.mean * (1.0 if entry.test.lower else -1.0)

    header = ["", "measured", "published", "difference", "minutes", "trainings"]
    return [header, *map(_line, sorted(entries, key=order))]


def _line(entry: Entry) -> list[str]:
    cell, published, seconds = entry.cell, entry.published, entry.seconds
    gap = f"{difference(cell, published):+.2f}" if published else ""
    shown = published.text if published else ""
    minutes = f"{seconds / 60:.1f}" if seconds is not None else ""
    name = entry.name + entry.mark
    return [name, number(cell.value), shown, gap, minutes, str(cell.seeds)]


def pages() -> dict[Path, str]:
    return {
        DOCS / "studies.md": studies_page(),
        DOCS / "leaderboard.md": leaderboard(),
    }
