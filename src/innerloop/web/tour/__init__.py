"""Live pictures of how learning to learn works, each computed here."""

from __future__ import annotations

from innerloop.web.tour import bandit, process, prototypes, sinusoid
from innerloop.web.tour.piece import Piece

PIECES: list[Piece] = [
    prototypes.PIECE,
    sinusoid.PIECE,
    process.PIECE,
    bandit.PIECE,
]
OPERATIONS = [piece.operation for piece in PIECES]
