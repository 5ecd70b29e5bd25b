"""Less memory for more time: intermediate results are discarded and computed again in
the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import get_device_states, set_device_states

from innerloop.engine.functional import functional_call


class Calling(nn.Module):
    """A function that uses a module, as a module."""

    def __init__(self, module: nn.Module, function: Callable[..., Any]):
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *trees: Any) -> Any:
        return self.function(*trees)


def checkpointed(module: nn.Module, function: Callable[..., Any], *trees: Any) -> Any:
    """`function(*trees)`, a pytree of tensors, storing only its arguments for the
    backward pass. Chen, Xu, Zhang and Guestrin 2016, "Training deep nets with sublinear
    memory cost", arXiv:1604.06174.

    Gradients reach the tensors in `trees` and the parameters of `module`, which the
    function may use. Works under `vmap`, where `torch.utils.checkpoint` does not; not
    inside `torch.func.grad`.
    """
    leaves, shape = tree_flatten(trees)
    theta = {
        f"module.{name}": p for name, p in module.named_parameters() if p.requires_grad
    }
    calling, shapes = Calling(module, function), []

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        args = tree_unflatten(list(tensors[: len(leaves)]), shape)
        own = dict(zip(theta, tensors[len(leaves) :], strict=True))
        results, *shapes[:] = tree_flatten(functional_call(calling, own, args))
        return tuple(
            r.view_as(r) if any(r is t for t in tensors) else r for r in results
        )

    device = leaves[0].device.type
    context = (
        torch.is_autocast_enabled(device),
        torch.get_autocast_dtype(device),
        torch.get_rng_state(),
        *get_device_states(*leaves),
    )
    results = _Recomputed.apply(flat, context, *leaves, *theta.values())
    return tree_unflatten(list(results), shapes[0])  # pyright: ignore[reportArgumentType]


class _Recomputed(Function):
    """A function of tensors, computed without a graph, and again with one."""

    @staticmethod
    def forward(
        function: Callable[..., Any], context: Any, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return function(*tensors)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]
    ) -> None:
        ctx.function, ctx.context, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        autocast, dtype, state, devices, states = ctx.context
        wanted = ctx.needs_input_grad[2:]
        device = ctx.saved_tensors[0].device.type
        with (
            torch.enable_grad(),
            torch.random.fork_rng(devices),
            torch.autocast(device, dtype, enabled=autocast),
        ):
            torch.set_rng_state(state)
            set_device_states(devices, states)
            at = [
                t.detach().requires_grad_(want)
                for t, want in zip(ctx.saved_tensors, wanted, strict=True)
            ]
            pairs = [
                (out, g)
                for out, g in zip(ctx.function(*at), grads, strict=True)
                if out.requires_grad
            ]
            if not pairs:  # such as a first step without second derivatives
                return None, None, *(None for _ in wanted)
            outputs, cotangents = zip(*pairs, strict=True)
            found = iter(
                torch.autograd.grad(
                    outputs,
                    [t for t, want in zip(at, wanted, strict=True) if want],
                    cotangents,
                    allow_unused=True,
                )
            )
        return None, None, *(next(found) if want else None for want in wanted)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[Any, Any]:
        function, context, *tensors = inputs
        outputs = _Recomputed.apply(
            torch.vmap(function, in_dims[2:], randomness="different"), context, *tensors
        )
        return outputs, (0,) * len(outputs)  # pyright: ignore[reportArgumentType]
