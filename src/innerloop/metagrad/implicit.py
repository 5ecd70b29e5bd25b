"""The implicit meta-gradient, at the minimum that adaptation reaches."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor

from innerloop.core.descent import Descent, Weights
from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.attention import differentiable_attention
from innerloop.engine.errors import InnerloopTypeError
from innerloop.engine.options import Count, NonNegative
from innerloop.engine.solvers import conjugate_gradient
from innerloop.metagrad.base import Draw, Gradient, Grads, MetaGradient
from innerloop.metagrad.recording import recorded


class Implicit(MetaGradient):
    """Implicit MAML: differentiates at the solution of the adaptation.

    (I + H / (lambda + damping))^-1 grad(query loss), H the Hessian of the support loss

    Reference: Rajeswaran, Finn, Kakade and Levine 2019, "Meta-learning with implicit
    gradients", arXiv:1909.04630, eq. (6) and Algorithm 2.

    Where the loss is not convex, the matrix of eq. (6) can be indefinite or nearly
    singular, and few steps of conjugate gradient then return a direction of any length.
    Damping moves its eigenvalues toward 1. The authors' code solves
    (2 I + H / (lambda + 10)) v = grad, which is a damping of lambda + 20 but for the
    length of v.

    Args:
        cg_steps: steps of conjugate gradient that solve the linear system.
        damping: added to lambda in the linear system; 0 is the exact gradient where the
            support loss is convex.
    """

    cg_steps: Count = 5
    damping: NonNegative = 20.0
    requires: ClassVar[type[Learner]] = Descent

    def check(self, learner: Learner, tasks: TaskDistribution) -> None:
        super().check(learner, tasks)
        _proximal(learner)

    def __call__(self, learner: Learner, draw: Draw) -> Gradient:
        found = implicit(learner, draw(), cg_steps=self.cg_steps, damping=self.damping)
        return Gradient(*found)


def _proximal(learner: Learner) -> Descent:
    if not isinstance(learner, Descent) or learner.proximal <= 0:
        raise InnerloopTypeError(
            "implicit needs a learner whose inner loss has a proximal term, such as "
            f"IMAML; {type(learner).__name__} has none"
        )
    return learner


def implicit(
    learner: Learner, tasks: Task, *, cg_steps: int = 5, damping: float = 0.0
) -> tuple[Grads, Metrics]:
    """The implicit meta-gradient of the mean query loss over `tasks`, by parameter
    name, and metrics.
    """
    descent = _proximal(learner)
    # every step is replayed from one recording, however many there are
    weights = recorded(descent, _start, tasks.support)
    for _ in range(descent.inner_steps):
        weights = recorded(descent, _step, weights, tasks.support)
    return recorded(descent, _solution, weights, tasks, options=(cg_steps, damping))


def _start(descent: Descent, support: Examples) -> Weights:
    def one(support: Examples) -> Weights:
        return {name: w.clone() for name, w in descent.init(support).items()}

    with torch.no_grad():
        return descent.mapped(one, support)


def _step(descent: Descent, weights: Weights, support: Examples) -> Weights:
    with torch.no_grad():
        return descent.mapped(descent.step, weights, support)


def _solution(
    descent: Descent, weights: Weights, tasks: Task, cg_steps: int, damping: float
) -> tuple[Grads, Metrics]:
    theta = {n for n, p in descent.net.named_parameters() if p.requires_grad}
    moving = {name: w for name, w in weights.items() if name in theta}
    share = 1 / (descent.proximal + damping)

    def one(weights: Weights, task: Task) -> tuple[Weights, Tensor, Metrics]:
        def query_loss(weights: Weights) -> tuple[Tensor, Tensor]:
            state = descent.finalize(weights, task.support)
            outputs = descent.predict(state, task.query.x)
            return descent.likelihood.nll(outputs, task.query.y), outputs

        def support_loss(weights: Weights) -> Tensor:
            return descent.support_loss(weights, task.support)

        # the Hessian is symmetric; its products share one forward and backward pass
        with differentiable_attention():
            hessian = torch.func.vjp(torch.func.grad(support_loss), weights)[1]

        def matrix(v: Weights) -> Weights:
            (hv,) = hessian(v)
            return {name: v[name].add(hv[name], alpha=share) for name in v}

        target, (loss, outputs) = torch.func.grad_and_value(query_loss, has_aux=True)(
            weights
        )
        metrics = descent.likelihood.metrics(outputs, task.query.y)
        return conjugate_gradient(matrix, target, cg_steps), loss, metrics

    grads, losses, metrics = descent.mapped(one, moving, tasks)
    mean = {f"net.{name}": g.mean(0).detach() for name, g in grads.items()}
    means = {name: value.mean() for name, value in metrics.items()}
    return cast(Grads, mean), {"loss": losses.mean().detach(), **means}
