"""Meta-gradients: how the meta-parameters move. Each takes a learner and a batch of
tasks; gradients by parameter name, and metrics, come back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.func import functional_call

from innerloop.core.descent import Descent, Weights
from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Examples, Task
from innerloop.engine.linear import conjugate_gradient
from innerloop.engine.population import evaluated
from innerloop.engine.replay import replayed

Grads = dict[str, Tensor | None]
MetaGradient = Callable[[Learner, Task], tuple[Grads, Metrics]]
# tasks that `backprop` learns at once have so many numbers in their inputs, or there is
# only one
AT_ONCE = 2**20


def backprop(learner: Learner, tasks: Task) -> tuple[Grads, Metrics]:
    """The exact gradient of the mean loss over `tasks`, through the adaptation.

    A few tasks at a time, one where the learner recomputes, so that memory does not
    grow with their number.
    """
    grads: Grads = {
        name: None for name, p in learner.named_parameters() if p.requires_grad
    }
    means: Metrics = {}
    for part in tasks.split(0 if getattr(learner, "recompute", False) else AT_ONCE):
        loss, metrics, found = loss_and_gradient(learner, part)
        share = len(part.query.x) / len(tasks.query.x)
        for name, g in zip(grads, found, strict=True):
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
    that want one, in their order.
    """
    theta: dict[str, Tensor] = {}
    rest = dict(learner.named_buffers())
    for name, parameter in learner.named_parameters():
        (theta if parameter.requires_grad else rest)[name] = parameter

    def gradient(
        theta: dict[str, Tensor], rest: dict[str, Tensor], tasks: Task
    ) -> tuple[Tensor, Metrics, tuple[Tensor | None, ...]]:
        loss, metrics = functional_call(learner, {**theta, **rest}, (tasks,))
        return (
            loss.detach(),
            metrics,
            torch.autograd.grad(loss, list(theta.values()), allow_unused=True),
        )

    if getattr(learner, "recompute", False):  # a recording takes memory
        return gradient(theta, rest, tasks)
    return replayed(learner, gradient, theta, rest, tasks)


def reptile(learner: Learner, tasks: Task) -> tuple[Grads, Metrics]:
    """From the adapted weights towards the initialisation, so that a step against it
    moves towards what the tasks wanted.

    theta - mean over tasks of adapted(theta)
    Nichol et al. 2018, arXiv:1803.02999, Algorithms 1 (one task, serial) and 2
    (batched) Adapts to support and query examples together, as there; the metrics are
    those of these examples.
    """
    learner = _descent(learner, "reptile")
    if getattr(learner, "head", "learned") == "prototype":
        raise TypeError(
            "reptile moves an initialisation, and a prototype head is made anew for every task: use a learned head, or backprop"
        )
    theta = dict(learner.net.named_parameters())

    def displacement(task: Task) -> tuple[Weights, Tensor, Metrics]:
        examples = Examples(*(torch.cat(pair) for pair in zip(*task, strict=True)))
        with torch.no_grad():
            adapted = learner.adapt(examples)
            outputs = learner.predict(adapted, examples.x)
        moved = {f"net.{name}": w.detach() - adapted[name] for name, w in theta.items()}
        return (
            moved,
            learner.likelihood.nll(outputs, examples.y),
            learner.likelihood.metrics(outputs, examples.y),
        )

    moved, losses, metrics = learner.mapped(displacement, tasks)
    return {name: m.mean(0) for name, m in moved.items()}, {
        "loss": losses.mean(),
        **{k: v.mean() for k, v in metrics.items()},
    }


def implicit(
    learner: Learner, tasks: Task, *, cg_steps: int = 5
) -> tuple[Grads, Metrics]:
    """The meta-gradient at the minimum that adaptation reached, whatever path it took.

    (I + H / lambda)^-1 grad(query loss), H the Hessian of the support loss at the
    adapted weights, by `cg_steps` of conjugate gradient. Rajeswaran et al. 2019,
    arXiv:1909.04630, eq. (6) and Algorithm 2.
    """
    learner = _descent(learner, "implicit")
    strength = getattr(learner, "proximal", 0.0)
    if strength <= 0:
        raise TypeError(
            f"implicit needs a learner with a proximal term, such as IMAML; {type(learner).__name__} has none"
        )
    theta = set(dict(learner.net.named_parameters()))

    def one(task: Task) -> tuple[Weights, Tensor, Metrics]:
        with torch.no_grad():
            adapted = learner.adapt(task.support)
        weights = {name: adapted[name].detach() for name in adapted if name in theta}

        def query_loss(weights: Weights) -> tuple[Tensor, Tensor]:
            outputs = learner.predict(
                learner.finish(weights, task.support), task.query.x
            )
            return learner.likelihood.nll(outputs, task.query.y), outputs

        def support_grad(weights: Weights) -> Weights:
            return torch.func.grad(learner.support_loss)(weights, task.support)

        def matrix(v: Weights) -> Weights:
            hv = torch.func.vjp(support_grad, weights)[1](v)[0]  # H is symmetric
            return {name: v[name] + hv[name] / strength for name in v}

        target, (loss, outputs) = torch.func.grad_and_value(query_loss, has_aux=True)(
            weights
        )
        return (
            conjugate_gradient(matrix, target, cg_steps),
            loss,
            learner.likelihood.metrics(outputs, task.query.y),
        )

    grads, losses, metrics = learner.mapped(one, tasks)
    mean = {f"net.{name}": g.mean(0).detach() for name, g in grads.items()}
    return cast(Grads, mean), {
        "loss": losses.mean().detach(),
        **{k: v.mean() for k, v in metrics.items()},
    }


def es(
    learner: Learner,
    tasks: Task,
    *,
    sigma: float = 0.05,
    pairs: int = 16,
    ranked: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[Grads, Metrics]:
    """Evolution strategies: the gradient of the loss smoothed by Gaussian noise, from
    losses alone; any learner, differentiable or not.

    1 / (2 n sigma) sum_i (F(theta + sigma e_i) - F(theta - sigma e_i)) e_i
    Salimans et al. 2017, arXiv:1703.03864, section 2 Antithetic pairs on the same tasks
    and random draws, evaluated by vmap; with `ranked`, losses give way to their centred
    ranks (section 2.1).
    """
    if pairs < 1 or sigma <= 0:
        raise ValueError(
            f"es needs at least one pair and a positive sigma, got {pairs} and {sigma}"
        )
    theta = {
        name: p.detach() for name, p in learner.named_parameters() if p.requires_grad
    }
    noise = {
        n: torch.randn(pairs, *p.shape, generator=generator, dtype=p.dtype).to(p.device)
        for n, p in theta.items()
    }
    # (2 pairs, *shape)
    population = {
        n: torch.stack([p + sigma * noise[n], p - sigma * noise[n]], 1).flatten(0, 1)
        for n, p in theta.items()
    }
    # (2 pairs,)
    values = evaluated(learner, lambda tasks: learner(tasks)[0], population, tasks)
    if ranked:
        values = values.argsort().argsort().to(values.dtype) / (len(values) - 1) - 0.5
    weights = (values[0::2] - values[1::2]) / (2 * sigma * pairs)  # (pairs,)
    with torch.autocast(values.device.type, enabled=False):
        grads: Grads = {
            n: torch.tensordot(weights.to(e.dtype), e, 1) for n, e in noise.items()
        }
    with torch.no_grad():
        loss, metrics = learner(tasks)
    return grads, {"loss": loss, **metrics}


def _descent(learner: Learner, who: str) -> Descent:
    if not isinstance(learner, Descent):
        raise TypeError(
            f"{who} moves an initialisation, so it needs a learner whose state is weights, such as MAML; not {type(learner).__name__}"
        )
    return learner


META_GRADIENTS: dict[str, MetaGradient] = {
    "backprop": backprop,
    "reptile": reptile,
    "implicit": implicit,
    "es": es,
}
