"""Backpropagation through the adaptation: the exact meta-gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Task
from innerloop.engine.functional import named_tensors
from innerloop.metagrad.base import Draw, Gradient, Grads, MetaGradient, chunks
from innerloop.metagrad.recording import recorded


class Backprop(MetaGradient):
    """Backpropagation: the exact gradient of the loss through the adaptation.

    theta <- theta - lr * d/dtheta mean over tasks of loss(theta, task)

    Reference: Finn, Abbeel and Levine 2017, "Model-agnostic meta-learning for fast
    adaptation of deep networks", arXiv:1703.03400, Algorithm 1.
    """

    def __call__(self, learner: Learner, draw: Draw) -> Gradient:
        return Gradient(*backprop(learner, draw()))


def backprop(learner: Learner, tasks: Task) -> tuple[Grads, Metrics]:
    """The gradient of the mean loss over `tasks` by parameter name, and metrics.

    Tasks are processed a few at a time, one by one where the learner has `recompute`
    set, so that memory does not grow with their number.
    """
    parameters, _ = named_tensors(learner)
    grads: Grads = {name: None for name, p in parameters.items() if p.requires_grad}
    parts = chunks(learner, tasks)
    if len(parts) == 1:
        loss, metrics, gradient = loss_and_gradient(learner, *parts)
        return dict(zip(grads, gradient, strict=True)), {"loss": loss, **metrics}
    means: Metrics = {}
    for chunk in parts:
        loss, metrics, gradient = loss_and_gradient(learner, chunk)
        share = len(chunk.query.x) / len(tasks.query.x)
        for name, g in zip(grads, gradient, strict=True):
            if g is not None:
                g = g if share == 1 else g * share
                grads[name] = g if (before := grads[name]) is None else before + g
        means = {
            name: means.get(name, 0) + value * share
            for name, value in {"loss": loss, **metrics}.items()
        }
    return grads, means


def loss_and_gradient(
    learner: Learner, tasks: Task
) -> tuple[Tensor, Metrics, tuple[Tensor | None, ...]]:
    """The loss of `learner(tasks)`, its metrics, and its gradient for the parameters
    that require one, in their order.
    """
    return recorded(learner, _loss_and_gradient, tasks)


def _loss_and_gradient(
    learner: Learner, tasks: Task
) -> tuple[Tensor, Metrics, tuple[Tensor | None, ...]]:
    loss, metrics = learner(tasks)
    theta = [p for p in learner.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, theta, allow_unused=True)
    return loss.detach(), metrics, grads
