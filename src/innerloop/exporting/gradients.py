"""The gradients of convolution and pooling by operations that ONNX has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    wanted: list[bool],
) -> Any:
    """The gradients for the input, the filters and the bias: both of the first are
    convolutions with the gradient of the result.
    """
    if transposed or groups != 1:
        return NotImplemented
    size, filters = x.shape[2:], weight.shape[2:]
    of_x = of_weight = of_bias = None
    if wanted[0]:
        missing = [
            size[i]
            - (grad.shape[2 + i] - 1) * stride[i]
            + 2 * padding[i]
            - dilation[i] * (filters[i] - 1)
            - 1
            for i in range(len(size))
        ]
        of_x = aten.convolution.default(
            grad, weight, None, stride, padding, dilation, True, missing, 1
        )
    if wanted[1]:
        swapped = aten.convolution.default(
            x.transpose(0, 1),
            grad.transpose(0, 1),
            None,
            dilation,
            padding,
            stride,
            False,
            [0] * len(size),
            1,
        )
        for axis, length in enumerate(filters, 2):
            swapped = swapped.narrow(axis, 0, length)
        of_weight = swapped.transpose(0, 1)
    if wanted[2]:
        of_bias = grad.sum([0, *range(2, grad.dim())])
    return of_x, of_weight, of_bias


def max_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil: bool,
    indices: Tensor,
) -> Tensor:
    """The gradient for the input: every entry is added at the place of its maximum."""
    places = torch.zeros_like(x).flatten(-2)
    return places.scatter_add(-1, indices.flatten(-2), grad.flatten(-2)).view(x.shape)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: convolution_backward,
    aten.max_pool2d_with_indices_backward.default: max_pool2d_backward,
}
