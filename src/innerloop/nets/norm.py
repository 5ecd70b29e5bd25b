"""Normalisation that is honest about its statistics and right under `vmap` and
`grad`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.engine.norm_stats import Normalizer
from innerloop.engine.precision import widened


class BatchNorm(Normalizer):
    """Batch normalisation over all but the channel axis, (n, channels, ...) in and out.
    Ioffe and Szegedy 2015, arXiv:1502.03167.

    Which statistics it uses is said in `innerloop.engine.norm_stats`. Under functorch
    transforms, and where the moments are wanted, it is written out from mean and
    variance: `vmap` of the built-in layer with its affine part gives wrong second-order
    gradients without a warning.
    """

    def __init__(self, features: int, eps: float = 1e-5):
        super().__init__(features)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        if not self.uses_batch():
            return self._normalise(x, self.mean, self.var)
        if (
            not self.noted()
            and x.numel() > x.shape[1]
            and not torch._C._are_functorch_transforms_active()
        ):
            return F.batch_norm(
                x, None, None, self.weight, self.bias, training=True, eps=self.eps
            )
        over = [axis for axis in range(x.dim()) if axis != 1]
        var, mean = torch.var_mean(widened(x), over, correction=0)
        self.note(mean, var)
        return self._normalise(x, mean, var)

    def affine(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """The scale and the shift (channels,) that normalising by these statistics
        comes to.
        """
        scale = self.weight * torch.rsqrt(var + self.eps)
        return scale, self.bias - mean * scale

    def _normalise(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale, shift = self.affine(mean, var)
        return (x * scale.view(shape) + shift.view(shape)).to(x.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (..., features). Ba, Kiros and Hinton
    2016, arXiv:1607.06450, eq. (4).

    The scale and the shift are written out, for the same reason as in `BatchNorm`.
    """

    def __init__(self, features: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight, self.bias = (
            nn.Parameter(torch.ones(features)),
            nn.Parameter(torch.zeros(features)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (
            F.layer_norm(x, self.weight.shape, eps=self.eps) * self.weight + self.bias
        )
