"""Live pictures of how learning to learn works, each computed here."""

from __future__ import annotations

from innerloop.web.tour import (
    bandit,
    evolution,
    imagine,
    memory,
    optimizer,
    process,
    program,
    prototypes,
    sinusoid,
)
from innerloop.web.tour.piece import Piece

PIECES: list[Piece] = [
    prototypes.PIECE,
    sinusoid.PIECE,
    process.PIECE,
    bandit.PIECE,
    memory.PIECE,
    optimizer.PIECE,
    program.PIECE,
    imagine.PIECE,
    evolution.PIECE,
]
OPERATIONS = [piece.operation for piece in PIECES]
