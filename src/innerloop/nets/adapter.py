"""What is trained on top of vectors from a frozen encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.task import TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.precision import widened


class Adapter(nn.Module):
    """A linear map of vectors that starts at the identity: (n, *x_shape) to (n,
    features), vectors of length 8.

    z = 8 u / |u|, u = x + W x / sqrt(features), x scaled to length 1 and W = 0 at
    first

    Without training, an angle between outputs is that between inputs, so that a
    prototypical network with it predicts the nearest class mean of the frozen vectors.
    The length is that of `TextEncoder`, at which a distance, a step of an inner loop
    and a ridge penalty have their usual sizes. The division by sqrt(features) keeps the
    steps of Adam small, which would otherwise move a wide map far in a few steps. In
    training mode, Gaussian noise is added to the inputs; it keeps the map
    from fitting directions in which the training classes hardly differ.

    Args:
        features: number of the inputs, and of the outputs.
        noise: length of the noise, as a fraction of that of the input.
    """

    length = 8.0

    def __init__(self, features: int, noise: float = 0.5):
        super().__init__()
        self.noise = noise
        self.weight = nn.Parameter(torch.zeros(features, features))

    def forward(self, x: Tensor) -> Tensor:
        x = F.normalize(widened(x.flatten(1)), dim=-1)
        if self.training and self.noise:
            x = x + self.noise / x.shape[1] ** 0.5 * torch.randn_like(x)
            x = F.normalize(x, dim=-1)
        u = x + F.linear(x, self.weight) / x.shape[1] ** 0.5
        return self.length * F.normalize(u, dim=-1)


def adapter(spec: TaskSpec) -> Adapter:
    """An adapter for the inputs of `spec`. Raises InnerloopError unless they are
    vectors.
    """
    if len(spec.x_shape) != 1:
        raise InnerloopError(
            f"adapter needs vectors; got inputs of shape {spec.x_shape}: choose an "
            "encoder for them, such as conv4"
        )
    return Adapter(spec.x_size)
