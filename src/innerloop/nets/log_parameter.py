"""Numbers that stay positive while they are learned."""

from __future__ import annotations

import math

import torch
from torch import nn

from innerloop.engine.errors import InnerloopError


def positive(value: float, name: str) -> nn.Parameter:
    """The logarithm of `value`, to be learned. Raises ValueError, with its name, for
    one that is not positive.
    """
    if not value > 0:
        raise InnerloopError(f"{name} must be positive, not {value}")
    return nn.Parameter(torch.tensor(math.log(value)))
