"""A meta-gradient that several processes compute together."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import TaskDistribution
from innerloop.engine.workers import Workers, joined
from innerloop.metagrad.backprop import Backprop
from innerloop.metagrad.base import (
    Draw,
    Gradient,
    GradientFunction,
    MetaGradient,
    Update,
    Wrapper,
    as_meta_gradient,
)


def distributed(
    meta_gradient: MetaGradient | GradientFunction | None = None,
    workers: Workers | None = None,
) -> MetaGradient:
    """The same meta-gradient, computed by several processes.

    All processes build the same learner and draw the same tasks, and all return the
    same update: that of one process, up to rounding. `prepare` copies the parameters of
    the first process to the others.

    Args:
        meta_gradient: a MetaGradient, or a function of a learner and a batch of tasks
            that returns gradients by parameter name, and metrics, both means over the
            tasks (default: Backprop).
        workers: the processes (default: those that torchrun started with this one).
    """
    rule = as_meta_gradient(meta_gradient if meta_gradient is not None else Backprop())
    rule.workers = workers if workers is not None else joined()
    return rule if rule.workers.size == 1 else Distributed(rule)  # pyright: ignore[reportCallIssue]


def trainable(learner: Learner) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, in the order of their names."""
    found = {n: p for n, p in learner.named_parameters() if p.requires_grad}
    return dict(sorted(found.items()))


class Distributed(Wrapper):
    """A meta-gradient whose meta-steps its `workers` share, see `MetaGradient.part`.

    What the processes computed is added in one operation: a flat tensor with the
    metrics, and the gradients in the order of their names. All of them must call
    `state_dict`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.workers = self.rule.workers
        self.metrics: list[str] = []  # their names, sorted

    def prepare(
        self, learner: Learner, tasks: TaskDistribution, generator: torch.Generator
    ) -> None:
        theta = trainable(learner)
        first = self.workers.once(
            lambda: {name: p.detach().cpu() for name, p in theta.items()}
        )
        with torch.no_grad():
            for name, p in theta.items():
                p.copy_(first[name])
        super().prepare(learner, tasks, generator)

    def __call__(self, learner: Learner, draw: Draw) -> Update:
        update, weight = self.rule.part(learner, draw)
        return update if weight is None else self._mean(learner, update, weight)

    def agreed(self, progress: float) -> float:
        return self.workers.of_first(progress)[0]

    @torch.no_grad()
    def _mean(self, learner: Learner, update: Update, weight: float) -> Update:
        """The weighted mean of the updates of all processes; a gradient that is None in
        all of them stays None.
        """
        theta = trainable(learner)
        dtype = functools.reduce(
            torch.promote_types, (p.dtype for p in theta.values()), torch.float32
        )
        found = update.grads if isinstance(update, Gradient) else update.theta
        device = next(iter(theta.values())).device

        def flat(tensor: Tensor | None, like: Tensor) -> Tensor:
            if tensor is None or not weight:
                return torch.zeros(like.numel(), dtype=dtype, device=device)
            return tensor.detach().to(device, dtype).flatten() * weight

        known, count = self.metrics, 1 + len(theta)
        present = [weight > 0 and found.get(name) is not None for name in theta]
        flags = [bool(set(update.metrics) - set(known)), *present]
        zero = torch.zeros((), device=device)
        parts = [
            torch.tensor(flags, dtype=dtype, device=device),
            *(flat(update.metrics.get(name), zero) for name in known),
            *(flat(found.get(name), p) for name, p in theta.items()),
        ]
        total = self.workers.sum(torch.cat(parts))
        unknown, *somewhere = (total[:count] > 0).tolist()
        if unknown:  # as in the first meta-step
            self._learn_names(set(update.metrics))
            return self._mean(learner, update, weight)
        means = total[count : count + len(known)].unbind()
        pieces = total[count + len(known) :].split([p.numel() for p in theta.values()])
        tensors = {
            name: piece.view_as(p).to(p.dtype) if there else None
            for (name, p), piece, there in zip(
                theta.items(), pieces, somewhere, strict=True
            )
        }
        metrics = dict(zip(known, means, strict=True))
        if isinstance(update, Gradient):
            return Gradient(tensors, metrics)
        moved = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return replace(update, theta=moved, metrics=metrics)

    def _learn_names(self, names: set[str]) -> None:
        """Make the names of the metrics of all processes known to each of them."""
        gathered = self.workers.every(sorted(names))
        self.metrics = sorted({*self.metrics, *(n for part in gathered for n in part)})
