"""`innerloop translate`."""

from __future__ import annotations

from typing import Any

import click

from innerloop.cli.flags import RunFolder, SectionedCommand, check_parent, option

SHOWN = 20  # translations that are printed


def run(**arguments: Any) -> None:
    from innerloop.cli.output import console
    from innerloop.readers.files import csv_text
    from innerloop.runs import write_atomically
    from innerloop.translation import read_pairs, read_texts, translate

    to, out = console(), check_parent(arguments["out"])
    examples, sources = read_pairs(arguments["examples"])
    if arguments["sources"] is not None:
        sources = read_texts(arguments["sources"])
    found = translate(examples, sources, run=arguments["run"])
    for line in found[:SHOWN]:
        doubt = f"  (in no example: {', '.join(line.unseen)})" if line.unseen else ""
        to.print(f"{line.source} -> {line.target or '(no translation)'}{doubt}")
    if len(found) > SHOWN:
        to.print(f"... and {len(found) - SHOWN} more")
    if out:
        rows = [("source", "target"), *((x.source, x.target) for x in found)]
        write_atomically(out, csv_text(rows).encode())
        to.print(f"written: {out}")


command = SectionedCommand(
    "translate",
    params=[
        click.Argument(["run"], metavar="[RUN]", type=RunFolder(), required=False),
        option(
            "--examples",
            "A .csv of pairs: the columns source and target, or the first two. Rows "
            "without a target are translated.",
            required=True,
            metavar="FILE",
        ),
        option(
            "--in",
            "Texts to translate: one text, or a file with one in each line.",
            dest="sources",
            metavar="TEXT|FILE",
        ),
        option(
            "--out", "A .csv with the texts and their translations.", metavar="FILE"
        ),
    ],
    callback=run,
    help="Translate texts into the language of a few pairs, whatever its words are, by "
    "rules that a search finds in them; or by RUN, a training on instructions, scan or "
    "names.",
)
