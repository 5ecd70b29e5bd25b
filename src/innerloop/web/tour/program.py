"""A program for a column of a table, from its first rows."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from innerloop.engine.errors import InnerloopError
from innerloop.programs import strings
from innerloop.programs.grammar import Program
from innerloop.synthesis import Synthesis, synthesize
from innerloop.web.http import SHARE, array, record, text
from innerloop.web.tour.piece import Piece

SECONDS = 2.0  # of a search
ROWS, LENGTH = 12, 80


def run(body: dict[str, Any]) -> dict[str, Any]:
    """The program of the rows that have an output, and what it writes in every row; no
    program is usual while one types, and no error.
    """
    rows = [(row["input"], row["output"]) for row in body["rows"]]
    known = [(given, output) for given, output in rows if given and output]
    try:
        found = synthesize(known, seconds=SECONDS, wanted=1)
    except InnerloopError:
        nothing = {"parts": None, "agreement": 0.0}
        return {
            "program": None,
            "parts": [],
            "rows": [nothing] * len(rows),
            "fits": "0",
        }
    parts = grouped(strings.parse(found.program))
    return {
        "program": found.program,
        "parts": [strings.show(part) for part in parts],
        "rows": [written(found, parts, given) for given, _ in rows],
        "fits": str(found.fits),
    }


def grouped(program: Program) -> list[Program]:
    """The expressions of a program, with constant characters in a row together."""
    groups = groupby(program, lambda expression: strings.ignores_input((expression,)))
    return [
        part
        for constant, some in groups
        for part in ([tuple(some)] if constant else [(each,) for each in some])
    ]


def written(found: Synthesis, parts: list[Program], given: str) -> dict[str, Any]:
    """What each part of a program writes for an input, if all of them do, and how far
    the other programs that were found agree.
    """
    if not given or found(given) is None:
        return {"parts": None, "agreement": 0.0}
    texts = [strings.run(part, given) for part in parts]
    return {"parts": texts, "agreement": min(1.0, found.agreement(given))}


WORD = text(LENGTH)
PIECE = Piece(
    "program",
    "A program that fits the filled rows of a table, and what it writes in the others.",
    run,
    record(rows=array(record(input=WORD, output=WORD), ROWS, 1)),
    record(
        program={"type": ["string", "null"]},
        parts=array({"type": "string"}),
        rows=array(
            record(
                parts={"anyOf": [array({"type": "string"}), {"type": "null"}]},
                agreement=SHARE,
            )
        ),
        fits={"type": "string"},
    ),
)
