"""ActiveLearner: which labels it may read, distances to means from those between
points, and that the policy is trained by REINFORCE.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop import ActiveLearner, meta_train
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.evaluation.active import labeling_curves
from innerloop.learners.active.pool_features import FEATURES, pool_features, to_means
from innerloop.learners.metric.distances import class_means, squared_distance


class Crowds(TaskDistribution):
    """Pools of 16 points: 13 around one center, and 1 at each of three others; the
    query set has as many of each class.
    """

    spec = TaskSpec("classes", (2,), 4)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        centers = (
            4
            * F.normalize(torch.randn(n, 4, 2, generator=generator), dim=-1)
            * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
        )
        y = torch.stack(
            [
                torch.tensor([0] * 13 + [1, 2, 3])[
                    torch.randperm(16, generator=generator)
                ]
                for _ in range(n)
            ]
        )
        wanted = torch.arange(4).repeat(3).expand(n, -1)
        return Task(
            *(
                Examples(
                    self.near(centers, labels, generator), F.one_hot(labels, 4).float()
                )
                for labels in (y, wanted)
            )
        )

    @staticmethod
    def near(centers: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        at = centers.gather(1, labels[..., None].expand(-1, -1, 2))
        return at + 0.3 * torch.randn(at.shape, generator=generator)


def pool(seed: int = 0) -> Task:
    return Crowds().sample(1, torch.Generator().manual_seed(seed)).unbind()[0]


def built(**build_args: object) -> ActiveLearner:
    torch.manual_seed(0)
    return ActiveLearner.build(Crowds.spec, encoder="flatten", **build_args)


def test_distances_to_means_are_those_to_the_means() -> None:
    support, query = pool()
    z, y, labeled = (
        support.x.double(),
        support.y.double(),
        (torch.arange(16) % 3 == 0).double(),
    )
    found, count = to_means(
        squared_distance(query.x.double(), z), squared_distance(z, z), y, labeled
    )
    wanted = squared_distance(query.x.double(), class_means(z, y * labeled[:, None]))
    met = count > 0
    torch.testing.assert_close(count, (y * labeled[:, None]).sum(0))
    torch.testing.assert_close(found[:, met], wanted[:, met])


def test_features_of_one_example() -> None:
    support = pool().support
    labeled, within = torch.zeros(16), squared_distance(support.x, support.x)
    labeled[[2, 5, 9]] = 1
    seen = pool_features(within, support.y, labeled, torch.tensor(10.0))
    assert seen.shape == (16, FEATURES)
    i, far = 7, float(within.max())
    means = {
        k: support.x[[j for j in (2, 5, 9) if support.y[j, k]]].mean(0)
        for k in range(4)
        if support.y[[2, 5, 9], k].any()
    }
    scores = torch.tensor(
        [
            -10 * float((support.x[i] - means[k]).square().sum()) / far
            if k in means
            else -20.0
            for k in range(4)
        ]
    )
    p = scores.softmax(0)
    torch.testing.assert_close(seen[i, 1], within[i, [2, 5, 9]].min() / far)
    torch.testing.assert_close(seen[i, 3], -(p * p.log()).sum(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen[i, 4], p.max())
    torch.testing.assert_close(seen[i, 11].expm1(), torch.tensor(3.0))


@pytest.mark.parametrize(
    "strategy", ["learned", "sequential", "entropy", "margin", "k-center"]
)
def test_labels_of_other_examples_are_not_read(strategy: str) -> None:
    learner, support = built(labels=4, strategy=strategy), pool().support
    within = squared_distance(support.x, support.x)
    order = learner.selection_order(within, support.y)
    assert order.sum(0).max() == 1  # none twice
    assert order.sum() == 4
    others = torch.where(order.sum(0)[:, None] > 0, support.y, support.y.roll(1, 1))
    assert torch.equal(learner.selection_order(within, others), order)
    query = pool().query.x
    torch.testing.assert_close(
        learner.predict(learner.adapt(Examples(support.x, others)), query),
        learner.predict(learner.adapt(support), query),
    )


def test_a_pool_in_another_order_is_the_same_pool() -> None:
    learner, support = built(labels=4), pool().support
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    select = partial(learner.selection_order, y=support.y)
    shuffled = learner.selection_order(
        squared_distance(support.x[order], support.x[order]), support.y[order]
    )
    assert torch.equal(
        shuffled, select(squared_distance(support.x, support.x))[:, order]
    )


def test_k_center_selects_the_farthest() -> None:
    learner, support = built(labels=3, strategy="k-center"), pool().support
    within = squared_distance(support.x, support.x)
    chosen = learner.selection_order(within, support.y).argmax(-1).tolist()
    assert chosen[0] == 0
    assert chosen[1] == int(within[0].argmax())
    assert chosen[2] == int(torch.minimum(within[0], within[chosen[1]]).argmax())


def test_next_to_label_starts_after_the_labeled_examples() -> None:
    learner, support = built(strategy="k-center"), pool().support
    labeled = Examples(support.x[:2], torch.eye(2))
    chosen = learner.next_to_label(support.x[2:], labeled, 3)
    assert len(set(chosen)) == 3
    assert min(chosen) >= 0
    within = squared_distance(support.x[2:], support.x[:2]).amin(1)
    assert chosen[0] == int(within.argmax())
    assert len(learner.next_to_label(support.x, None, 100)) == 16


def test_the_gradient_is_that_of_reinforce() -> None:
    """The expected gradient, over many rollouts of one label, is that of the expected
    accuracy, which is known exactly.
    """
    learner, task = built(labels=1, rollouts=20_000), pool(3)
    theta = dict(learner.policy.score.named_parameters())
    within = squared_distance(task.support.x, task.support.x)
    p = learner.scores(within, task.support.y, torch.zeros(16), "learned").softmax(-1)
    # with one label all queries are of its class, (m, n)
    right = task.query.y @ task.support.y.T
    wanted = torch.autograd.grad(-(p * right.mean(0)).sum(), list(theta.values()))
    learner.train()
    found = torch.autograd.grad(learner.loss(task)[0], list(theta.values()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0.1)


def test_the_policy_is_learned() -> None:
    learner = built(labels=4, rollouts=8)
    # with these weights it would start with isolated points
    for p in learner.policy.score[-1].parameters():
        p.data.neg_()
    before = labeling_curves(learner, Crowds(), n=100)
    for _ in meta_train(
        learner,
        Crowds(),
        steps=60,
        batch=8,
        optimizer=torch.optim.Adam(learner.parameters(), lr=1e-2),
    ):
        pass
    after = labeling_curves(learner, Crowds(), n=100)
    assert after["sequential"].accuracy == before["sequential"].accuracy
    assert before["learned"].accuracy[3].mean < 0.5
    deficit = after["sequential"].deficit[3]
    assert deficit.interval is not None
    assert deficit.mean - deficit.interval > 0.15
