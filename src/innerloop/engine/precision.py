"""Precision of arithmetic."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Precision = Literal["float32", "bf16"]


def widened(values: Tensor) -> Tensor:
    """Half-precision values as float32, others as they are: losses are computed in at
    least single precision.
    """
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
