"""How the examples of a pool relate to each other and to those with a label, from
squared distances alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

FEATURES = 13
NEAREST, ENTROPY, MARGIN = 1, 3, 5  # columns of `pool_features`


def to_means(
    across: Tensor, within: Tensor, y: Tensor, labeled: Tensor
) -> tuple[Tensor, Tensor]:
    """Squared distances (..., m, ways) to the class means of the examples with a label,
    labeled (..., n), and how many of these a class has (..., ways).

    across: squared distances to single examples (m, n). within: between these (n, n).
    y: their labels (n, ways). The mean squared distance to some points is the squared
    distance to their mean, plus half the mean squared distance between them.
    """
    of_class = labeled[..., None] * y  # (..., n, ways)
    count = of_class.sum(-2)
    weights = of_class / count.clamp_min(1)[..., None, :]
    # small differences of large numbers
    with torch.autocast(across.device.type, enabled=False):
        spread = 0.5 * (weights * (within @ weights)).sum(-2, keepdim=True)
        return (across @ weights - spread).clamp_min(0), count


def logits(distances: Tensor, count: Tensor, far: Tensor, scale: Tensor) -> Tensor:
    """Logits (..., m, ways) from squared distances to class means (..., m, ways); a
    class without an example, count (..., ways) 0, is farther than all others.

    far: the largest squared distance between two examples, the unit of distances.
    """
    distances = torch.where(count[..., None, :] > 0, distances, 2 * far)
    return -scale * distances / far.clamp_min(1e-12)


def pool_features(within: Tensor, y: Tensor, labeled: Tensor, scale: Tensor) -> Tensor:
    """What a policy reads of every example of a pool (..., n, FEATURES), where those in
    labeled (..., n) have a label: how it relates to these, and to the others.
    """
    far = within.amax().clamp_min(1e-12)
    # (..., n) to the nearest example with a label
    nearest = torch.where(labeled[..., None, :] > 0, within / far, 1.0).amin(-1)
    means, count = to_means(within, within, y, labeled)
    p = logits(means, count, far, scale).softmax(-1)  # (..., n, ways)
    best = p.topk(min(2, y.shape[1]), -1).values
    entropy = -(p * (p + 1e-12).log()).sum(-1)
    # (n, n) at two length scales
    wide, narrow = ((-within / (share * far)).exp() for share in (0.2, 0.05))
    # how much nearer the pool would be to an example with a label, on average
    gain = (nearest[..., None, :] - within / far).clamp_min(0).mean(-1)
    labels = labeled.sum(-1, keepdim=True)
    classes = (count > 0).to(labeled).sum(-1, keepdim=True)
    columns = [
        labeled,
        nearest,
        torch.where(count[..., None, :] > 0, means / far, 1.0).amin(-1),
        entropy,
        best[..., 0],
        best[..., 0] - best[..., -1],
        10 * gain,
        torch.log1p(wide.sum(-1)),
        torch.log1p(narrow.sum(-1)),
        torch.log1p((1 - labeled) @ narrow),
        torch.log1p((p * count[..., None, :]).sum(-1)),
        torch.log1p(labels),
        torch.log1p(classes),
    ]
    return torch.stack([column.expand_as(labeled) for column in columns], -1)
