"""`innerloop study table`."""

from __future__ import annotations

import csv
import io
import json

import click

from innerloop.cli.flags import check_parent, option
from innerloop.cli.study.opened import RESULTS, opened, print_table


def run(names: tuple[str, ...], results: str, format: str, out: str | None) -> None:
    from innerloop import studies
    from innerloop.cli.output import console
    from innerloop.runs import write_atomically

    file, to = check_parent(out), console()
    chosen = [opened(name, results) for name in names or studies.names()]
    if format == "text" and file is None:
        for study, stored in chosen:
            print_table(study, stored, to)
            to.print()
        return
    if format in ("csv", "json"):
        lines = [line for one in chosen for line in studies.records(*one)]
        text = _csv(lines) if format == "csv" else json.dumps(lines, indent=1)
    else:
        tables = [studies.table(*one) for one in chosen]
        text = "\n\n".join(
            "\n".join([studies.markdown(t.cells()), *(f"\n{n}" for n in t.notes())])
            for t in tables
        )
    if file is not None:
        write_atomically(file, text.encode() + b"\n")
    else:
        to.print(text)


def _csv(lines: list[dict[str, object]]) -> str:
    file = io.StringIO()
    columns = list(dict.fromkeys(key for line in lines for key in line))
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue().rstrip()


command = click.Command(
    "table",
    params=[
        click.Argument(["names"], nargs=-1, metavar="[NAME]..."),
        option(
            "--format",
            "text and markdown are tables with a row for each learner; csv and json "
            "have a row for each number, validations in training included.",
            type=click.Choice(["text", "markdown", "csv", "json"]),
            default="text",
        ),
        option("--out", "Write to FILE.", metavar="FILE"),
        RESULTS,
    ],
    callback=run,
    help="Print the tables of studies, all by default.",
)
