"""`innerloop papers`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innerloop.cli.flags import SectionedCommand, option
from innerloop.cli.study.opened import RESULTS

if TYPE_CHECKING:
    from innerloop.papers import Figure, Paper


def run(words: tuple[str, ...], as_json: bool, results: str) -> None:
    from innerloop.engine.errors import InnerloopError
    from innerloop.papers import figures, matching, papers
    from innerloop.papers.figures import tables

    found = list(matching(papers(), words))
    if not found:
        raise InnerloopError(
            f"no paper has the words {' '.join(words)!r} in its title, authors, year, "
            "chapter, or the names of what it stands for: `innerloop papers` lists all"
        )
    if len(found) > 1 and not as_json:
        _list(found)
        return
    measured = tables(Path(results))
    beside = [figures(paper, measured) for paper in found]
    if as_json:
        print(json.dumps(list(map(described, found, beside)), indent=2))
    else:
        _describe(found[0], beside[0])


def described(paper: Paper, figures: list[Figure]) -> dict[str, Any]:
    """A paper as JSON data."""
    from innerloop.papers import bibtex

    return {
        "number": paper.number,
        **paper.citation._asdict(),
        "openreview": paper.openreview,
        "addresses": paper.addresses,
        "chapter": paper.chapter.title,
        "why": paper.why,
        "first": paper.first,
        "uses": [asdict(use) for use in paper.uses],
        "figures": [figure._asdict() for figure in figures],
        "bibtex": bibtex(paper),
    }


def _list(found: list[Paper]) -> None:
    from rich.table import Table

    from innerloop.cli.output import console

    to = console()
    for chapter in dict.fromkeys(paper.chapter for paper in found):
        shown = Table(title=chapter.title, title_justify="left", box=None)
        shown.pad_edge = False
        shown.add_column("", justify="right")
        for column in ("paper", "title", "arXiv", "innerloop"):
            shown.add_column(column)
        for paper in found:
            if paper.chapter == chapter:
                citation, uses = paper.citation, ", ".join(names(paper))
                cells = citation.short, citation.title, citation.arxiv or "", uses
                mark = "*" if paper.first else " "
                shown.add_row(f"{paper.number}{mark}", *cells)
        to.print(shown, soft_wrap=False)
        to.print()


def names(paper: Paper) -> list[str]:
    """What a paper stands for in the code: entries of the registry; files, where it is
    none of them.
    """
    entries = [use.name for use in paper.uses if use.kind != "code"]
    return list(dict.fromkeys(entries or [use.file for use in paper.uses]))


def _describe(paper: Paper, figures: list[Figure]) -> None:
    from innerloop.cli.output import console
    from innerloop.papers import bibtex

    to, citation = console(), paper.citation
    venue = f", {citation.venue}" if citation.venue else ""
    to.print(f"{citation.title}\n{paper.authors} {citation.year}{venue}\n")
    for address in paper.addresses.values():
        to.print(address)
    to.print(f"\n{paper.why}\n")
    for use in paper.uses:
        to.print(f"{use.kind} {use.name}" + (f" ({use.file})" if use.file else ""))
    for figure in figures:
        text = f"{figure.study}: {figure.method}, {figure.test}: {figure.measured}"
        to.print(text + (f", published {figure.published}" if figure.published else ""))
    to.print(f"\n{bibtex(paper)}")


command = SectionedCommand(
    "papers",
    params=[
        click.Argument(["words"], nargs=-1, metavar="[WORD]..."),
        option("--json", "As JSON, with figures and BibTeX.", "as_json", is_flag=True),
        RESULTS,
    ],
    callback=run,
    help="List the papers behind this library in an order to read; * marks those to "
    "read first. With WORDs, those that have all of them in their title, authors, "
    "year, family, or the names of learners, tasks and others. Where one remains, it "
    "is described: why to read it, its addresses, where it stands in the code, its "
    "figures beside measured ones, and its BibTeX.",
)
