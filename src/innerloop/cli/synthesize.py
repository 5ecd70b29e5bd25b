"""`innerloop synthesize`."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

from rich.console import Console

from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.programs.strings import LONGEST
from innerloop.runs import write_atomically
from innerloop.synthesis import joined, synthesize

OUTPUT = "output"
# rows that are printed, if all is well; where less of the probability agrees, it is
# said
SHOWN, SURE = 20, 0.995
NOTHING = (
    "nothing: the program does not find in it what it looks for",
    f"nothing: a text may have {LONGEST} characters",
)


def run(options: argparse.Namespace) -> None:
    console = Console(emoji=False)
    inputs, rows = read_rows(options.examples)
    out = Path(options.out) if options.out else None
    if out and not out.parent.is_dir():
        raise InnerloopFileError(
            f"there is no folder {out.parent} to write {out.name} into"
        )
    columns = {name: [row[name] for row in rows] for name in inputs}
    read = (
        list(zip(*columns.values(), strict=True))
        if len(inputs) > 1
        else list(columns[inputs[0]])
    )
    examples = [
        (text, row[OUTPUT]) for text, row in zip(read, rows, strict=True) if row[OUTPUT]
    ]
    found = synthesize(examples, run=options.run, seconds=options.seconds)
    asked = [
        (text, row) for text, row in zip(read, rows, strict=True) if not row[OUTPUT]
    ]
    answers = [(text, found(text), found.agreement(text)) for text, _ in asked]
    for (_, row), (_, answer, _) in zip(asked, answers, strict=True):
        row[OUTPUT] = answer or ""
    told = [f"program: {found.program}"]
    if len(inputs) > 1:
        told.append(f"x is {' | '.join(inputs)}, with nothing but a | between them")
    told.append(how_sure(len(examples), found.programs, [sure for *_, sure in answers]))
    # what is missing or not sure comes first
    doubtful = sorted(
        answers, key=lambda found: (found[1] is not None, found[2] >= SURE)
    )
    at_least = sum(answer is None or sure < SURE for _, answer, sure in answers)
    for text, answer, sure in doubtful[: max(SHOWN, at_least)]:
        what = (
            repr(answer) if answer is not None else NOTHING[len(joined(text)) > LONGEST]
        )
        doubt = f"  ({100 * sure:.0f} % agree)" if sure < SURE else ""
        told.append(
            f"{text if isinstance(text, str) else ' | '.join(text)!r} gives {what}{doubt}"
        )
    if len(answers) > max(SHOWN, at_least):
        told.append(
            f"... and {len(answers) - max(SHOWN, at_least)} rows more, about which they agree"
        )
    for line in told:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if out:
        memory = io.StringIO()
        writer = csv.DictWriter(memory, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(out, memory.getvalue().encode())
        filled = sum(answer is not None for _, answer, _ in answers)
        console.print(
            f"{filled} of {len(answers)} rows filled: {out}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def how_sure(
    shown: int, programs: tuple[tuple[str, float], ...], agreements: list[float]
) -> str:
    """One line on how many programs fit, and whether they agree."""
    if len(programs) == 1:
        return f"it is the only program found that fits the {shown} examples"
    many = f"{len(programs)} programs fit the {shown} examples"
    if not agreements:
        return f"{many}; the likeliest other is {programs[1][0]}"
    doubtful = sum(sure < SURE for sure in agreements)
    if not doubtful:
        return f"{many}, and agree on all {len(agreements)} rows to fill"
    return f"{many}, and disagree on {doubtful} of {len(agreements)} rows to fill: an example like those would settle it"


def read_rows(file: Path | str) -> tuple[list[str], list[dict[str, str]]]:
    """The names of the input columns and the rows of a .csv with a column `output`.

    Raises FileNotFoundError for a missing file and ValueError for one that is no such
    table.
    """
    file = Path(file)
    if not file.is_file():
        raise InnerloopFileError(f"there is no file {file}")
    try:
        lines = list(csv.reader(io.StringIO(file.read_text("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InnerloopError(f"{file} is no .csv file in UTF-8: {error}") from error
    lines = [(number, line) for number, line in enumerate(lines, 1) if line]
    header = [name.strip() for name in lines[0][1]] if lines else []
    if OUTPUT not in header or len(header) < 2 or len(set(header)) < len(header):
        raise InnerloopError(
            f"{file} needs a header with the column output and one column of inputs or more, each of another name, not {header}"
        )
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise InnerloopError(
                f"row {number} of {file} has {len(line)} cells, and the header has {len(header)}"
            )
    rows = [dict(zip(header, line, strict=True)) for _, line in lines[1:]]
    if not any(row[OUTPUT] for row in rows):
        raise InnerloopError(
            f"no row of {file} has an output: fill in one or more, as examples"
        )
    return [name for name in header if name != OUTPUT], rows
