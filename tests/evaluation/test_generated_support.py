"""Support sets enlarged by generated examples."""

import pytest
import torch
from torch import Tensor, nn

from innerloop import Examples, ProtoNet, TaskSpec
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.evaluation import EVALUATIONS, GeneratedSupport
from innerloop.evaluation.generated_support import GeneratedSupportTasks
from innerloop.measurements import TestPlan
from innerloop.tasks.sinusoid import Sinusoid
from innerloop.testing import Blobs

TASKS = Blobs(TaskSpec("classes", (4,), 3))


class Maker(ProtoNet):
    """Class means plus noise. Nobody 2026."""

    noise: float = 0.0

    def generate(
        self, support: Examples, count: int, generator: torch.Generator
    ) -> Tensor:
        means = support.y.T @ support.x / support.y.sum(0)[:, None]
        shape = (len(means), count, support.x.shape[1])
        return means[:, None] + self.noise * torch.randn(shape, generator=generator)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_generated_examples_have_their_labels_and_the_rest_is_unchanged() -> None:
    plain = TASKS.sample(5, seeded(1))
    larger = GeneratedSupportTasks(TASKS, Maker(nn.Identity()), 3).sample(5, seeded(1))
    assert torch.equal(larger.query.x, plain.query.x)
    assert larger.support.x.shape == (5, 6 + 9, 4)
    assert (larger.support.y.sum(1) == 5).all()  # 2 true and 3 generated
    for task, true in zip(larger.unbind(), plain.unbind(), strict=True):
        rows = [x.tolist() for x in task.support.x]
        assert all(x.tolist() in rows for x in true.support.x)
        means = true.support.y.T @ true.support.x / 2
        made = [x.tolist() not in true.support.x.tolist() for x in task.support.x]
        torch.testing.assert_close(
            task.support.x[made], means[task.support.y[made].argmax(-1)]
        )
    again = GeneratedSupportTasks(TASKS, Maker(nn.Identity()), 3).sample(5, seeded(1))
    assert torch.equal(again.support.x, larger.support.x)


def test_the_score_is_reported_with_and_without_generated_examples() -> None:
    evaluation = EVALUATIONS["generated-support"](generator_run="runs/gan", count=4)
    with pytest.raises(InnerloopError, match="prepare"):
        evaluation(ProtoNet(nn.Identity()), TASKS, TestPlan(n=4))
    opened = []

    def load(path: str) -> Maker:
        opened.append(path)
        return Maker(nn.Identity(), noise=30.0)

    evaluation.prepare(load)
    assert opened == ["runs/gan"]
    report = evaluation(ProtoNet(nn.Identity()), TASKS, TestPlan(n=20))
    without, generated = report.tables[0].rows
    assert (without.labels["generated"], generated.labels["generated"]) == (0, 4)
    # noise of 30 in the class means hurts
    assert generated.values[0].mean < without.values[0].mean - 0.2


def test_runs_and_tasks_that_do_not_fit_are_refused() -> None:
    evaluation = GeneratedSupport(generator_run="runs/x")
    evaluation.prepare(lambda path: ProtoNet(nn.Identity()))
    with pytest.raises(InnerloopTypeError, match="does not generate examples"):
        evaluation(ProtoNet(nn.Identity()), TASKS, TestPlan(n=2))
    evaluation.prepare(lambda path: Maker.build(TaskSpec("classes", (7,), 3)))
    with pytest.raises(InnerloopError, match=r"shape \(7,\); got .* shape \(4,\)"):
        evaluation(ProtoNet(nn.Identity()), TASKS, TestPlan(n=2))
    with pytest.raises(InnerloopTypeError, match="needs tasks of classes"):
        evaluation(ProtoNet(nn.Identity()), Sinusoid(), TestPlan(n=2))
    with pytest.raises(InnerloopError, match="count of GeneratedSupport must be"):
        GeneratedSupport(generator_run="runs/x", count=0)
