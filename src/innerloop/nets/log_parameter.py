"""Parameters that stay positive while they are learned."""

from __future__ import annotations

import math

import torch
from torch import nn

from innerloop.engine.errors import InnerloopError


def log_parameter(value: float) -> nn.Parameter:
    """The logarithm of `value` as a parameter; NaN unless the value is positive."""
    return nn.Parameter(torch.tensor(math.log(value) if value > 0 else math.nan))


def positive(value: float, name: str) -> nn.Parameter:
    """The logarithm of `value` as a parameter.

    Raises InnerloopError, with its name, for a value that is not positive.
    """
    if not value > 0:
        raise InnerloopError(f"{name} must be positive, not {value}")
    return log_parameter(value)
