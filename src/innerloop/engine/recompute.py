"""Less memory for more time: what a function computes on the way is thrown away and computed again for its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import get_device_states, set_device_states


def recomputed(function: Callable[..., Any], closed_over: Iterable[Tensor], *trees: Any) -> Any:
    """`function(*trees)`, a pytree of tensors, remembering its arguments alone. Chen et al. 2016, arXiv:1604.06174.

    Gradients reach the tensors in `trees` and those of `closed_over`, leaves that the function uses without being given them. Works under `vmap`,
    where torch's own checkpoints do not; not inside `torch.func.grad`.
    """
    leaves, shape = tree_flatten(trees)
    made = []

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        results, *made[:] = tree_flatten(function(*tree_unflatten(list(tensors[: len(leaves)]), shape)))
        return tuple(results)

    theta = [t for t in closed_over if t.requires_grad]
    random = torch.get_rng_state(), *get_device_states(*leaves)
    results = _Recomputed.apply(flat, len(leaves), random, *leaves, *theta)
    return tree_unflatten(list(results), made[0])  # pyright: ignore[reportArgumentType]


class _Recomputed(Function):
    """`function` of the first `count` tensors; those after them are leaves that it uses anyway, here for their gradients."""

    @staticmethod
    def forward(function: Callable[..., Any], count: int, random: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return function(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, ctx.count, ctx.random, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        state, devices, states = ctx.random
        wanted = ctx.needs_input_grad[3:]
        with torch.enable_grad(), torch.random.fork_rng(devices):
            torch.set_rng_state(state)
            set_device_states(devices, states)
            given, theta = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
            at = [t.detach().requires_grad_(want) for t, want in zip(given, wanted, strict=False)] + list(theta)
            outputs = ctx.function(*at)
            found = iter(torch.autograd.grad(outputs, [t for t, want in zip(at, wanted, strict=True) if want], grads, allow_unused=True))
        return None, None, None, *(next(found) if want else None for want in wanted)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Any, Any]:
        function, count, random, *tensors = inputs
        outputs = _Recomputed.apply(torch.vmap(function, in_dims[3:], randomness="different"), count, random, *tensors)
        return outputs, (0,) * len(outputs)  # pyright: ignore[reportArgumentType]
