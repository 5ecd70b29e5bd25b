"""Grouping the examples of a new task without any labels, in a learned metric."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.learners.metric.distances import squared_distance


@runtime_checkable
class Embedding(Protocol):
    """A learner with a metric space of its own."""

    def embed(self, x: Tensor) -> Tensor: ...


def cluster(
    learner: Embedding,
    x: Tensor,
    k: int,
    *,
    generator: torch.Generator | None = None,
    restarts: int = 10,
    steps: int = 50,
) -> Tensor:
    """Labels 0..k-1 (m,) for x (m, *x_shape) by k-means in the learner's embedding; in
    cosine metrics on the unit sphere.

    Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding"; the
    best of `restarts`.
    Raises TypeError for a learner without an embedding and ValueError where there are
    fewer examples than clusters or NaN.
    """
    if not isinstance(learner, Embedding):
        raise InnerloopTypeError(
            f"{type(learner).__name__} has no embedding to cluster in: use a metric learner, such as ProtoNet"
        )
    if not 1 <= k <= len(x):
        raise InnerloopError(f"cannot make {k} clusters of {len(x)} examples")
    with torch.no_grad():
        z = learner.embed(x).float()
    if not torch.isfinite(z).all():
        raise InnerloopError("some embeddings are not finite: look for NaN in x")
    if getattr(learner, "metric", None) == "cosine":
        z = F.normalize(z, dim=-1)
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    best, labels = torch.inf, torch.zeros(len(z), dtype=torch.long)
    for _ in range(restarts):
        centres = _seed(z, k, generator)
        for _ in range(steps):
            assigned = squared_distance(z, centres).argmin(-1)
            members = F.one_hot(assigned, k).to(z.dtype)  # (m, k)
            moved = torch.where(
                members.sum(0)[:, None] > 0,
                members.T @ z / members.sum(0).clamp_min(1)[:, None],
                centres,
            )
            if torch.equal(moved, centres):
                break
            centres = moved
        nearest, assigned = squared_distance(z, centres).min(-1)
        if float(nearest.sum()) < best:
            best, labels = float(nearest.sum()), assigned
    return labels


def _seed(z: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k-means++: every further centre is drawn in proportion to its squared distance
    from those before.
    """
    chosen = [int(torch.randint(len(z), (), generator=generator))]
    for _ in range(k - 1):
        away = squared_distance(z, z[chosen]).amin(-1).cpu() + 1e-12
        chosen.append(int(torch.multinomial(away, 1, generator=generator)))
    return z[chosen]


def adjusted_rand_index(a: Tensor, b: Tensor) -> float:
    """Agreement of two groupings (m,) of the same examples: 1 for the same, about 0 by
    chance. Hubert and Arabie 1985, "Comparing partitions".
    """
    # (groups of a, groups of b)
    table = F.one_hot(a).double().T @ F.one_hot(b).double()
    if len(a) < 2:
        return 1.0
    pairs, rows, columns = (
        float((t * (t - 1) / 2).sum()) for t in (table, table.sum(1), table.sum(0))
    )
    expected = rows * columns / (len(a) * (len(a) - 1) / 2)
    most = (rows + columns) / 2
    return 1.0 if most == expected else (pairs - expected) / (most - expected)
