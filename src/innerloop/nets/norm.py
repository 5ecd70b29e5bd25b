"""Normalization layers with correct derivatives under `vmap` and `grad`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.engine.norm_stats import Normalizer
from innerloop.engine.precision import widened


class BatchNorm(Normalizer):
    """Batch normalization over all axes but the channels, (n, channels, ...) in and
    out. Ioffe and Szegedy 2015, "Batch normalization: accelerating deep network
    training by reducing internal covariate shift", arXiv:1502.03167.

    `innerloop.engine.norm_stats` decides which statistics it uses. Under functorch
    transforms, and where the moments are collected, it is computed from mean and
    variance: second derivatives of torch's layer with its affine part are wrong under
    `vmap`, without a warning.
    """

    def __init__(self, features: int, eps: float = 1e-5):
        super().__init__(features)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        if not self.uses_batch():
            return self._normalize(x, self.mean, self.var)
        if (
            not self.noted()
            and x.numel() > x.shape[1]
            and not torch._C._are_functorch_transforms_active()
        ):
            return F.batch_norm(
                x, None, None, self.weight, self.bias, training=True, eps=self.eps
            )
        axes = [axis for axis in range(x.dim()) if axis != 1]
        var, mean = torch.var_mean(widened(x), axes, correction=0)
        self.note(mean, var)
        return self._normalize(x, mean, var)

    def affine(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """The scale and the shift (channels,) to which normalization by these
        statistics amounts.
        """
        scale = self.weight * torch.rsqrt(var + self.eps)
        return scale, self.bias - mean * scale

    def _normalize(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale, shift = self.affine(mean, var)
        return (x * scale.view(shape) + shift.view(shape)).to(x.dtype)


class LayerNorm(nn.Module):
    """Layer normalization over the last axis (..., features). Ba, Kiros and Hinton
    2016, "Layer normalization", arXiv:1607.06450, eq. (4).

    Scale and shift are applied separately, for the same reason as in `BatchNorm`.

    Args:
        features: size of the last axis.
        scale: initial value of the learned scales.
    """

    def __init__(self, features: int, eps: float = 1e-5, scale: float = 1.0):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.full((features,), scale))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        z = F.layer_norm(x, self.weight.shape, eps=self.eps)
        return z * self.weight + self.bias
