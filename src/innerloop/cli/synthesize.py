"""`innerloop synthesize`."""

from __future__ import annotations

from typing import Any

from innerloop.cli.flags import (
    Number,
    RunFolder,
    SectionedCommand,
    check_parent,
    option,
)


def run(**arguments: Any) -> None:
    from innerloop.cli.output import console
    from innerloop.cli.spreadsheet import (
        AGREE,
        OUTPUT,
        SHOWN,
        certainty,
        nothing,
        read_rows,
    )
    from innerloop.readers.files import csv_text
    from innerloop.runs import write_atomically
    from innerloop.synthesis import synthesize

    to, out = console(), check_parent(arguments["out"])
    inputs, rows, notes = read_rows(arguments["examples"])
    read = [
        tuple(row[name] for name in inputs) if len(inputs) > 1 else row[inputs[0]]
        for row in rows
    ]
    pairs = list(zip(read, rows, strict=True))
    examples = [(text, row[OUTPUT]) for text, row in pairs if row[OUTPUT]]
    found = synthesize(examples, run=arguments["run"], seconds=arguments["seconds"])
    empty = [(text, row) for text, row in pairs if not row[OUTPUT]]
    answers = [
        (" | ".join(row[n] for n in inputs), found(text), found.agreement(text))
        for text, row in empty
    ]
    for (_, row), (_, answer, _) in zip(empty, answers, strict=True):
        row[OUTPUT] = answer or ""
    lines = [*notes, f"program: {found.program}"]
    if len(inputs) > 1:
        lines.append(f"x is {' | '.join(inputs)}, joined by |")
    agreements = [agreement for *_, agreement in answers]
    lines.append(certainty(len(examples), found.fits, found.programs, agreements))
    # rows without an answer, or on which programs disagree, come first
    answers.sort(key=lambda row: (row[1] is not None, row[2] >= AGREE))
    doubtful = sum(a is None or agreement < AGREE for _, a, agreement in answers)
    for text, answer, agreement in answers[: max(SHOWN, doubtful)]:
        what = nothing(text) if answer is None else repr(answer)
        doubt = f"  (agreement {100 * agreement:.0f} %)" if agreement < AGREE else ""
        lines.append(f"{text!r} gives {what}{doubt}")
    if len(answers) > max(SHOWN, doubtful):
        lines.append(f"... and {len(answers) - max(SHOWN, doubtful)} more rows")
    if out:
        table = csv_text([rows[0], *(row.values() for row in rows)])
        write_atomically(out, table.encode())
        filled = sum(answer is not None for _, answer, _ in answers)
        lines.append(f"{filled} of {len(answers)} rows filled: {out}")
    for line in lines:
        to.print(line)


command = SectionedCommand(
    "synthesize",
    params=[
        option(
            "--examples",
            "A .csv with a column output, empty in the rows to fill; all other "
            "columns are inputs.",
            required=True,
            metavar="FILE",
        ),
        option(
            "--run",
            "A run of robustfill to guide the search (default: enumerate programs).",
            metavar="RUN",
            type=RunFolder(),
        ),
        option("--out", "A .csv with all rows, filled.", metavar="FILE"),
        option(
            "--seconds",
            "Processor time for the search.",
            type=Number(0, 1e6, min_open=True),
            default=10.0,
        ),
    ],
    callback=run,
    help="Infer the program that computes a column of a table from the others, from a "
    "few filled rows, and fill the rest.",
)
