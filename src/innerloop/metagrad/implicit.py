"""The implicit meta-gradient, at the minimum that adaptation reaches."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor

from innerloop.core.descent import Descent, Weights
from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.attention import differentiable_attention
from innerloop.engine.errors import InnerloopTypeError
from innerloop.engine.options import Count
from innerloop.engine.solvers import conjugate_gradient
from innerloop.metagrad.base import Draw, Gradient, Grads, MetaGradient


class Implicit(MetaGradient):
    """Implicit MAML: differentiates at the solution of the adaptation.

    (I + H / lambda)^-1 grad(query loss), H the Hessian of the support loss

    Reference: Rajeswaran, Finn, Kakade and Levine 2019, "Meta-learning with implicit
    gradients", arXiv:1909.04630, eq. (6) and Algorithm 2.

    Args:
        cg_steps: steps of conjugate gradient that solve the linear system.
    """

    cg_steps: Count = 5
    requires: ClassVar[type[Learner]] = Descent

    def check(self, learner: Learner, tasks: TaskDistribution) -> None:
        super().check(learner, tasks)
        _proximal(learner)

    def __call__(self, learner: Learner, draw: Draw) -> Gradient:
        return Gradient(*implicit(learner, draw(), cg_steps=self.cg_steps))


def _proximal(learner: Learner) -> Descent:
    if not isinstance(learner, Descent) or learner.proximal <= 0:
        raise InnerloopTypeError(
            "implicit needs a learner whose inner loss has a proximal term, such as "
            f"IMAML; {type(learner).__name__} has none"
        )
    return learner


def implicit(
    learner: Learner, tasks: Task, *, cg_steps: int = 5
) -> tuple[Grads, Metrics]:
    """The implicit meta-gradient of the mean query loss over `tasks`, by parameter
    name, and metrics.
    """
    descent = _proximal(learner)
    strength = descent.proximal
    theta = {n for n, p in descent.net.named_parameters() if p.requires_grad}

    def one(task: Task) -> tuple[Weights, Tensor, Metrics]:
        with torch.no_grad():
            adapted = descent.adapt(task.support)
        weights = {name: adapted[name].detach() for name in adapted if name in theta}

        def query_loss(weights: Weights) -> tuple[Tensor, Tensor]:
            state = descent.finalize(weights, task.support)
            outputs = descent.predict(state, task.query.x)
            return descent.likelihood.nll(outputs, task.query.y), outputs

        def support_loss(weights: Weights) -> Tensor:
            return descent.support_loss(weights, task.support)

        # the Hessian is symmetric; its products share one forward and backward pass
        with differentiable_attention():
            _, hessian = torch.func.vjp(torch.func.grad(support_loss), weights)

        def matrix(v: Weights) -> Weights:
            (hv,) = hessian(v)
            return {name: v[name] + hv[name] / strength for name in v}

        target, (loss, outputs) = torch.func.grad_and_value(query_loss, has_aux=True)(
            weights
        )
        metrics = descent.likelihood.metrics(outputs, task.query.y)
        return conjugate_gradient(matrix, target, cg_steps), loss, metrics

    grads, losses, metrics = descent.mapped(one, tasks)
    mean = {f"net.{name}": g.mean(0).detach() for name, g in grads.items()}
    means = {name: value.mean() for name, value in metrics.items()}
    return cast(Grads, mean), {"loss": losses.mean().detach(), **means}
