"""What a live picture is, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopError
from innerloop.experiment import load
from innerloop.runs import RunError
from innerloop.web.http import Call, Operation, Schema, array, record

READY = Path(__file__).parents[1] / "ready"  # small trained runs
DIGITS = 4  # of numbers that are sent
SEED: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
SENT = array(record(x={"type": "number"}, y={"type": "number"}))  # points


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


@cache
def ready(name: str) -> Learner:
    """The learner of a small trained run that is part of the package."""
    try:
        return load(READY / name)
    except RunError as error:
        raise InnerloopError(
            f"the trained run {name} of this picture is missing or damaged: install "
            "innerloop again"
        ) from error


def between(low: float, high: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def points(x: Schema, y: Schema, most: int) -> Schema:
    """At most so many points of a plane."""
    return array(record(x=x, y=y), most)


def examples(posted: list[dict[str, float]]) -> Examples:
    """Points as examples of a function, x (n, 1) and y (n, 1)."""
    rows = [[p["x"], p["y"]] for p in posted]
    values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 2)
    return Examples(values[:, :1], values[:, 1:])


def posted(support: Examples) -> list[dict[str, float]]:
    """The points of one task, as they are sent."""
    pairs = zip(numbers(support.x), numbers(support.y), strict=True)
    return [{"x": x, "y": y} for x, y in pairs]


def numbers(values: Tensor) -> list[float]:
    """All numbers of a tensor, as they are sent; what is not finite is a large
    number.
    """
    finite = values.detach().double().nan_to_num(0.0, 1e6, -1e6).clamp(-1e6, 1e6)
    return [round(value, DIGITS) for value in finite.flatten().tolist()]
