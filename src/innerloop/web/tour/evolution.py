"""The evolution of a network that computes exclusive or."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from innerloop.learners.memory.neat import NEAT
from innerloop.metagrad.neat import NEATEvolution
from innerloop.tasks.xor import ExclusiveOr
from innerloop.web.http import COUNT, SHARE, array, record
from innerloop.web.tour.piece import SEED, Piece, numbers

GENERATIONS, POPULATION, TASKS = 60, 100, 8
CELLS, EXTENT = 16, 1.5  # the square on which the output is drawn
NEGATIONS = {"xor": 0.0, "either": 0.25}  # share of tasks with the negation
INPUTS = ("x1", "x2", "label", "labeled", "bias", "bias")


def run(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The best network of every generation."""
    tasks = ExclusiveOr(agree=NEGATIONS[body["problem"]])
    generator = torch.Generator().manual_seed(body["seed"])
    learner = NEAT.build(tasks.spec, hidden=6)
    weight = learner.network.weight
    weight.data.zero_()  # all of them are drawn from the seed
    evolution = NEATEvolution(population=POPULATION, add_node=0.1, add_link=0.15)
    evolution.prepare(learner, tasks, generator)
    for generation in range(1, body["generations"] + 1):
        move = evolution(learner, lambda: tasks.sample(TASKS, generator))
        weight.data.copy_(*move.theta.values())
        yield {"generation": generation, **shown(learner), **measured(learner, tasks)}
