"""Boxes in images: rows of left, top, right and bottom in pixels; right and bottom are
the first pixels outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Boxes(NamedTuple):
    """The boxes of an image (n, 4) and their scores (n,), the best first."""

    boxes: Tensor
    scores: Tensor


def area(boxes: Tensor) -> Tensor:
    """The areas (...,) of boxes (..., 4)."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (n, m) of boxes a (n, 4) and b (m, 4)."""
    low = torch.maximum(a[:, None, :2], b[:, :2])
    high = torch.minimum(a[:, None, 2:], b[:, 2:])
    both = (high - low).clamp_min(0).prod(-1)
    return both / (area(a)[:, None] + area(b) - both).clamp_min(1e-9)


def suppressed(found: Boxes, overlap: float = 0.4) -> list[int]:
    """Which boxes to keep, the best first, so that none overlaps a better one
    (non-maximum suppression).
    """
    left = found.scores.argsort(descending=True)
    kept: list[int] = []
    while len(left):
        best = left[0]
        kept.append(int(best))
        apart = overlaps(found.boxes[best][None], found.boxes[left])[0] <= overlap
        apart[0] = False
        left = left[apart]
    return kept


def average_precision(
    found: Sequence[Boxes], truth: Sequence[Tensor], overlap: float = 0.5
) -> float:
    """The area under the curve of precision over recall, for the boxes that were found
    in images and the true boxes (n, 4) in each.

    A box is right where its intersection over union with a true box that no better box
    has matched is at least `overlap`. Precision at a recall is the highest at that
    recall or above: Everingham, Van Gool, Williams, Winn and Zisserman 2010, "The
    Pascal visual object classes (VOC) challenge", IJCV 88, section 4.2, over all
    recalls, as in the challenges since 2010.
    """
    scores: list[float] = []
    right: list[bool] = []
    for boxes, true in zip(found, truth, strict=True):
        free = torch.ones(len(true), dtype=torch.bool)
        for i in boxes.scores.argsort(descending=True).tolist():
            scores.append(float(boxes.scores[i]))
            shares = overlaps(boxes.boxes[i][None], true)[0].where(free, -1.0)
            best = int(shares.argmax()) if len(true) else -1
            right.append(best >= 0 and float(shares[best]) >= overlap)
            if right[-1]:
                free[best] = False
    total = sum(map(len, truth))
    if not right or not total:
        return 0.0
    order = torch.tensor(scores).argsort(descending=True, stable=True)
    hits = torch.tensor(right)[order].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    best_after = precision.flip(0).cummax(0).values.flip(0)
    return float((best_after * hits).sum() / total)
