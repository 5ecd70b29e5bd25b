"""`innerloop summarize`."""

from __future__ import annotations

from typing import Any

import click

from innerloop.cli.flags import RunFolder, SectionedCommand, check_parent, option

SHOWN = 20  # summaries that are printed


def run(**arguments: Any) -> None:
    from innerloop.cli.output import console
    from innerloop.readers.files import csv_text
    from innerloop.runs import write_atomically
    from innerloop.summarizing import read_examples, read_inputs, summarize

    to, out = console(), check_parent(arguments["out"])
    examples, texts = read_examples(arguments["examples"])
    names = [f"row {i}" for i in range(1, len(texts) + 1)]
    if arguments["texts"] is not None:
        texts, names = read_inputs(arguments["texts"])
    found = summarize(examples, texts, run=arguments["run"])
    for name, line in [*zip(names, found, strict=True)][:SHOWN]:
        to.print(
            f"{name[:40]} (sentence {line.place + 1} of {line.of}): {line.sentence}"
        )
    if len(found) > SHOWN:
        to.print(f"... and {len(found) - SHOWN} more")
    if out:
        rows = [("text", "summary")]
        rows += [(text, x.sentence) for text, x in zip(texts, found, strict=True)]
        write_atomically(out, csv_text(rows).encode())
        to.print(f"written: {out}")


command = SectionedCommand(
    "summarize",
    params=[
        click.Argument(["run"], metavar="RUN", type=RunFolder()),
        option(
            "--examples",
            "A table of texts and their summaries: the columns text and summary, or "
            "the first two. Rows without a summary are summarized.",
            required=True,
            metavar="FILE",
        ),
        option(
            "--in",
            "Texts to summarize: a .txt file, a folder of them, or a table with the "
            "column text.",
            dest="texts",
            metavar="PATH",
        ),
        option("--out", "A .csv of the texts and their summaries.", metavar="FILE"),
    ],
    callback=run,
    help="Choose the sentence of each text that says most, as in a few examples, by a "
    "run that was trained on descriptions.",
)
