"""Gradient steps on a few tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def descend(
    loss: Callable[[Tensors], Tensor],
    start: Mapping[str, Tensor],
    rates: Mapping[str, Tensor | float],
    steps: int,
    first_order: bool = False,
) -> Tensors:
    """`start` after so many steps of gradient descent on `loss`, each tensor at its own
    rate; differentiable, through gradients too unless `first_order`.
    """
    at = dict(start)
    for _ in range(steps):
        gradients = torch.func.grad(loss)(at)
        at = {
            name: t
            - rates[name]
            * (gradients[name].detach() if first_order else gradients[name])
            for name, t in at.items()
        }
    return at
