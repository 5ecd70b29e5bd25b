"""A learned update rule as an optimizer of torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from innerloop.engine.errors import InnerloopTypeError
from innerloop.engine.options import NonNegative, checked
from innerloop.experiment import load
from innerloop.learners.optimization.l2o import L2O

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]


class LearnedOptimizer(torch.optim.Optimizer):
    """Trains a module by the update rule that an L2O learner has learned; it is used as
    every optimizer of torch.

    The rule computes the change of a weight from its gradients, so it applies to
    parameters of any number, shape and type: it computes in its own precision, with
    complex parameters as pairs of reals and sparse gradients as dense ones. Expect less
    of it for losses and numbers of steps unlike those of its meta-training. Its memory
    is part of `state_dict()`.

    Reference: Andrychowicz et al. 2016, arXiv:1606.04474.

    Args:
        params: parameters, or dicts with groups of parameters and options.
        learner: a meta-trained L2O learner; its rule is copied.
        lr: factor of the changes that the rule computes, per group; 1 applies them as
            they were learned.

    Raises InnerloopTypeError for another learner.
    """

    def __init__(self, params: Parameters, learner: L2O, *, lr: NonNegative = 1.0):
        if not isinstance(learner, L2O):
            raise InnerloopTypeError(
                "LearnedOptimizer needs an update rule that is learned by L2O; got a "
                f"{type(learner).__name__}"
            )
        self.rule = copy.deepcopy(learner.change).requires_grad_(False)
        super().__init__(params, {"lr": lr})

    @classmethod
    def load(cls, run: str | Path, params: Parameters, *, lr: float = 1.0) -> Self:
        """An optimizer with the rule of an L2O learner from a run folder."""
        return cls(params, load(run), lr=lr)  # pyright: ignore[reportArgumentType]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        lr = float(param_group.get("lr", self.defaults["lr"]))
        checked(type(self).__init__, {"lr": lr}, type(self).__name__)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Change every parameter that has a gradient.

        closure: computes the loss again and calls `backward`; its loss is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._change(p, p.grad.to_dense(), group["lr"])
        return loss

    def _change(self, p: Tensor, grad: Tensor, lr: float | Tensor) -> None:
        rule = self.rule.to(p.device)
        dtype = next(rule.parameters()).dtype
        weights = {"w": _as_real(p).to(dtype)}
        memory = self.state[p].get("memory") or rule.start(weights)
        changes, memory = rule({"w": _as_real(grad).to(dtype)}, weights, memory)
        self.state[p]["memory"] = memory
        _as_real(p).add_(lr * changes["w"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # torch casts state to the dtype of its parameter; the memory has the rule's
        dtype = next(self.rule.parameters()).dtype
        places = (i for g in state_dict["param_groups"] for i in g["params"])
        params = (p for g in self.param_groups for p in g["params"])
        for place, p in zip(places, params, strict=True):
            if place in state_dict["state"]:
                memory = state_dict["state"][place]["memory"]
                self.state[p]["memory"] = [t.to(p.device, dtype) for t in memory]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "rule": self.rule}


def _as_real(tensor: Tensor) -> Tensor:
    """The real and imaginary parts of complex numbers; reals as they are."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
