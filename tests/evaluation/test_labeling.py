"""Active learning curves: acquisition is learned, and what the evaluation reports."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop import ActiveLearner, ProtoNet, meta_test, meta_train
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopTypeError
from innerloop.evaluation import Labeling
from innerloop.evaluation.active import labeling_curves
from innerloop.measurements import TestPlan


class Crowds(TaskDistribution):
    """Pools of 16 points: 13 around one center, and 1 at each of three others; the
    query set has as many of every class.
    """

    spec = TaskSpec("classes", (2,), 4)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        directions = F.normalize(torch.randn(n, 4, 2, generator=generator), dim=-1)
        centers = 4 * directions * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
        pool = torch.tensor([0] * 13 + [1, 2, 3])
        y = torch.stack(
            [pool[torch.randperm(16, generator=generator)] for _ in range(n)]
        )
        query = torch.arange(4).repeat(3).expand(n, -1)
        return Task(*(self.near(centers, labels, generator) for labels in (y, query)))

    @staticmethod
    def near(centers: Tensor, labels: Tensor, generator: torch.Generator) -> Examples:
        at = centers.gather(1, labels[..., None].expand(-1, -1, 2))
        x = at + 0.3 * torch.randn(at.shape, generator=generator)
        return Examples(x, F.one_hot(labels, 4).float())


def built(**build_args: object) -> ActiveLearner:
    torch.manual_seed(0)
    return ActiveLearner.build(Crowds.spec, encoder="flatten", **build_args)


def test_acquisition_is_learned() -> None:
    learner = built(labels=4, rollouts=8)
    # with this sign, the untrained policy prefers points that stand alone
    for p in learner.policy.score[-1].parameters():
        p.data.neg_()
    before = labeling_curves(learner, Crowds(), n=100)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    for _ in meta_train(learner, Crowds(), steps=60, batch=8, optimizer=optimizer):
        pass
    after = labeling_curves(learner, Crowds(), n=100)
    fixed = next(iter(set(after) - {"learned", "entropy", "margin", "k-center"}))
    assert after[fixed].accuracy == before[fixed].accuracy
    assert before["learned"].accuracy[3].mean < 0.5
    deficit = after[fixed].deficit[3]
    assert deficit.mean - deficit.interval > 0.15


def test_the_evaluation_compares_strategies_on_the_tasks_of_a_test() -> None:
    learner = built(labels=4)
    plan = TestPlan(n=30, seed=3, labels={"shots": 4})
    report = Labeling()(learner, Crowds(), plan)
    accuracy, gaps = report.tables
    assert [row.labels["labels"] for row in accuracy.rows] == [1, 2, 3, 4]
    last = {v.name: v for v in accuracy.rows[3].values}
    tested = meta_test(learner, Crowds(), n=30, generator=plan.generator())
    assert last["learned"].mean == pytest.approx(tested.metrics["accuracy"].mean)
    assert (last["learned"].n, last["learned"].unit) == (30, "%")
    gap = {v.name: v.mean for v in gaps.rows[3].values}
    assert set(gap) == set(last) - {"learned"}
    for name, value in gap.items():
        assert value == pytest.approx(last["learned"].mean - last[name].mean, abs=1e-6)
    json.dumps(report.as_dict(), allow_nan=False)
    assert len(Labeling(labels=2)(learner, Crowds(), plan).tables[0].rows) == 2


def test_the_evaluation_needs_an_active_learner() -> None:
    with pytest.raises(InnerloopTypeError, match="which labels to acquire"):
        Labeling()(ProtoNet.build(Crowds.spec), Crowds(), TestPlan())
