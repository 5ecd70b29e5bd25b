"""What learners that imagine share."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from innerloop.core.task import Examples, TaskSpec
from innerloop.nets.conv import Conv4
from innerloop.nets.registry import encoder, flat_features


@runtime_checkable
class ExampleGenerator(Protocol):
    """A learner that makes new examples of a task's classes."""

    def imagine(
        self, support: Examples, count: int, generator: torch.Generator
    ) -> Tensor:
        """`count` new inputs of every class of the support set: (ways, count,
        *x_shape), images in 0..1.
        """
        ...


class Features(nn.Module):
    """Inputs (n, *x_shape) to features (n, width) that tell where things are:
    convolutions that end in maps, and a linear layer with ReLU.
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
    """Standard normal numbers from a generator, where `like` is."""
    return torch.randn(shape, generator=generator).to(like)
