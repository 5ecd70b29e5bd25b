"""A 3x3 convolution with a stride of 1 or 2, normalization of every channel,
max-pooling and ReLU as one operation, with its first and second derivatives.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from innerloop.nets.fused_conv import native

THIRD = (
    "convolution blocks in float32 on a CPU have no third derivative; expected at most "
    "two; use float64 or set INNERLOOP_NATIVE=0"
)


def block(
    x: Tensor,
    weight: Tensor,
    a: Tensor,
    b: Tensor,
    eps: float | None,
    pool: int,
    relu: bool,
    stride: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """ReLU of the max-pooled, normalized convolution of x (n, in, height, width) with
    weight (out, in, 3, 3) and a padding of 1, and its moments.

    With `eps`, channels are normalized by their own mean and variance (out,), which
    come back too, then scaled by a and shifted by b (out,); without, they are scaled by
    a and shifted by b. For what `native.usable` admits; it can be differentiated twice.

    Reference for the products in float32: Lavin and Gray 2015, "Fast algorithms for
    convolutional neural networks", arXiv:1509.09308, section 4.1.
    """
    mapped = torch._C._are_functorch_transforms_active()
    keep = torch.is_grad_enabled() and (
        mapped or any(t.requires_grad for t in (x, weight, a, b))
    )
    # native.Settings
    settings = (
        -1.0 if eps is None else eps,
        stride,
        pool,
        relu,
        torch.is_autocast_enabled(x.device.type),
        keep,
    )
    alone = (t.unsqueeze(0) for t in (x.float(), weight, a.float(), b.float()))
    out, mean, var, _, _ = Block.apply(*alone, *settings)  # pyright: ignore[reportGeneralTypeIssues]
    # not by index: the gradient of that fills and copies
    return out.squeeze(0), mean.squeeze(0), var.squeeze(0)


class Block(Function):
    """`block` for several tasks at once: arguments and results have a leading axis of
    tasks. Beyond its results it hands out y and the extremes.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return native.block(*inputs)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]
    ) -> None:
        x, filters, a, b, *ctx.settings = inputs
        _, mean, var, y, extreme = output
        ctx.mark_non_differentiable(extreme)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, filters, a, b, mean, var, y, extreme)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        g, g_mean, g_var, g_y, _ = grads
        if g is None:
            g = torch.zeros_like(ctx.saved_tensors[-1]).movedim(-1, -3)
        given = (
            g,
            g_mean,
            g_var,
            g_y,
            *ctx.saved_tensors,
            ctx.needs_input_grad[0],
            *ctx.settings,
        )
        gx, *others = BlockBackward.apply(*given)  # pyright: ignore[reportGeneralTypeIssues]
        return gx if ctx.needs_input_grad[0] else None, *others, *[None] * 6

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return folded(Block, info.batch_size, in_dims, inputs)


class BlockBackward(Function):
    """The gradient of `Block` for x (empty where it is not wanted), filters, a and b,
    from those for out, the moments and y.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return native.block_backward(*inputs)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]
    ) -> None:
        ctx.settings = inputs[13:]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:12])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        g, g_mean, g_var, g_y, *inputs = ctx.saved_tensors
        if g_y is not None:
            raise NotImplementedError(THIRD)
        with_x = ctx.needs_input_grad[4]
        grads = BlockDoubleBackward.apply(
            g, g_mean, g_var, *inputs, *cotangents, with_x, *ctx.settings
        )
        gg, gg_mean, gg_var, gx, gw, ga, gy = grads  # pyright: ignore[reportGeneralTypeIssues]
        kept = inputs[-2].numel() > 0
        moments = (
            None if g_mean is None else gg_mean,
            None if g_var is None else gg_var,
        )
        return (
            gg,
            *moments,
            None,
            gx if with_x else None,
            gw,
            ga,
            None,
            None,
            None,
            gy if kept else None,
            *[None] * 8,
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return folded(BlockBackward, info.batch_size, in_dims, inputs)


class BlockDoubleBackward(Function):
    """The gradient of `BlockBackward` for g, g_mean, g_var, x, filters, a and y, which
    stands for what goes through it.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return native.block_double_backward(*inputs)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]
    ) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        raise NotImplementedError(THIRD)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return folded(BlockDoubleBackward, info.batch_size, in_dims, inputs)


# torch asks for it at every call, and working it out takes longer than a small block
for function in (Block, BlockBackward, BlockDoubleBackward):
    function.forward.__signature__ = inspect.signature(function.forward)  # pyright: ignore[reportFunctionMemberAccess]


def folded(
    function: type[Function],
    size: int,
    in_dims: tuple[int | None, ...],
    inputs: tuple[Any, ...],
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """`function` over one more axis of tasks, joined with the one it has."""

    def fold(value: Any, dim: int | None) -> Any:
        if not isinstance(value, Tensor):
            return value
        return (
            value.unsqueeze(0).expand(size, *value.shape)
            if dim is None
            else value.movedim(dim, 0)
        ).flatten(0, 1)

    outputs = function.apply(
        *(fold(value, dim) for value, dim in zip(inputs, in_dims, strict=True))
    )
    return tuple(out.unflatten(0, (size, len(out) // size)) for out in outputs), (
        0,
    ) * len(outputs)  # pyright: ignore[reportOptionalIterable]
