"""A neural process beside the exact posterior of the Gaussian process that it was
trained on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from innerloop.core.task import Examples
from innerloop.tasks.gp_curves import Curves, gp_curves
from innerloop.tasks.pictures import prediction
from innerloop.web.http import array, record
from innerloop.web.tour.piece import (
    SEED,
    SENT,
    Piece,
    between,
    examples,
    numbers,
    points,
    posted,
    ready,
)

MOST, SHOTS = 20, 5
WIDTH, HEIGHT, GRID = 2.0, 3.0, 121
X = torch.linspace(-WIDTH, WIDTH, GRID)[:, None]


@cache
def tasks() -> Curves:
    return gp_curves("test", shots=SHOTS, queries=1)


def run(body: dict[str, Any]) -> dict[str, Any]:
    support = examples(body["points"])
    if "draw" in body:
        generator = torch.Generator().manual_seed(body["draw"])
        support = tasks().sample(1, generator).unbind()[0].support
        y = support.y.clamp(-HEIGHT, HEIGHT)
        support = Examples(support.x, y)
    learned = prediction(ready("process"), support, X) if len(support.x) else None
    exact = tasks().posterior(support, X)
    return {
        "points": posted(support),
        "x": numbers(X),
        "learned": None if learned is None else band(*learned),
        "exact": band(*exact),
        "gap": None if learned is None else divergence(exact, learned),
    }


def band(mean: Tensor, deviation: Tensor) -> dict[str, list[float]]:
    return {"mean": numbers(mean), "deviation": numbers(deviation)}


def divergence(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> float:
    """KL(p || q) in nats, averaged over X."""
    exact, learned = (torch.distributions.Normal(*each) for each in (p, q))
    return numbers(torch.distributions.kl_divergence(exact, learned).mean())[0]


NUMBERS = array({"type": "number"})
BAND = record(mean=NUMBERS, deviation=NUMBERS)
NOTHING = {"type": "null"}
PIECE = Piece(
    "process",
    "The predictions of a neural process and of the exact posterior, from points.",
    run,
    record(
        {"draw": SEED},
        points=points(between(-WIDTH, WIDTH), between(-HEIGHT, HEIGHT), MOST),
    ),
    record(
        points=SENT,
        x=NUMBERS,
        learned={"anyOf": [BAND, NOTHING]},
        exact=BAND,
        gap={"anyOf": [{"type": "number"}, NOTHING]},
    ),
)
