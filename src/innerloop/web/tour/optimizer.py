"""A learned optimizer beside Adam and gradient descent, on functions of two variables.

Coordinates are relative to the minimum: a learned optimizer sees gradients alone, so
where the minimum is makes no difference to it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from innerloop.learners.optimization.l2o import L2O
from innerloop.optimizer import LearnedOptimizer
from innerloop.tasks.optimizees import quadratics
from innerloop.web.http import COUNT, array, record
from innerloop.web.tour.piece import SEED, Piece, between, numbers, ready

STEPS = 40  # as in the training of the learned optimizer
REACH, CELLS = 2.0, 48  # the square that is drawn, and how finely
GAMES, KEPT = 100, 256  # functions to compare on, and comparisons that are kept

Function = Callable[[Tensor], Tensor]  # points (..., 2) to values (...)


def quadratic(n: int, seed: int) -> Function:
    """`n` functions of the family of the learned optimizer, at n points."""
    tasks = quadratics("test", size=2)
    matrices = tasks.sample(n, torch.Generator().manual_seed(seed)).support.x
    # (n, 2, 2); the mean squared error of w - w* is |W (w - w*)|^2
    return lambda w: (matrices @ w[..., None])[..., 0].square().mean(-1)


def rosenbrock(n: int, seed: int) -> Function:
    """A curved valley, which the learned optimizer has never seen."""

    def value(w: Tensor) -> Tensor:
        x, y = (w + 1).unbind(-1)
        return (1 - x).square() + 10 * (y - x.square()).square()

    return value


FUNCTIONS = {"quadratic": quadratic, "rosenbrock": rosenbrock}


def optimizers(rates: dict[str, float]) -> dict[str, Callable[[nn.Parameter], Any]]:
    learner = cast(L2O, ready("optimizer"))
    return {
        "learned": lambda w: LearnedOptimizer([w], learner),
        "adam": lambda w: torch.optim.Adam([w], lr=rates["adam"]),
        "sgd": lambda w: torch.optim.SGD([w], lr=rates["sgd"]),
    }


def path(
    function: Function, start: Tensor, new: Callable[[nn.Parameter], Any]
) -> tuple[Tensor, Tensor]:
    """The points (STEPS + 1, n, 2) of an optimizer from start (n, 2), and the values
    there.
    """
    w = nn.Parameter(start.clone())
    optimizer, points, values = new(w), [], []
    for step in range(STEPS + 1):
        with torch.enable_grad():
            value = function(w)
            total = value.sum()
        points.append(w.detach().clone())
        values.append(value.detach())
        if step < STEPS:
            (w.grad,) = torch.autograd.grad(total, w)
            optimizer.step()
    return torch.stack(points), torch.stack(values)


def run(body: dict[str, Any]) -> dict[str, Any]:
    name, rates = body["function"], body["rates"]
    function = FUNCTIONS[name](1, body["seed"])
    start = torch.tensor([body["start"]], dtype=torch.float32)
    found = []
    for optimizer, new in optimizers(rates).items():
        points, values = path(function, start, new)
        found.append(
            {
                "name": optimizer,
                "points": [numbers(point) for point in points[:, 0]],
                "values": numbers(values[:, 0]),
            }
        )
    axis = torch.linspace(-REACH, REACH, CELLS)
    grid = torch.stack(torch.meshgrid(axis, axis.flip(0), indexing="xy"), -1)
    return {
        "reach": REACH,
        "cells": CELLS,
        "heights": numbers(function(grid.reshape(-1, 1, 2))),
        "paths": found,
        "wins": wins(name, rates["adam"], rates["sgd"]),
    }


@lru_cache(KEPT)
def wins(name: str, adam: float, sgd: float) -> dict[str, int]:
    """In how many games each optimizer ends lowest, from random points."""
    rng = torch.Generator().manual_seed(0)
    start = REACH * (2 * torch.rand(GAMES, 2, generator=rng) - 1)
    function = FUNCTIONS[name](GAMES, 2**31)  # unlike all seeds of a person
    new = optimizers({"adam": adam, "sgd": sgd})
    ends = torch.stack([path(function, start, make)[1][-1] for make in new.values()])
    best = ends.nan_to_num(torch.inf).argmin(0).tolist()
    return {optimizer: best.count(i) for i, optimizer in enumerate(new)}


SIDE = between(-REACH, REACH)
RATE = between(1e-4, 10)
POINT = array({"type": "number"}, 2, 2)
PIECE = Piece(
    "optimizer",
    "The paths of a learned optimizer, Adam and gradient descent from a point.",
    run,
    record(
        function={"enum": list(FUNCTIONS)},
        seed=SEED,
        start=array(SIDE, 2, 2),
        rates=record(adam=RATE, sgd=RATE),
    ),
    record(
        reach={"type": "number"},
        cells=COUNT,
        heights=array({"type": "number"}),
        paths=array(
            record(
                name={"type": "string"},
                points=array(POINT),
                values=array({"type": "number"}),
            )
        ),
        wins=record(learned=COUNT, adam=COUNT, sgd=COUNT),
    ),
)
