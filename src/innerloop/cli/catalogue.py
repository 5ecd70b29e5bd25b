"""`innerloop list` and `innerloop cite`: what docstrings tell of papers."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from rich.console import Console
from rich.table import Table

from innerloop.cli.fields import find_learner
from innerloop.core.metagrad import META_GRADIENTS
from innerloop.learners import LEARNERS, family_of
from innerloop.metagrad import STRATEGIES
from innerloop.rl import ACTING
from innerloop.runs import ALL_TASKS

_NAME = r"[A-Z][\w'-]+"
_SOURCE = re.compile(
    rf'({_NAME}(?:(?:, | and ){_NAME})*(?: et al\.)?),? ((?:19|20)\d\d)(?:, "([^"]+)")?(?:, arXiv:(\d{{4}}\.\d{{4,5}}))?'
)


def source(docstring: str) -> dict[str, Any]:
    """The first paper that a docstring names: authors, year, title, arXiv id; None for
    what it does not tell.
    """
    found = _SOURCE.search(" ".join(docstring.split()))
    return dict(
        zip(
            ("authors", "year", "title", "arxiv"),
            found.groups() if found else (None,) * 4,
            strict=True,
        )
    )


def catalogue() -> list[dict[str, Any]]:
    """Everything there is: kind, name, family, what it does in one line, paper, arXiv
    id, year.
    """
    things = [
        ("learner", name, family_of(learner), learner)
        for name, learner in LEARNERS.items()
    ]
    things += [
        ("meta-gradient", name, None, function)
        for name, function in {**META_GRADIENTS, **STRATEGIES, **ACTING}.items()
    ]
    things += [("tasks", name, None, function) for name, function in ALL_TASKS.items()]
    entries = []
    for kind, name, family, thing in things:
        text = thing.__doc__ or ""
        paper = source(text)
        authors = (
            (paper["authors"] or "")
            .replace(" et al.", "")
            .replace(" and ", ", ")
            .split(", ")
        )
        several = len(authors) > 2 or "et al." in (paper["authors"] or "")
        short = f"{authors[0]} et al." if several else " and ".join(authors)
        entries.append(
            {
                "kind": kind,
                "name": name,
                "family": family,
                "what": " ".join(text.strip().split("\n\n")[0].split()),
                "paper": f"{short} {paper['year']}" if paper["year"] else None,
                "arxiv": paper["arxiv"],
                "year": int(paper["year"]) if paper["year"] else None,
            }
        )
    return entries


def list_all(options: argparse.Namespace) -> None:
    """Print the catalogue."""
    entries = catalogue()
    if options.json:
        print(json.dumps(entries, indent=2))
        return
    console = Console()
    for kind in ("learner", "meta-gradient", "tasks"):
        table = Table(title=kind, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("name", "family", "paper", "what"):
            table.add_column(column, no_wrap=column != "what")
        for entry in entries:
            if entry["kind"] == kind:
                table.add_row(
                    entry["name"],
                    entry["family"] or "",
                    entry["paper"] or "",
                    entry["what"],
                )
        console.print(table)


def cite(options: argparse.Namespace) -> None:
    """Print a learner's paper as BibTeX."""
    learner = find_learner(options.learner)
    paper = source(learner.__doc__ or "")
    authors = (
        (paper["authors"] or "").replace(" et al.", ", others").replace(", ", " and ")
    )
    arxiv = paper["arxiv"]
    lines = {
        "author": authors,
        "title": paper["title"],
        "year": paper["year"],
        "eprint": arxiv,
        "archivePrefix": arxiv and "arXiv",
        "url": arxiv and f"https://arxiv.org/abs/{arxiv}",
    }
    body = ",\n".join(
        f"  {name} = {{{value}}}" for name, value in lines.items() if value
    )
    print(
        f"@{'misc' if arxiv else 'inproceedings'}{{{authors.split()[0].lower()}{paper['year']}{learner.__name__.lower()},\n{body}\n}}"
    )
