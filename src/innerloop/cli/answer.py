"""`innerloop answer`."""

from __future__ import annotations

from typing import Any

import click

from innerloop.cli.flags import RunFolder, SectionedCommand, check_parent, option


def run(**arguments: Any) -> None:
    from innerloop.answering import answer, read_facts
    from innerloop.cli.output import console
    from innerloop.readers.files import csv_text
    from innerloop.runs import write_atomically
    from innerloop.translation import read_texts

    to, out = console(), check_parent(arguments["out"])
    facts, questions = read_facts(arguments["facts"]), read_texts(arguments["ask"])
    found = answer(facts, questions, run=arguments["run"])
    rows = [("question", "answer", "facts")]
    for line in found:
        doubt = f"  (in no fact: {', '.join(line.unseen)})" if line.unseen else ""
        to.print(f"{line.question} -> {line.text}{doubt}")
        for fact in line.facts:
            to.print(f"  {fact + 1}. {facts[fact]}")
        numbers = " ".join(str(fact + 1) for fact in line.facts)
        rows.append((line.question, line.text, numbers))
    if out:
        write_atomically(out, csv_text(rows).encode())
        to.print(f"written: {out}")


command = SectionedCommand(
    "answer",
    params=[
        click.Argument(["run"], metavar="RUN", type=RunFolder()),
        option(
            "--facts",
            "A text file of facts in the order in which they happened, one in each "
            "line or sentence.",
            required=True,
            metavar="FILE",
        ),
        option(
            "--ask",
            "A question, or a file with one in each line.",
            required=True,
            metavar="TEXT|FILE",
        ),
        option(
            "--out",
            "A .csv of the questions, their answers, and the numbers of the facts that "
            "carry them.",
            metavar="FILE",
        ),
    ],
    callback=run,
    help="Answer questions about a few facts, by a run that was trained on stories, "
    "and say which facts carry each answer.",
)
