"""Parts of generative learners."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from innerloop.core.task import TaskSpec
from innerloop.nets.conv import Conv4
from innerloop.nets.registry import encoder, flat_features


class Features(nn.Module):
    """Inputs (n, *x_shape) to features (n, width) that keep positions: convolutions
    that end in maps, and a linear layer with ReLU.
    """

    def __init__(self, spec: TaskSpec, width: int):
        super().__init__()
        self.encoder = (
            Conv4(spec.x_shape, blocks=3, pooled=3)
            if spec.is_image
            else encoder(spec, "flatten")
        )
        self.linear = nn.Linear(flat_features(self.encoder, spec), width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.encoder(x)).relu()


def normal(generator: torch.Generator, *shape: int, like: Tensor) -> Tensor:
    """Standard normal numbers from a generator, on the device and with the dtype of
    `like`.
    """
    return torch.randn(shape, generator=generator).to(like)
