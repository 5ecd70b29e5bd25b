"""The pages about studies: docs/studies.md, every study with its commands and numbers,
and docs/leaderboard.md, the learners of each benchmark side by side.
"""

from __future__ import annotations

from pathlib import Path

from filling import opened, study_table

from innerloop.studies import StudyTable, markdown, names, table
from innerloop.studies.tables import Line, difference

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
        study, _ = opened(name)
        lines += [f"## {study.title}", ""]
        lines += [study.reference + ".", ""] if study.reference else []
        lines += [" ".join(study.text.split()), ""] if study.text else []
        lines += [study_table(name), "", "```sh", f"innerloop study run {name}"]
        for row in study.rows:
            before = "innerloop train" if row.train else "python"
            lines.append(f"{before} {row.line}  # {row.name}")
        for test in study.tests.values():
            if test.flags:
                lines.append(f"innerloop test RUN {test.flags}  # {test.name}")
        lines += ["```", ""]
    return "\n".join(lines).rstrip() + "\n"


def leaderboard() -> str:
    lines = ["# Leaderboard", "", HEAD, ""]
    for name in names():
        study, results = opened(name)
        found = table(study, results)
        for place, test in enumerate(study.tests):
            cells = _ranked(found, place)
            if len(cells) > 1:
                lines += [f"## {study.title}: {test}", "", markdown(cells), ""]
    return "\n".join(lines).rstrip() + "\n"


def _ranked(found: StudyTable, place: int) -> list[list[str]]:
    """The rows of a test, the best published or measured number first."""
    lines = [line for line in found.lines if line.cells[place] is not None]
    lines.sort(key=lambda line: _order(line, place))
    header = ["learner", "measured", "published", "difference", "minutes", "trainings"]
    return [header, *(_line(line, place) for line in lines)]


def _order(line: Line, place: int) -> float:
    cell = line.cells[place]
    assert cell is not None
    better = -1.0 if cell.value.unit == "%" else 1.0
    return better * cell.value.mean


def _line(line: Line, place: int) -> list[str]:
    cell, published = line.cells[place], line.published[place]
    assert cell is not None
    gap = f"{difference(cell, published):+.2f}" if published else ""
    shown = published.text if published else ""
    minutes = f"{line.seconds / 60:.1f}" if line.seconds is not None else ""
    name = line.row.name + line.marks[place]
    return [name, str(cell.value), shown, gap, minutes, str(cell.seeds)]


def pages() -> dict[Path, str]:
    return {
        DOCS / "studies.md": studies_page(),
        DOCS / "leaderboard.md": leaderboard(),
    }
