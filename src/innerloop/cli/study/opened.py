"""What the commands of `innerloop study` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from innerloop.cli.flags import option

if TYPE_CHECKING:
    from innerloop.studies import Results, Study

RESULTS = option(
    "--results", "Folder of the stored results.", metavar="DIR", default="results"
)


def opened(name: str, folder: str) -> tuple[Study, Results]:
    """A study and its results."""
    from innerloop.studies import Results, find_study

    study = find_study(name)
    return study, Results(Path(folder) / f"{study.name}.json")


def print_table(study: Study, results: Results, to: Any) -> None:
    from rich.table import Table

    from innerloop.studies import table

    found = table(study, results)
    head, *body = found.cells()
    shown = Table(title=study.title, title_justify="left", box=None, pad_edge=False)
    for place, text in enumerate(head):
        shown.add_column(text, justify="right" if place else "left")
    for line in body:
        shown.add_row(*line)
    to.print(shown, soft_wrap=False)
    if source := found.sources():
        to.print(f"in brackets: as published, {source}")
    for note in found.notes():
        to.print(note)
