"""Live pictures of how learning to learn works, each computed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from innerloop.web.http import Call, Operation, Schema


@dataclass(frozen=True)
class Piece:
    """One live picture.

    Args:
        name: in the address and in the texts.
        summary: one sentence.
        run: from what was posted to what is drawn; an iterator's values are sent as
            events.
        body: schema of what is posted.
        result: schema of what comes back, or of an event.
    """

    name: str
    summary: str
    run: Callable[[Any], Any]
    body: Schema
    result: Schema

    @property
    def operation(self) -> Operation:
        async def handle(call: Call) -> Any:
            found = await call.compute(self.run, call.body)
            return call.each(found) if isinstance(found, Iterator) else found

        return Operation(
            "POST",
            f"/api/tour/{self.name}",
            f"tour{self.name.title()}",
            self.summary,
            handle,
            self.result,
            self.body,
        )


PIECES: list[Piece] = []
OPERATIONS = [piece.operation for piece in PIECES]
