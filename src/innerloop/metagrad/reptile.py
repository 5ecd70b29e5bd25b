"""Reptile: move the initialization toward the adapted weights."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor

from innerloop.core.descent import Descent, Weights
from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.metagrad.base import Draw, Gradient, Grads, MetaGradient


class Reptile(MetaGradient):
    """Reptile: moves the initialization toward the adapted weights.

    theta <- theta - lr * (theta - mean over tasks of adapted(theta))

    Reference: Nichol, Achiam and Schulman 2018, "On first-order meta-learning
    algorithms", arXiv:1803.02999, Algorithms 1 (one task, serial) and 2 (batched).

    As there, a task's support and query examples are adapted to together; the metrics
    are those of these examples.
    """

    requires: ClassVar[type[Learner]] = Descent

    def check(self, learner: Learner, tasks: TaskDistribution) -> None:
        super().check(learner, tasks)
        check_initialization(learner)

    def __call__(self, learner: Learner, draw: Draw) -> Gradient:
        return Gradient(*reptile(learner, draw()))


def check_initialization(learner: Learner) -> Descent:
    """The learner as one that adapts learned initial weights.

    Raises InnerloopTypeError where it does not, or where its head is computed anew for
    every task, so that its initialization cannot be moved; InnerloopError without inner
    steps, where it would stay as it is.
    """
    if not isinstance(learner, Descent):
        raise InnerloopTypeError(
            "reptile moves an initialization, so it needs a learner that adapts "
            f"weights, such as MAML; got {type(learner).__name__}"
        )
    if not learner.learned_initialization:
        raise InnerloopTypeError(
            f"reptile moves an initialization, and this {type(learner).__name__} does "
            "not adapt all of its own: use a learned head, or backprop"
        )
    if not learner.inner_steps:
        raise InnerloopError(
            "reptile moves the initialization towards the adapted weights, so "
            f"inner_steps of {type(learner).__name__} must be at least 1; got 0"
        )
    return learner


def reptile(learner: Learner, tasks: Task) -> tuple[Grads, Metrics]:
    """The mean over `tasks` of theta - adapted(theta), by parameter name, and
    metrics.
    """
    descent = check_initialization(learner)
    theta = {n: p for n, p in descent.net.named_parameters() if p.requires_grad}

    def displacement(task: Task) -> tuple[Weights, Tensor, Metrics]:
        examples = Examples(*(torch.cat(pair) for pair in zip(*task, strict=True)))
        with torch.no_grad():
            adapted = descent.adapt(examples)
            outputs = descent.predict(adapted, examples.x)
        moved = {f"net.{name}": w.detach() - adapted[name] for name, w in theta.items()}
        likelihood = descent.likelihood
        return (
            moved,
            likelihood.nll(outputs, examples.y),
            likelihood.metrics(outputs, examples.y),
        )

    moved, losses, metrics = descent.mapped(displacement, tasks)
    means = {name: value.mean() for name, value in metrics.items()}
    grads = cast(Grads, {name: m.mean(0) for name, m in moved.items()})
    return grads, {"loss": losses.mean(), **means}
