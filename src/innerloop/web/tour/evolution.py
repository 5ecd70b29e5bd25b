"""The evolution of a network that computes exclusive or."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from innerloop.core.task import Examples
from innerloop.learners.memory.neat import NEAT
from innerloop.metagrad import Move
from innerloop.metagrad.neat import NEATEvolution
from innerloop.tasks.xor import CORNERS, ExclusiveOr
from innerloop.web.http import COUNT, SHARE, array, record
from innerloop.web.tour.piece import SEED, Piece, numbers

GENERATIONS, POPULATION, TASKS = 60, 100, 8
CELLS, EXTENT = 16, 1.6  # the square on which the output is drawn
# of the network; it also reads labels, but those of exclusive or are no news
INPUTS = ("x1", "x2", "label", "labeled", "bias", "bias")
EXAMPLE = Examples(CORNERS[:1], torch.zeros(1, 1))  # is read before all points


def run(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The best network of every generation; `add` is how probably a child gains a node,
    and a connection.
    """
    tasks = ExclusiveOr(agree=0.0)
    generator = torch.Generator().manual_seed(body["seed"])
    learner = NEAT.build(tasks.spec, hidden=6)
    network = learner.network
    # all that is random comes from the seed
    first = network.weight.detach()[: network.inputs + 1, : network.outputs]
    first.normal_(0, 0.1, generator=generator)
    evolution = NEATEvolution(
        population=POPULATION,  # pyright: ignore[reportCallIssue]
        add_node=body["add"],  # pyright: ignore[reportCallIssue]
        add_link=body["add"],  # pyright: ignore[reportCallIssue]
    )
    evolution.prepare(learner, tasks, generator)
    for generation in range(1, body["generations"] + 1):
        move = evolution(learner, lambda: tasks.sample(TASKS, generator))
        assert isinstance(move, Move)
        (best,) = move.theta.values()
        network.weight.data.copy_(best)
        yield {
            "generation": generation,
            "species": len(evolution.living),
            **graph(best, learner.network.outputs),
            **behavior(learner),
        }


def graph(weight: Tensor, outputs: int) -> dict[str, Any]:
    """The nodes and the connections of a network."""
    sources = len(weight) - weight.shape[1]
    ends = weight.nonzero().tolist()
    used = {node for source, target in ends for node in (source, sources + target)}
    kinds = [*INPUTS[:sources], *["output"] * outputs]
    kinds += ["hidden"] * (len(weight) - len(kinds))
    return {
        "nodes": [
            {"id": i, "kind": kind}
            for i, kind in enumerate(kinds)
            if kind == "output" or i in used
        ],
        "edges": [
            {"from": a, "to": sources + b, "weight": numbers(weight[a, b])[0]}
            for a, b in ends
        ],
    }


def behavior(learner: NEAT) -> dict[str, Any]:
    """The probabilities over a square, rows from the top, and at the corners; fitness
    is the geometric mean of the probabilities of the right answers at the corners.
    """
    state = learner.adapt(EXAMPLE)
    axis = torch.linspace(-EXTENT, EXTENT, CELLS)
    points = torch.cartesian_prod(axis.flip(0), axis).flip(1)
    square = learner.predict(state, points)[:, 0].sigmoid()
    corners = learner.predict(state, CORNERS)[:, 0].sigmoid()
    differ = CORNERS.prod(-1) < 0
    right = torch.where(differ, corners, 1 - corners)
    return {
        "square": numbers(square),
        "corners": numbers(corners),
        "fitness": numbers(right.clamp_min(1e-6).log().mean().exp())[0],
        "right": int(((corners > 0.5) == differ).sum()),
    }


PIECE = Piece(
    "evolution",
    "The best networks of generations that evolve to compute exclusive or.",
    run,
    record(
        seed=SEED,
        add=SHARE,
        generations={"type": "integer", "minimum": 1, "maximum": GENERATIONS},
    ),
    record(
        generation=COUNT,
        species=COUNT,
        nodes=array(record(id=COUNT, kind={"type": "string"})),
        edges=array(
            record(**{"from": COUNT, "to": COUNT, "weight": {"type": "number"}})
        ),
        square=array(SHARE),
        corners=array(SHARE),
        fitness=SHARE,
        right=COUNT,
    ),
)
