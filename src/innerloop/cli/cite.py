"""`innerloop cite`."""

from __future__ import annotations

import click

from innerloop.cli.flags import SectionedCommand

KINDS = ("learner", "meta-gradient", "tasks", "evaluation", "encoder", "reader")


def run(name: str | None) -> None:
    from innerloop.engine.errors import InnerloopError
    from innerloop.papers import bibtex, paper_of, papers
    from innerloop.registry import Entry, find

    if name is None:
        print("\n\n".join(map(bibtex, papers())))
        return
    entries: list[Entry] = []
    for kind in KINDS:
        try:
            entries.append(find(kind, name))
        except InnerloopError:
            continue
    if not entries:
        find("learner", name)  # raises, with a guess
    cited = [entry for entry in entries if entry.citation.authors]
    if not cited:
        raise InnerloopError(f"{entries[0].name} names no reference")
    print(bibtex(paper_of(cited[0].citation)))


command = SectionedCommand(
    "cite",
    params=[click.Argument(["name"], required=False)],
    callback=run,
    help="Print the reference of a learner, meta-gradient, task source, evaluation, "
    "encoder or reader as BibTeX; without NAME, all papers of this library.",
)
