"""Meta-gradients that are recorded and replayed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.engine.functional import named_tensors, substituted
from innerloop.engine.graph_cache import graph_cached


def recorded(
    learner: Learner,
    function: Callable[..., Any],
    *trees: Any,
    options: tuple[Hashable, ...] = (),
) -> Any:
    """`function(learner, *trees, *options)`, where `trees` and the result are pytrees
    of tensors without history; recorded and replayed where it can be, see
    `graph_cached`.

    With `learner.recompute` it is always called: a recording would keep the memory that
    recomputing saves.
    """
    if learner.recompute:
        return function(learner, *trees, *options)
    tensors = named_tensors(learner)

    def at(
        parameters: dict[str, Tensor], buffers: dict[str, Tensor], *trees: Any
    ) -> Any:
        there = substituted(learner, {**parameters, **buffers})
        return function(there, *trees, *options)

    return graph_cached(
        learner, at, *tensors, *trees, key=(function.__qualname__, *options)
    )
