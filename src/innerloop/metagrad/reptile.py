"""Reptile: move the initialization toward the adapted weights."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from innerloop.core.descent import Descent, Weights
from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import Count
from innerloop.metagrad.base import Draw, Gradient, Grads, MetaGradient
from innerloop.metagrad.recording import recorded


class Reptile(MetaGradient):
    """Reptile: moves the initialization toward the adapted weights.

    theta <- theta - lr * (theta - mean over tasks of adapted(theta))

    Reference: Nichol, Achiam and Schulman 2018, "On first-order meta-learning
    algorithms", arXiv:1803.02999, Algorithms 1 (one task, serial) and 2 (batched).

    As there, a task's support and query examples are adapted to together. The metrics
    are those of the last step's examples, after it.

    Args:
        parts: in how many equal parts the examples are split, each with targets of all
            kinds; inner steps use one part after the other, as mini-batches. With
            batch normalization, parts as large as a support set suit best.
    """

    parts: Count = 1
    # one step would be training on all tasks at once
    learner_defaults: ClassVar[dict[str, Any]] = {"inner_steps": 10}
    requires: ClassVar[type[Learner]] = Descent

    def check(self, learner: Learner, tasks: TaskDistribution) -> None:
        super().check(learner, tasks)
        check_initialization(learner)

    def __call__(self, learner: Learner, draw: Draw) -> Gradient:
        return Gradient(*reptile(learner, draw(), parts=self.parts))


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


def reptile(learner: Learner, tasks: Task, *, parts: int = 1) -> tuple[Grads, Metrics]:
    """The mean over `tasks` of theta - adapted(theta), by parameter name, and
    metrics; inner step i uses part i of `parts` equal ones of the examples.
    """
    descent = check_initialization(learner)
    count = len(tasks.support.x[0]) + len(tasks.query.x[0])
    if parts > count:
        raise InnerloopError(
            f"reptile needs an example for every part; got {parts} parts and {count} "
            "examples: use fewer parts, or more queries"
        )
    examples, weights = recorded(descent, _start, tasks)
    part = examples
    for step in range(descent.inner_steps):
        if parts > 1:
            part = Examples(
                *(value[:, step % parts :: parts].contiguous() for value in examples)
            )
        weights = recorded(descent, _step, weights, part)
    return recorded(descent, _displacement, weights, part)


def _start(descent: Descent, tasks: Task) -> tuple[Examples, Weights]:
    """All examples of a task in the order of their targets, so that every n-th example
    has targets of all kinds; and the initial weights.
    """

    def one(task: Task) -> tuple[Examples, Weights]:
        x, y = (torch.cat(pair) for pair in zip(*task, strict=True))
        places = torch.arange(1, y.shape[-1] + 1, device=y.device, dtype=y.dtype)
        order = (y @ places).argsort(stable=True)
        examples = Examples(x[order], y[order])
        weights = descent.init(examples)
        return examples, {name: w.clone() for name, w in weights.items()}

    with torch.no_grad():
        return descent.mapped(one, tasks)


def _step(descent: Descent, weights: Weights, examples: Examples) -> Weights:
    with torch.no_grad():
        return descent.mapped(descent.step, weights, examples)


def _displacement(
    descent: Descent, weights: Weights, examples: Examples
) -> tuple[Grads, Metrics]:
    theta = {n: p for n, p in descent.net.named_parameters() if p.requires_grad}

    def one(weights: Weights, examples: Examples) -> tuple[Weights, Tensor, Metrics]:
        adapted = descent.finalize(weights, examples)
        outputs = descent.predict(adapted, examples.x)
        moved = {f"net.{name}": w.detach() - adapted[name] for name, w in theta.items()}
        likelihood = descent.likelihood
        return (
            moved,
            likelihood.nll(outputs, examples.y),
            likelihood.metrics(outputs, examples.y),
        )

    with torch.no_grad():
        moved, losses, metrics = descent.mapped(one, weights, examples)
    means = {name: value.mean() for name, value in metrics.items()}
    grads = cast(Grads, {name: m.mean(0) for name, m in moved.items()})
    return grads, {"loss": losses.mean(), **means}
