"""Published figures of a paper beside those that studies measured."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from innerloop.papers.reading import Paper
from innerloop.registry import PRESETS
from innerloop.studies import Results, StudyTable, find_study, names, table
from innerloop.studies.study import StudyRow
from innerloop.studies.tables import number


class Figure(NamedTuple):
    """A measured number, and the one that the paper has, "" where it has none."""

    study: str
    method: str
    test: str
    published: str
    measured: str


def tables(results: Path) -> list[StudyTable]:
    """What was measured of every study, from a folder of stored results."""
    return [table(find_study(n), Results(results / f"{n}.json")) for n in names()]


def figures(paper: Paper, measured: list[StudyTable]) -> list[Figure]:
    """All that was measured beside a figure of this paper; where there is none, the
    first number of each study whose method it is.
    """
    found = [figure for table in measured for figure in _published(paper, table)]
    return found or [f for table in measured for f in _first(paper, table)]


def _published(paper: Paper, found: StudyTable) -> Iterator[Figure]:
    citation = paper.citation
    named = f"arXiv:{citation.arxiv}" if citation.arxiv else citation.short
    for line in found.lines:
        if named not in line.row.source:
            continue
        for i, published in enumerate(line.published):
            if published is not None:
                yield from _figure(found, line.row, i, published.text)


def _first(paper: Paper, found: StudyTable) -> list[Figure]:
    mine = {(use.kind, use.name) for use in paper.uses if use.main}
    for line in found.lines:
        if mine & _methods(line.row) and not found.study.transposed:
            for i, test in enumerate(found.study.tests.values()):
                if test.ranked and (figures := list(_figure(found, line.row, i, ""))):
                    return figures
    return []


def _figure(
    found: StudyTable, row: StudyRow, place: int, published: str
) -> Iterator[Figure]:
    line = next(line for line in found.lines if line.row is row)
    cell, test = line.cells[place], list(found.study.tests)[place]
    if cell is not None:
        measured = number(cell.value) + line.marks[place]
        names = (test, row.name) if found.study.transposed else (row.name, test)
        yield Figure(found.study.title, *names, published, measured)


def _methods(row: StudyRow) -> set[tuple[str, str]]:
    """What a training of a study is of: a learner, or a preset of it, and a
    meta-gradient.
    """
    words = shlex.split(row.train)
    if not words:
        return set()
    line = f"{' '.join(words)} "
    found = {
        ("preset", name)
        for name, preset in PRESETS.items()
        if preset.flags and preset.learner == words[0]
        if all(f" {flag} " in line for flag in preset.flags)
    } or {("learner", words[0])}
    if "--meta-gradient" in words:
        found.add(("meta-gradient", words[words.index("--meta-gradient") + 1]))
    return found
