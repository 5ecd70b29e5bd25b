"""Scores of predictions."""

from __future__ import annotations

import torch
from torch import Tensor


def roc_auc(scores: Tensor, positive: Tensor) -> Tensor:
    """The area under the receiver operating characteristic curve: the probability that
    a positive example has a higher score than a negative one, with ties counted as one
    half. Hanley and McNeil 1982, "The meaning and use of the area under a receiver
    operating characteristic (ROC) curve", Radiology 143(1).

    scores (m,), positive (m,) zeros and ones, or probabilities. One half where either
    class is missing. Computed from ranks, in memory that grows with m; works under
    vmap.
    """
    positive = positive.double()
    ordered, order = scores.sort()
    negative = (1 - positive)[order].cumsum(0)  # (m,)
    below = torch.cat([torch.zeros_like(negative[:1]), negative])  # (m + 1,)
    first = torch.searchsorted(ordered, scores.contiguous())
    last = torch.searchsorted(ordered, scores.contiguous(), right=True)
    won = (positive * (below[first] + below[last])).sum() / 2
    pairs = positive.sum() * negative[-1]
    area = torch.where(pairs > 0, won / pairs.clamp_min(1e-30), 0.5)
    return area.to(scores.dtype)


def average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    """The area under the precision-recall curve as average precision: the mean over the
    positive examples of the share of positives among the examples with at least their
    score. Of a random order it is the share of positives.

    scores (m,), positive (m,) zeros and ones. 0 where none is positive. Works under
    vmap.
    """
    positive = positive.double()
    ordered, order = scores.sort(descending=True)
    found = positive[order].cumsum(0)  # (m,)
    # the examples with at least the score of each
    count = torch.searchsorted(-ordered, -scores.contiguous(), right=True)
    precision = found[count - 1] / count
    area = (positive * precision).sum() / positive.sum().clamp_min(1e-30)
    return area.to(scores.dtype)
