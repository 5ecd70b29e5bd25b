"""Tables of `innerloop synthesize`, and its report."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.programs.strings import LONGEST

OUTPUT = "output"
# rows that are printed where all programs agree; the share of the probability above
# which they do
SHOWN, AGREE = 20, 0.995


def read_rows(file: Path | str) -> tuple[list[str], list[dict[str, str]]]:
    """The names of the input columns and the rows of a .csv with a column `output`.

    Raises InnerloopFileError for a missing file and InnerloopError for another table.
    """
    file = Path(file)
    if not file.is_file():
        raise InnerloopFileError(f"there is no file {file}")
    try:
        text = file.read_text("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InnerloopError(f"{file} is not a .csv file in UTF-8: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line]
    header = [name.strip() for name in numbered[0][1]] if numbered else []
    if OUTPUT not in header or len(header) < 2 or len(set(header)) < len(header):
        raise InnerloopError(
            f"{file} needs a header with the column {OUTPUT} and at least one column "
            "of "
            f"inputs, all with different names; got {header[:8]}"
        )
    for number, line in numbered[1:]:
        if len(line) != len(header):
            raise InnerloopError(
                f"row {number} of {file} has {len(line)} cells, the header "
                f"{len(header)}"
            )
    rows = [dict(zip(header, line, strict=True)) for _, line in numbered[1:]]
    if not any(row[OUTPUT] for row in rows):
        raise InnerloopError(
            f"no row of {file} has an output: fill in one or more, as examples"
        )
    return [name for name in header if name != OUTPUT], rows


def certainty(
    examples: int,
    fits: int,
    programs: tuple[tuple[str, float], ...],
    agreements: list[float],
) -> str:
    """One line on how many programs fit, and whether they agree."""
    if fits == 1:
        return f"it is the only program found that fits the {examples} examples"
    count = f"{fits:,}" if fits < 1_000_000 else "more than a million"
    many = f"{count} programs fit the {examples} examples"
    if not agreements:
        return f"{many}; the next likely one is {programs[1][0]}"
    doubtful = sum(agreement < AGREE for agreement in agreements)
    if not doubtful:
        return f"{many}, and agree on all {len(agreements)} rows to fill"
    return (
        f"{many}, and disagree on {doubtful} of {len(agreements)} rows to fill: one "
        "more "
        "example like those would decide"
    )


def nothing(text: str) -> str:
    """Why a program has no output for a text."""
    if len(text) > LONGEST:
        return f"nothing: a text may have {LONGEST} characters"
    return "nothing: the program does not find what it looks for"
