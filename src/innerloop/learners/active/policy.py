"""Policies that choose which example of a pool to label next."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from innerloop.learners.active.pool_features import (
    ENTROPY,
    FEATURES,
    MARGIN,
    NEAREST,
    pool_features,
)

Strategy = Literal["learned", "sequential", "entropy", "margin", "k-center"]
NEVER = -1e9  # the score of an example that has a label


class SelectionPolicy(nn.Module):
    """A network that scores every example of a pool by its features and the mean over
    the pool, and the usual baselines.
    """

    def __init__(self, width: int):
        super().__init__()
        self.read = nn.Linear(FEATURES, width)
        self.score = nn.Sequential(
            nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(
        self,
        within: Tensor,
        y: Tensor,
        labeled: Tensor,
        scale: Tensor,
        strategy: Strategy,
    ) -> Tensor:
        """How useful the label of each example is (..., n), by a strategy; far below
        all others for those that have one, labeled (..., n).

        within: squared distances (n, n). y: labels (n, ways), of which only those in
        `labeled` are read. scale: of distances.
        """
        features = pool_features(within, y, labeled, scale)  # (..., n, FEATURES)
        if strategy == "learned":
            each = self.read(features).relu()  # (..., n, width)
            mean = each.mean(-2, keepdim=True).expand_as(each)
            scores = self.score(torch.cat([each, mean], -1))[..., 0]
        else:
            scores = {
                "sequential": torch.zeros_like(labeled),
                "k-center": features[..., NEAREST],
                "entropy": features[..., ENTROPY],
                "margin": -features[..., MARGIN],
            }[strategy]
        return torch.where(labeled > 0, NEVER, scores)
