"""The protocol: intervals, curves, repeatability, and the race against training from
scratch.
"""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from innerloop import (
    MAML,
    Examples,
    Gaussian,
    Learner,
    ProtoNet,
    Scratch,
    Task,
    TaskDistribution,
    TaskSpec,
    head_start,
    meta_test,
)
from innerloop.core.meta_test import Estimate
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (4,), 3)
TASKS = Blobs(SPEC)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maml(**build_args: object) -> MAML:
    torch.manual_seed(0)
    return MAML.build(SPEC, inner_lr=0.1, inner_steps=2, **build_args)


def protonet() -> ProtoNet:
    torch.manual_seed(0)
    return ProtoNet(nn.Linear(4, 3), rotate_support=False)


@pytest.mark.parametrize("n", [2, 7, 500])
def test_interval_is_1_96_standard_errors(n: int) -> None:
    values = torch.randn(n, generator=seeded())
    found = Estimate.of(values)
    assert found.mean == pytest.approx(np.mean(values.numpy(), dtype=np.float64))
    assert found.interval == pytest.approx(
        1.96 * np.std(values.double().numpy(), ddof=1) / math.sqrt(n)
    )


def test_one_task_says_nothing_about_the_interval() -> None:
    assert Estimate.of(torch.tensor([0.5])) == (0.5, math.inf)


@pytest.mark.parametrize("learner", [protonet, maml])
def test_metrics_are_means_over_the_tasks_of_the_seed(learner: type[Learner]) -> None:
    student, generator = learner(), seeded(3)
    drawn = [
        task for size in (4, 4, 2) for task in TASKS.sample(size, generator).unbind()
    ]
    wanted = [student.loss(task) for task in drawn]
    result = meta_test(student, TASKS, n=10, chunk=4, generator=seeded(3))
    losses = np.array([float(loss.detach()) for loss, _ in wanted])
    accuracies = np.array([float(metrics["accuracy"]) for _, metrics in wanted])
    assert result.metrics["loss"].mean == pytest.approx(losses.mean(), rel=1e-5)
    assert result.metrics["loss"].interval == pytest.approx(
        1.96 * losses.std(ddof=1) / math.sqrt(10), rel=1e-5
    )
    assert result.metrics["accuracy"].mean == pytest.approx(accuracies.mean())
    assert (result.tasks, result.score, result.transductive) == (10, "accuracy", False)
    assert result.seconds > 0


def test_a_transductive_learner_is_marked() -> None:
    assert meta_test(maml(transductive=True), TASKS, n=2).transductive


def test_curve_has_one_score_for_every_number_of_steps() -> None:
    learner = maml()
    result = meta_test(learner, TASKS, n=6, curve_steps=5)
    assert len(result.curve) == 6
    assert result.curve[2] == pytest.approx(result.metrics["accuracy"])
    start = MAML(learner.net, 0.1, inner_steps=0)
    assert result.curve[0] == pytest.approx(
        meta_test(start, TASKS, n=6).metrics["accuracy"]
    )
    assert len(meta_test(learner, TASKS, n=2, curve_steps=0).curve) == 1


def test_no_curve_unless_asked_for_or_without_steps() -> None:
    assert meta_test(maml(), TASKS, n=2).curve == []
    assert meta_test(protonet(), TASKS, n=2, curve_steps=3).curve == []


def test_same_seed_same_numbers() -> None:
    learner = maml()
    results = [
        meta_test(learner, TASKS, n=8, curve_steps=2, generator=g)
        for g in (None, seeded(0), seeded(1))
    ]
    assert results[0].metrics == results[1].metrics
    assert results[0].curve == results[1].curve
    assert results[0].metrics != results[2].metrics


def test_testing_changes_nothing_but_the_mode() -> None:
    learner = maml().train()
    before = copy.deepcopy(learner.state_dict())
    meta_test(learner, TASKS, n=3, curve_steps=1)
    assert not learner.training
    assert all(p.grad is None for p in learner.parameters())
    assert all(
        torch.equal(value, before[name]) for name, value in learner.state_dict().items()
    )


def test_bf16_is_near_float32() -> None:
    losses = [
        meta_test(protonet(), TASKS, n=5, precision=precision).metrics["loss"].mean
        for precision in ("float32", "bf16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("n", [0, -1])
def test_no_tasks_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match="at least one task"):
        meta_test(protonet(), TASKS, n=n)
    with pytest.raises(ValueError, match="at least one task"):
        head_start(maml(), Scratch.build(SPEC), TASKS, n=n)


def test_results_are_plain_data() -> None:
    result = meta_test(maml(), TASKS, n=3, curve_steps=1)
    stored = json.loads(json.dumps(result.as_dict()))
    assert stored["metrics"]["accuracy"] == result.metrics["accuracy"]._asdict()
    assert len(stored["curve"]) == 2


class Lines(TaskDistribution):
    """y = 2 x + 1, always; for tests."""

    spec = TaskSpec("reals", (1,), 1)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        x = torch.randn(n, 12, 1, generator=generator)
        return Task(
            Examples(x[:, :6], 2 * x[:, :6] + 1), Examples(x[:, 6:], 2 * x[:, 6:] + 1)
        )


def line(slope: float, offset: float) -> nn.Linear:
    net = nn.Linear(1, 1)
    nn.init.constant_(net.weight, slope)
    nn.init.constant_(net.bias, offset)
    return net


def scratch() -> Scratch:
    return Scratch(line(-3.0, 0.0), 0.1, likelihood=Gaussian())


def test_a_solved_start_wins_at_step_zero() -> None:
    found = head_start(
        MAML(line(2.0, 1.0), 0.1, likelihood=Gaussian()),
        scratch(),
        Lines(),
        n=4,
        steps=15,
    )
    assert (found.score, found.tasks) == ("mse", 4)
    assert found.learner_steps == 0
    assert (len(found.learner_curve), len(found.scratch_curve)) == (11, 16)
    assert found.target == pytest.approx(min(found.scratch_curve))
    assert found.scratch_steps == int(np.argmin(found.scratch_curve)) > 0
    assert found.learner_seconds is not None
    assert found.speedup == pytest.approx(found.scratch_seconds / found.learner_seconds)


def test_a_near_start_needs_the_first_step_that_reaches_the_target() -> None:
    found = head_start(
        MAML(line(1.0, 1.0), 0.1, likelihood=Gaussian()),
        scratch(),
        Lines(),
        n=4,
        steps=20,
    )
    below = [i for i, score in enumerate(found.learner_curve) if score <= found.target]
    assert found.learner_steps == below[0] > 0


def test_a_start_that_never_gets_there_has_no_speedup() -> None:
    found = head_start(
        MAML(line(-9.0, 0.0), 1e-4, likelihood=Gaussian()),
        scratch(),
        Lines(),
        n=2,
        steps=15,
    )
    assert (found.learner_steps, found.learner_seconds, found.speedup) == (
        None,
        None,
        None,
    )
    assert found.target < min(found.learner_curve)


def test_both_run_on_the_same_tasks_for_their_steps() -> None:
    one = MAML(line(-3.0, 0.0), 0.1, inner_steps=12, likelihood=Gaussian())
    found = head_start(one, scratch(), Lines(), n=3, steps=20)
    assert (len(found.learner_curve), len(found.scratch_curve)) == (13, 21)
    assert found.learner_curve == pytest.approx(found.scratch_curve[:13])
    again = head_start(one, scratch(), Lines(), n=3, steps=20)
    assert again.learner_curve == found.learner_curve
    assert (
        head_start(
            one, scratch(), Lines(), n=3, steps=20, generator=seeded(5)
        ).learner_curve
        != found.learner_curve
    )


def test_target_is_the_highest_accuracy_for_classes() -> None:
    torch.manual_seed(1)
    found = head_start(
        protonet(), Scratch.build(SPEC, inner_lr=0.05), TASKS, n=6, steps=10
    )
    assert found.target == pytest.approx(max(found.scratch_curve))
    assert len(found.learner_curve) == 1
    assert found.learner_curve[0] == pytest.approx(
        meta_test(protonet(), TASKS, n=6, chunk=1).metrics["accuracy"].mean
    )
    assert found.learner_steps == (
        0 if found.learner_curve[0] >= found.target else None
    )
