"""Clustering in an embedding: k-means, the adjusted Rand index, and the evaluation."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import nn

from innerloop import MAML, Examples, ProtoNet, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopTypeError
from innerloop.evaluation import Clustering
from innerloop.evaluation.clustering import adjusted_rand_index, cluster
from innerloop.measurements import TestPlan
from innerloop.tasks.sinusoid import Sinusoid


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("groups", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_adjusted_rand_index_is_scikit_learns(groups: int, seed: int) -> None:
    a, noise = (
        torch.randint(groups, (40,), generator=seeded(seed + i)) for i in (0, 100)
    )
    b = torch.where(torch.rand(40, generator=seeded(seed)) < 0.6, a, noise)
    for left, right in ((a, b), (a, noise), (a, a), (a, torch.arange(40))):
        assert adjusted_rand_index(left, right) == pytest.approx(
            adjusted_rand_score(left.numpy(), right.numpy()), abs=1e-9
        )


def test_adjusted_rand_index_of_one_example_is_scikit_learns() -> None:
    assert adjusted_rand_index(
        torch.tensor([0]), torch.tensor([0])
    ) == adjusted_rand_score([0], [0])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_cluster_recovers_separated_blobs(metric: str) -> None:
    truth = torch.arange(4).repeat(12)[torch.randperm(48, generator=seeded())]
    centers = torch.eye(4, 6)
    lengths = (
        1 + 9 * torch.rand(48, 1, generator=seeded(1)) if metric == "cosine" else 1.0
    )
    x = lengths * (centers[truth] + 0.1 * torch.randn(48, 6, generator=seeded(2)))
    learner = ProtoNet(nn.Identity(), metric=metric)
    labels = cluster(learner, x, 4)
    assert adjusted_rand_score(truth.numpy(), labels.numpy()) == 1.0
    assert torch.equal(cluster(learner, x, 4), labels)
    assert set(labels.tolist()) == set(range(4))


@pytest.mark.parametrize("seed", range(3))
def test_cluster_ends_where_every_example_is_nearest_to_the_mean_of_its_cluster(
    seed: int,
) -> None:
    x = torch.randn(60, 2, generator=seeded(seed))
    labels = cluster(ProtoNet(nn.Identity()), x, 5, restarts=1)
    means = np.stack([x.numpy()[labels.numpy() == k].mean(0) for k in range(5)])
    gaps = ((x.numpy()[:, None] - means) ** 2).sum(-1)
    assert gaps.argmin(1).tolist() == labels.tolist()


def test_cluster_keeps_the_best_of_its_restarts() -> None:
    x = torch.randn(60, 2, generator=seeded())
    spreads = []
    for restarts in (1, 2, 4, 8, 16):
        labels = cluster(ProtoNet(nn.Identity()), x, 6, restarts=restarts).numpy()
        spreads.append(
            sum(
                float(
                    (
                        (x.numpy()[labels == k] - x.numpy()[labels == k].mean(0)) ** 2
                    ).sum()
                )
                for k in range(6)
            )
        )
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] < spreads[0]


def test_cluster_refuses_bad_arguments() -> None:
    with pytest.raises(TypeError, match="MAML has no embedding"):
        cluster(MAML(nn.Linear(4, 2)), torch.randn(5, 4), 2)
    for k in (0, 6):
        with pytest.raises(ValueError, match=f"cannot make {k} clusters of 5"):
            cluster(ProtoNet(nn.Identity()), torch.randn(5, 4), k)


class Blocks(TaskDistribution):
    """Three classes at `distance` from each other, of which a task has two or three
    among its query examples.
    """

    spec = TaskSpec("classes", (3,), 3)

    def __init__(self, distance: float):
        self.distance = distance

    def sample(self, n: int, generator: torch.Generator) -> Task:
        most = torch.randint(2, 4, (n, 1), generator=generator)
        y = torch.eye(3)[torch.arange(24) % most]
        noise = torch.randn(n, 24, 3, generator=generator)
        examples = Examples(self.distance * y + noise, y)
        return Task(examples, examples)


def test_the_evaluation_finds_separate_classes_and_none_in_noise() -> None:
    learner, evaluation = ProtoNet(nn.Identity()), Clustering(tasks=20)
    plan = TestPlan(n=100, labels={"ways": 3})
    index, chance = (
        evaluation(learner, Blocks(d), plan).tables[0].rows[0] for d in (50.0, 0.0)
    )
    assert index.labels == {"ways": 3}
    assert index.values[0].mean == 1  # also where a task has two classes only
    assert index.values[0].n == 20
    assert abs(chance.values[0].mean) < 0.2
    few = evaluation(learner, Blocks(0.0), TestPlan(n=1)).tables[0].rows[0].values[0]
    assert (few.n, few.interval) == (1, None)


def test_the_evaluation_needs_an_embedding_and_classes() -> None:
    with pytest.raises(InnerloopTypeError, match="an embedding, such as ProtoNet"):
        Clustering()(MAML(nn.Linear(3, 3)), Blocks(1.0), TestPlan())
    with pytest.raises(InnerloopTypeError, match="it needs tasks of classes"):
        Clustering()(ProtoNet(nn.Identity()), Sinusoid(), TestPlan())
