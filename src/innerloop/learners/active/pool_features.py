"""How the examples of a pool lie to each other and to those that have a label, from
squared distances alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

FEATURES = 13
NEAR, DOUBT, MARGIN = 1, 3, 5  # columns of `situation`


def to_means(
    across: Tensor, apart: Tensor, y: Tensor, asked: Tensor
) -> tuple[Tensor, Tensor]:
    """Squared distances (..., m, ways) to the class means of what was asked for (...,
    n), and how many examples a class has there (..., ways).

    across: squared distances to single examples (m, n). apart: between these (n, n). y:
    their labels (n, ways). The mean of the squared distances to some points is the
    squared distance to their mean, and half the mean of those between them.
    """
    of_class = asked[..., None] * y  # (..., n, ways)
    count = of_class.sum(-2)
    share = of_class / count.clamp_min(1)[..., None, :]
    # small differences of large numbers
    with torch.autocast(across.device.type, enabled=False):
        return (
            across @ share - 0.5 * (share * (apart @ share)).sum(-2, keepdim=True)
        ).clamp_min(0), count


def logits(apart: Tensor, met: Tensor, far: Tensor, scale: Tensor) -> Tensor:
    """Squared distances to class means (..., m, ways) as logits; a class without an
    example, met (..., ways) 0, is farther than all others.

    far: the largest squared distance between two examples, the unit of the others.
    """
    return (
        -scale
        * torch.where(met[..., None, :] > 0, apart, 2 * far)
        / far.clamp_min(1e-12)
    )


def situation(apart: Tensor, y: Tensor, asked: Tensor, scale: Tensor) -> Tensor:
    """What a policy reads of every example (..., n, FEATURES), where those that were
    asked for (..., n) have a label: how it lies to what is known, and among what is
    not.
    """
    far = apart.amax().clamp_min(1e-12)
    # (..., n) to the nearest example with a label
    near = torch.where(asked[..., None, :] > 0, apart / far, 1.0).amin(-1)
    means, count = to_means(apart, apart, y, asked)
    p = logits(means, count, far, scale).softmax(-1)  # (..., n, ways)
    best = p.topk(min(2, y.shape[1]), -1).values
    doubt = -(p * (p + 1e-12).log()).sum(-1)
    # (n, n) two ideas of what is alike
    like, alike = ((-apart / (share * far)).exp() for share in (0.2, 0.05))
    # by how much the pool would come nearer to what has a label
    nearer = (near[..., None, :] - apart / far).clamp_min(0).mean(-1)
    told, met = asked.sum(-1, keepdim=True), (count > 0).to(asked).sum(-1, keepdim=True)
    columns = [
        asked,
        near,
        torch.where(count[..., None, :] > 0, means / far, 1.0).amin(-1),
        doubt,
        best[..., 0],
        best[..., 0] - best[..., -1],
        10 * nearer,
        *(torch.log1p(of.sum(-1)) for of in (like, alike)),
        torch.log1p((1 - asked) @ alike),
        torch.log1p((p * count[..., None, :]).sum(-1)),
        torch.log1p(told),
        torch.log1p(met),
    ]
    return torch.stack([column.expand_as(asked) for column in columns], -1)
