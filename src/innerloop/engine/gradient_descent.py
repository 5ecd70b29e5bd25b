"""Gradient steps on a few tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from innerloop.engine.attention import differentiable_attention

Tensors = dict[str, Tensor]


def descend(
    loss: Callable[[Tensors], Tensor],
    start: Mapping[str, Tensor],
    rates: Mapping[str, Tensor | float],
    steps: int,
    first_order: bool = False,
) -> Tensors:
    """`start` after `steps` steps of gradient descent on `loss`, each tensor with its
    own rate; differentiable, with second derivatives unless `first_order`.
    """
    at = dict(start)
    second_order = torch.is_grad_enabled() and not first_order
    for _ in range(steps):
        with differentiable_attention(second_order):
            gradients = torch.func.grad(loss)(at)
        at = {
            name: t
            - rates[name]
            * (gradients[name].detach() if first_order else gradients[name])
            for name, t in at.items()
        }
    return at


def adam(
    loss: Callable[[Tensors], Tensor],
    start: Mapping[str, Tensor],
    rate: float,
    steps: int,
) -> Tensors:
    at = dict(start)
    mean = {n: torch.zeros_like(t) for n, t in at.items()}
    square = {n: torch.zeros_like(t) for n, t in at.items()}
    for k in range(1, steps + 1):
        gradients = torch.func.grad(loss)(at)
        for n, g in gradients.items():
            mean[n] = 0.9 * mean[n] + 0.1 * g
            square[n] = 0.999 * square[n] + 0.001 * g * g
            at[n] = at[n] - rate * (mean[n] / (1 - 0.9**k)) / (
                (square[n] / (1 - 0.999**k)).sqrt() + 1e-8
            )
    return at
