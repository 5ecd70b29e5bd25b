"""MAML on points of a curve, beside a network from scratch that takes the same
steps.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch

from innerloop.core.descent import Descent
from innerloop.core.task import Examples
from innerloop.learners.optimization.maml import MAML
from innerloop.learners.transfer.scratch import Scratch
from innerloop.tasks.sinusoid import sinusoid
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

STEPS, MOST, SHOTS, TRUTH = 10, 10, 5, 200
WIDTH, HEIGHT, GRID = 5.0, 6.0, 121
X = torch.linspace(-WIDTH, WIDTH, GRID)[:, None]


@cache
def learners() -> dict[str, Descent]:
    maml = cast(MAML, ready("sinusoid"))
    assert maml.spec is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        scratch = Scratch.build(maml.spec, inner_lr=maml.inner_lr)
    return {"maml": maml, "scratch": scratch}


def drawn(seed: int) -> tuple[Examples, Examples]:
    """Points of a new sinusoid, and many others of it in the order of x."""
    tasks = sinusoid(shots=SHOTS, queries=TRUTH)
    task = tasks.sample(1, torch.Generator().manual_seed(seed)).unbind()[0]
    order = task.query.x[:, 0].argsort()
    return task.support, Examples(task.query.x[order], task.query.y[order])


def fitted(learner: Descent, support: Examples) -> dict[str, Any]:
    """The curves after 0, 1, ... steps, and their squared errors on the points."""
    steps = STEPS if len(support.x) else 0
    curves, errors = [], []
    for state in learner.trajectory(support, steps):
        curves.append(numbers(learner.predict(state, X)))
        miss = learner.predict(state, support.x) - support.y
        errors += numbers(miss.square().mean()) if len(miss) else []
    return {"curves": curves, "errors": errors}


def run(body: dict[str, Any]) -> dict[str, Any]:
    support = examples(body["points"])
    truth = Examples(support.x[:0], support.y[:0])
    if "draw" in body:
        support, truth = drawn(body["draw"])
    return {
        "points": posted(support),
        "truth": posted(truth),
        "x": numbers(X),
        **{name: fitted(learner, support) for name, learner in learners().items()},
    }


NUMBERS = array({"type": "number"})
FITTED = record(curves=array(NUMBERS), errors=NUMBERS)
PIECE = Piece(
    "sinusoid",
    "The curves of MAML and of a network from scratch after gradient steps on points.",
    run,
    record(
        {"draw": SEED},
        points=points(between(-WIDTH, WIDTH), between(-HEIGHT, HEIGHT), MOST),
    ),
    record(
        points=SENT,
        truth=SENT,
        x=NUMBERS,
        maml=FITTED,
        scratch=FITTED,
    ),
)
