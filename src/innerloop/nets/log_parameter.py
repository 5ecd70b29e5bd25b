"""Parameters that stay positive while they are learned."""

from __future__ import annotations

import math

import torch
from torch import nn


def log_parameter(value: float) -> nn.Parameter:
    """The logarithm of `value` as a parameter; NaN unless the value is positive, which
    the range of a learner's field ensures.
    """
    return nn.Parameter(torch.tensor(math.log(value) if value > 0 else math.nan))
