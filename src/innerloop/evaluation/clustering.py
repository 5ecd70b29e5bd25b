"""Clustering the examples of a new task without labels, in a learned metric."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import Count
from innerloop.evaluation.base import Evaluation
from innerloop.evaluation.chunks import measured
from innerloop.learners.metric.distances import squared_distance
from innerloop.measurements import Estimate, Measurement, Report, Row, Table, TestPlan


@runtime_checkable
class Embedding(Protocol):
    """A learner that embeds inputs."""

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) as embeddings (m, d)."""
        ...


@torch.no_grad()
def cluster(
    learner: Embedding,
    x: Tensor,
    k: int,
    *,
    generator: torch.Generator | None = None,
    restarts: Count = 10,
    steps: Count = 50,
) -> Tensor:
    """Labels 0..k-1 (m,) for x (m, *x_shape) by k-means in the learner's embedding,
    normalized to unit length where the learner compares by cosine.

    The best of `restarts` runs, each initialized by k-means++ (Arthur and Vassilvitskii
    2007, "k-means++: the advantages of careful seeding"). Raises InnerloopTypeError for
    a learner without an embedding, and InnerloopError where there are fewer examples
    than clusters, or embeddings that are not finite.
    """
    if not isinstance(learner, Embedding):
        raise InnerloopTypeError(
            f"{type(learner).__name__} has no embedding to cluster in: use a metric "
            "learner, such as ProtoNet"
        )
    if not 1 <= k <= len(x):
        raise InnerloopError(f"cannot make {k} clusters of {len(x)} examples")
    z = learner.embed(x).float()
    if not torch.isfinite(z).all():
        raise InnerloopError("some embeddings are not finite: check x for NaN")
    if getattr(learner, "metric", None) == "cosine":
        z = F.normalize(z, dim=-1)
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    best, labels = torch.inf, torch.zeros(len(z), dtype=torch.long)
    for _ in range(restarts):
        centers = _initial_centers(z, k, generator)
        for _ in range(steps):
            assigned = squared_distance(z, centers).argmin(-1)
            members = F.one_hot(assigned, k).to(z.dtype)  # (m, k)
            sizes = members.sum(0)[:, None]
            means = members.T @ z / sizes.clamp_min(1)
            moved = torch.where(sizes > 0, means, centers)
            if torch.equal(moved, centers):
                break
            centers = moved
        nearest, assigned = squared_distance(z, centers).min(-1)
        if float(nearest.sum()) < best:
            best, labels = float(nearest.sum()), assigned
    return labels


def _initial_centers(z: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k-means++: every further center is drawn in proportion to its squared distance
    from the nearest one before.
    """
    chosen = [int(torch.randint(len(z), (), generator=generator))]
    for _ in range(k - 1):
        weights = squared_distance(z, z[chosen]).amin(-1).cpu() + 1e-12
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
    return z[chosen]


def adjusted_rand_index(a: Tensor, b: Tensor) -> float:
    """Agreement of two clusterings (m,) of the same examples: 1 for the same, about 0
    by chance. Hubert and Arabie 1985, "Comparing partitions".
    """
    if len(a) < 2:
        return 1.0
    # (clusters of a, clusters of b)
    table = F.one_hot(a).double().T @ F.one_hot(b).double()
    pairs, rows, columns = (
        float((t * (t - 1) / 2).sum()) for t in (table, table.sum(1), table.sum(0))
    )
    expected = rows * columns / (len(a) * (len(a) - 1) / 2)
    largest = (rows + columns) / 2
    if largest == expected:
        return 1.0
    return (pairs - expected) / (largest - expected)


class Clustering(Evaluation):
    """Clustering: k-means clustering of the queries of unseen tasks.

    k is the number of classes among the query examples. The agreement with their
    classes is the adjusted Rand index, 1 for the same and about 0 by chance.

    Reference: Hubert and Arabie 1985, "Comparing partitions", Journal of
    Classification 2.

    Args:
        tasks: largest number of tasks.
        restarts: runs of k-means; the best one is used.
    """

    tasks: Count = 100
    restarts: Count = 10

    @classmethod
    def supports(cls, learner: Learner, tasks: TaskDistribution) -> str | None:
        if tasks.spec.kind != "classes" or tasks.spec.ordered or tasks.played:
            return "it needs tasks of classes"
        if not isinstance(learner, Embedding):
            return "it needs a learner with an embedding, such as ProtoNet"
        return None

    def measure(
        self, learner: Learner, tasks: TaskDistribution, plan: TestPlan
    ) -> Report:
        assert isinstance(learner, Embedding)
        n = min(plan.n, self.tasks)

        def score(batch: Task) -> float:
            x, y = batch.query.x[0], batch.query.y[0].argmax(-1).cpu()
            labels = cluster(
                learner,
                x,
                len(y.unique()),
                generator=plan.generator(),
                restarts=self.restarts,
            )
            return adjusted_rand_index(labels.cpu(), y)

        scores = measured(
            learner, tasks, score, n=n, chunk=1, generator=plan.generator()
        )
        estimate = Estimate.of(torch.tensor(scores))
        index = Measurement.of("adjusted Rand index", estimate, n, transductive=True)
        table = Table("clustering", (Row(plan.labels, (index,)),))
        return Report((table,), (), {"tasks": n, "seed": plan.seed})
