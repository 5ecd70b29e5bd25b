"""Gradient steps on a few tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

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
    loss: Callable[[Tensors], Tensor], start: Mapping[str, Tensor], rate: float
) -> Iterator[Tensors]:
    """`start` after 0, 1, 2, ... steps of Adam on `loss`, with the usual moments and
    without second derivatives. Kingma and Ba 2015, "Adam: a method for stochastic
    optimization", arXiv:1412.6980, Algorithm 1.
    """
    at = dict(start)
    mean = {name: torch.zeros_like(t) for name, t in at.items()}
    square = dict(mean)
    for step in itertools.count(1):
        yield at
        gradients = torch.func.grad(loss)(at)
        moved = {}
        for name, gradient in gradients.items():
            g = gradient.detach()
            mean[name] = mean[name].lerp(g, 0.1)
            square[name] = square[name].lerp(g.square(), 0.001)
            size = (square[name] / (1 - 0.999**step)).sqrt() + 1e-8
            moved[name] = at[name] - rate / (1 - 0.9**step) * mean[name] / size
        at = moved
