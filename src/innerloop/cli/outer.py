"""How the meta-parameters move, as the command line says it."""

from __future__ import annotations

import argparse
import inspect
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.metagrad import META_GRADIENTS, MetaGradient, es
from innerloop.core.task import TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.metagrad import STRATEGIES
from innerloop.rl import ACTING, Environment
from innerloop.rl.objective import Fitness

OPTIONS = (
    "sigma",
    "pairs",
    "ranked",
    "population",
    "discount",
    "trace",
    "entropy",
    "uses",
)
DESCENT = ("optimizer", "lr", "weight_decay", "warmup", "decay", "clip")


def outer_options(options: argparse.Namespace, how: str) -> dict[str, Any]:
    """The options of the meta-gradient `how` that were set. Raises ValueError for one
    that it does not have.
    """
    accepted = inspect.signature(
        {**META_GRADIENTS, **STRATEGIES, **ACTING}[how]
    ).parameters
    told = {
        name: value for name in OPTIONS if (value := getattr(options, name)) is not None
    }
    for name in told:
        if name not in accepted:
            raise InnerloopError(f"--{name} means nothing to --meta-gradient {how}")
    if how in STRATEGIES:
        for name in DESCENT:
            if getattr(options, name) is not None:
                raise InnerloopError(
                    f"--{name.replace('_', '-')} means nothing to --meta-gradient {how}, which takes steps of its own: see --sigma"
                )
    return told


def stepping(recipe: MetaTrainConfig) -> MetaTrainConfig:
    """The recipe, and for a strategy plain descent at a rate of 1: what it gives is
    where to go.
    """
    if recipe.meta_gradient not in STRATEGIES:
        return recipe
    return replace(
        recipe,
        optimizer="SGD",
        lr=1.0,
        weight_decay=0.0,
        warmup=0,
        decay=False,
        clip=1e9,
    )


def outer(
    learner: Learner,
    how: str,
    told: dict[str, Any],
    noise: torch.Generator,
    tasks: TaskDistribution,
) -> MetaGradient:
    """The meta-gradient of that name with its options, for these tasks; what it draws
    comes of `noise`.
    """
    if how in STRATEGIES:
        return STRATEGIES[how](
            learner,
            seed=noise.initial_seed(),
            objective=Fitness(tasks) if isinstance(tasks, Environment) else None,
            **told,
        )
    if isinstance(tasks, Environment):
        return ACTING[how](tasks, generator=noise, **told)
    return partial(es, generator=noise, **told) if how == "es" else META_GRADIENTS[how]
