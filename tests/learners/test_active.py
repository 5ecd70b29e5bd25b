"""ActiveLearner for labels: what it may know, how distances to means come of those between
points, and that asking is learned.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop import ActiveLearner, asking_curves, meta_train
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.learners.active.pool_features import FEATURES, situation, to_means
from innerloop.learners.metric.distances import class_means, squared_distance


class Crowds(TaskDistribution):
    """Pools of 16 points: 13 crowd around one centre, and 1 lies at each of three
    others; what is asked is of all four classes alike.
    """

    spec = TaskSpec("classes", (2,), 4)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        centres = (
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
                    self.near(centres, labels, generator), F.one_hot(labels, 4).float()
                )
                for labels in (y, wanted)
            )
        )

    @staticmethod
    def near(centres: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        at = centres.gather(1, labels[..., None].expand(-1, -1, 2))
        return at + 0.3 * torch.randn(at.shape, generator=generator)


def pool(seed: int = 0) -> Task:
    return Crowds().sample(1, torch.Generator().manual_seed(seed)).unbind()[0]


def built(**build_args: object) -> ActiveLearner:
    torch.manual_seed(0)
    return ActiveLearner.build(Crowds.spec, encoder="flatten", **build_args)


def test_distances_to_means_are_those_to_the_means() -> None:
    support, query = pool()
    z, y, asked = (
        support.x.double(),
        support.y.double(),
        (torch.arange(16) % 3 == 0).double(),
    )
    found, count = to_means(
        squared_distance(query.x.double(), z), squared_distance(z, z), y, asked
    )
    wanted = squared_distance(query.x.double(), class_means(z, y * asked[:, None]))
    met = count > 0
    torch.testing.assert_close(count, (y * asked[:, None]).sum(0))
    torch.testing.assert_close(found[:, met], wanted[:, met])


def test_what_is_read_of_one_example_is_as_written_out() -> None:
    support = pool().support
    asked, apart = torch.zeros(16), squared_distance(support.x, support.x)
    asked[[2, 5, 9]] = 1
    seen = situation(apart, support.y, asked, torch.tensor(10.0))
    assert seen.shape == (16, FEATURES)
    i, far = 7, float(apart.max())
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
    torch.testing.assert_close(seen[i, 1], apart[i, [2, 5, 9]].min() / far)
    torch.testing.assert_close(seen[i, 3], -(p * p.log()).sum(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen[i, 4], p.max())
    torch.testing.assert_close(seen[i, 11].expm1(), torch.tensor(3.0))


@pytest.mark.parametrize(
    "strategy", ["learned", "in-turn", "entropy", "margin", "k-centre"]
)
def test_a_label_that_was_not_asked_for_is_not_known(strategy: str) -> None:
    learner, support = built(labels=4, strategy=strategy), pool().support
    apart = squared_distance(support.x, support.x)
    order = learner.asked_for(apart, support.y)
    assert order.sum(0).max() == 1  # none twice
    assert order.sum() == 4
    others = torch.where(order.sum(0)[:, None] > 0, support.y, support.y.roll(1, 1))
    assert torch.equal(learner.asked_for(apart, others), order)
    query = pool().query.x
    torch.testing.assert_close(
        learner.predict(learner.adapt(Examples(support.x, others)), query),
        learner.predict(learner.adapt(support), query),
    )


def test_a_pool_in_another_order_is_the_same_pool() -> None:
    learner, support = built(labels=4), pool().support
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    ask = partial(learner.asked_for, y=support.y)
    shuffled = learner.asked_for(
        squared_distance(support.x[order], support.x[order]), support.y[order]
    )
    assert torch.equal(shuffled, ask(squared_distance(support.x, support.x))[:, order])


def test_k_centre_takes_the_farthest() -> None:
    learner, support = built(labels=3, strategy="k-centre"), pool().support
    apart = squared_distance(support.x, support.x)
    chosen = learner.asked_for(apart, support.y).argmax(-1).tolist()
    assert chosen[0] == 0
    assert chosen[1] == int(apart[0].argmax())
    assert chosen[2] == int(torch.minimum(apart[0], apart[chosen[1]]).argmax())


def test_what_to_label_next_begins_after_what_is_labelled() -> None:
    learner, support = built(strategy="k-centre"), pool().support
    told = Examples(support.x[:2], torch.eye(2))
    chosen = learner.next_to_label(support.x[2:], told, 3)
    assert len(set(chosen)) == 3
    assert min(chosen) >= 0
    apart = squared_distance(support.x[2:], support.x[:2]).amin(1)
    assert chosen[0] == int(apart.argmax())
    assert len(learner.next_to_label(support.x, None, 100)) == 16


def test_the_gradient_is_that_of_reinforce() -> None:
    """The expected gradient, over many rollouts of one label, is that of the expected
    accuracy, which is known exactly.
    """
    learner, task = built(labels=1, rollouts=20_000), pool(3)
    theta = dict(learner.score.named_parameters())
    apart = squared_distance(task.support.x, task.support.x)
    p = learner.preference(apart, task.support.y, torch.zeros(16), "learned").softmax(
        -1
    )
    # with one label all queries are of its class, (m, n)
    right = task.query.y @ task.support.y.T
    wanted = torch.autograd.grad(-(p * right.mean(0)).sum(), list(theta.values()))
    learner.train()
    found = torch.autograd.grad(learner.loss(task)[0], list(theta.values()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0.1)


def test_asking_is_learned() -> None:
    learner = built(labels=4, rollouts=8)
    # by chance it begins with asking for what stands alone
    for p in learner.score[-1].parameters():
        p.data.neg_()
    before = asking_curves(learner, Crowds(), n=100)
    for _ in meta_train(
        learner,
        Crowds(),
        steps=60,
        batch=8,
        optimizer=torch.optim.Adam(learner.parameters(), lr=1e-2),
    ):
        pass
    after = asking_curves(learner, Crowds(), n=100)
    assert after["in-turn"].accuracy == before["in-turn"].accuracy
    assert before["learned"].accuracy[3].mean < 0.5
    behind = after["in-turn"].behind[3]
    assert behind.mean - behind.interval > 0.15
