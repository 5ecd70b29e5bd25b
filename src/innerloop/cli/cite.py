"""`innerloop cite`."""

from __future__ import annotations

import re

import click

from innerloop.cli.flags import SectionedCommand


def bibtex(name: str, kind: str = "learner") -> str:
    """The reference of an entry as BibTeX.

    Raises InnerloopError where there is no such entry, or it names no reference.
    """
    from innerloop.engine.errors import InnerloopError
    from innerloop.registry import find

    entry = find(kind, name)  # pyright: ignore[reportArgumentType]
    paper = entry.citation
    if not paper.authors:
        raise InnerloopError(f"{entry.name} names no reference")
    lines = {
        "author": " and ".join(f"{{{a}}}" if " " in a else a for a in paper.authors),
        "title": f"{{{paper.title}}}" if paper.title else None,
        "year": paper.year,
        "eprint": paper.arxiv,
        "archivePrefix": paper.arxiv and "arXiv",
        "url": paper.arxiv and f"https://arxiv.org/abs/{paper.arxiv}",
    }
    body = ",\n".join(f"  {key} = {{{value}}}" for key, value in lines.items() if value)
    first = re.sub(r"\W", "", paper.authors[0].split()[-1].lower())
    key = f"{first}{paper.year}{re.sub(r'[^a-z0-9]', '', entry.name.lower())}"
    return f"@{'misc' if paper.arxiv else 'article'}{{{key},\n{body}\n}}"


def run(name: str) -> None:
    from innerloop.engine.errors import InnerloopError

    try:
        print(bibtex(name))
    except InnerloopError:
        for kind in ("meta-gradient", "tasks"):
            try:
                print(bibtex(name, kind))
            except InnerloopError:
                continue
            return
        raise


command = SectionedCommand(
    "cite",
    params=[click.Argument(["name"])],
    callback=run,
    help="Print the reference of a learner, meta-gradient or task source as BibTeX.",
)
