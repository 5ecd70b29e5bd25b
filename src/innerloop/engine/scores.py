"""Numbers that tell how good scores are."""

from __future__ import annotations

import torch
from torch import Tensor


def roc_auc(scores: Tensor, positive: Tensor) -> Tensor:
    """The area under the receiver operating characteristic: how often one of two is
    scored higher that is positive, the other not; half for ties.

    scores (m,), positive (m,) zeros and ones. One half where one kind is missing.
    Hanley and McNeil 1982.
    """
    pairs = positive[:, None] * (1 - positive)  # (m, m)
    gap = scores[:, None] - scores
    won = (pairs * ((gap > 0).to(pairs.dtype) + 0.5 * (gap == 0))).sum()
    return torch.where(pairs.sum() > 0, won / pairs.sum().clamp_min(1), 0.5)
