"""A program for a column of a table, from its first rows."""

from __future__ import annotations

from typing import Any

from innerloop.engine.errors import InnerloopError
from innerloop.programs import strings
from innerloop.synthesis import Synthesis, synthesize
from innerloop.web.http import COUNT, SHARE, array, record, text
from innerloop.web.tour.piece import Piece

SECONDS = 2.0  # of a search
ROWS, LENGTH = 12, 80
ALTERNATIVES = 3


def run(body: dict[str, Any]) -> dict[str, Any]:
    """The program of the rows that have an output, and what it writes in every row."""
    rows = [(row["input"], row["output"]) for row in body["rows"]]
    known = [(given, output) for given, output in rows if given and output]
    if not known:
        raise InnerloopError("fill in the output of at least one row")
    found = synthesize(known, seconds=SECONDS, wanted=ALTERNATIVES)
    program = strings.parse(found.program)
    return {
        "program": found.program,
        "parts": [strings.show((expression,)) for expression in program],
        "rows": [written(found, program, given) for given, _ in rows],
        "others": [
            {"program": other, "share": min(1.0, share)}
            for other, share in found.programs
        ],
        "fits": f"{found.fits:,}",
    }


def written(found: Synthesis, program: Any, given: str) -> dict[str, Any]:
    """What each part of a program writes for an input, if all of them do, and how far
    the other programs that were found agree.
    """
    if not given or found(given) is None:
        return {"parts": None, "agreement": 0.0}
    parts = [strings.evaluate(expression, given) for expression in program]
    return {"parts": parts, "agreement": min(1.0, found.agreement(given))}


WORD = text(LENGTH)
PIECE = Piece(
    "program",
    "A program that fits the filled rows of a table, and what it writes in the others.",
    run,
    record(rows=array(record(input=WORD, output=WORD), ROWS, 1)),
    record(
        program={"type": "string"},
        parts=array({"type": "string"}),
        rows=array(
            record(
                parts={"anyOf": [array({"type": "string"}), {"type": "null"}]},
                agreement=SHARE,
            )
        ),
        others=array(record(program={"type": "string"}, share=SHARE)),
        fits={"type": "string"},
    ),
)
