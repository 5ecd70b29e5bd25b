"""A learned update rule as an optimiser of torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from innerloop.engine.errors import InnerloopTypeError
from innerloop.experiment import load
from innerloop.learners.optimization.l2o import L2O


class LearnedOptimizer(torch.optim.Optimizer):
    """Trains any module by a rule that an L2O learner has learned: `zero_grad`,
    `backward` and `step`, as with every optimiser of torch.

    The rule changes a weight by its gradients alone, so it fits parameters of any
    number and shape. It was learned for losses, and for a number of steps, like those
    that it saw: further away from these, expect less. Its memory is in `state_dict()`.
    Andrychowicz et al. 2016, arXiv:1606.04474.

    Raises TypeError where `learner` is none that learned a rule.
    """

    def __init__(
        self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], learner: L2O
    ):
        if not isinstance(learner, L2O):
            raise InnerloopTypeError(
                "an update rule is learned by L2O, and this is a "
                f"{type(learner).__name__}"
            )
        self.rule = copy.deepcopy(learner.change).requires_grad_(False)
        super().__init__(params, {})

    @classmethod
    def load(
        cls, run: str | Path, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]]
    ) -> Self:
        """The rule of a run folder, that `innerloop train l2o` made, for these
        parameters, on the device that they are on.
        """
        params = list(params)  # pyright: ignore[reportAssignmentType]
        learner = load(run)
        optimizer = cls(params, learner)  # pyright: ignore[reportArgumentType]
        optimizer.rule.to(optimizer.param_groups[0]["params"][0].device)
        return optimizer

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Changes every parameter that has a gradient; `closure` evaluates the loss
        anew, where given, and the loss is given back.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    named = {"w": p}
                    memory = self.state[p].get("memory") or self.rule.start(named)
                    changes, self.state[p]["memory"] = self.rule(
                        {"w": p.grad}, named, memory
                    )
                    p.add_(changes["w"])
        return loss
