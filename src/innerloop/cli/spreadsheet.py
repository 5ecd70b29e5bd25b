"""Tables of `innerloop synthesize`, and its report."""

from __future__ import annotations

from pathlib import Path

from innerloop.engine.errors import InnerloopError
from innerloop.programs.strings import LONGEST
from innerloop.readers.files import label_text, read_sheet, some

OUTPUT = "output"
# rows that are printed where all programs agree; the share of the probability above
# which they do
SHOWN, AGREE = 20, 0.995


def read_rows(
    file: Path | str,
) -> tuple[list[str], list[dict[str, str]], tuple[str, ...]]:
    """The names of the input columns and the rows of a table with a column `output`,
    and what was assumed to read it.

    Raises InnerloopFileError for a missing file and InnerloopError for another table.
    """
    sheet = read_sheet(file, keep_blank=True)
    sheet.check()
    place = sheet.find(OUTPUT)
    if place is None or len(sheet.columns) < 2:
        raise InnerloopError(
            f"{file} needs a header with the column {OUTPUT} and at least one column "
            f"of inputs; got {some(sheet.columns)}"
        )
    header = list(sheet.columns)
    header[place] = OUTPUT
    rows = [
        dict(zip(header, (cell_text(cell) for cell in row), strict=True))
        for row in sheet.rows
    ]
    if not any(row[OUTPUT] for row in rows):
        raise InnerloopError(
            f"no row of {file} has an output: fill in one or more, as examples"
        )
    return [name for name in header if name != OUTPUT], rows, sheet.notes


def cell_text(cell: object) -> str:
    """A cell as it is written: texts with their spaces, whole numbers without .0."""
    return cell if isinstance(cell, str) else label_text(cell)


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
