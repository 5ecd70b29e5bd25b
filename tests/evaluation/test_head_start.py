"""The head start: time to the quality of training from scratch."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from innerloop import (
    MAML,
    Examples,
    Gaussian,
    ProtoNet,
    Scratch,
    Task,
    TaskDistribution,
    TaskSpec,
    meta_test,
    meta_train,
)
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.evaluation import EVALUATIONS, HeadStart, head_start
from innerloop.evaluation.head_start import HeadStartResult, Median
from innerloop.measurements import TestPlan
from innerloop.tasks.algorithmic import copy
from innerloop.tasks.sinusoid import Sinusoid
from innerloop.testing import Blobs


class Clock:
    """Stands in for the time module: a second passes for every gradient step, and next
    to nothing otherwise.
    """

    now = 0.0

    @classmethod
    def perf_counter(cls) -> float:
        cls.now += 1e-6
        return cls.now


@pytest.fixture(autouse=True)
def _steps_as_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(self: MAML | Scratch, *args: object) -> object:
        Clock.now += 1
        return originals[type(self)](self, *args)

    originals = {kind: kind.step for kind in (MAML, Scratch)}
    monkeypatch.setattr(head_start, "time", Clock)
    for kind in originals:
        monkeypatch.setattr(kind, "step", counted)


class Lines(TaskDistribution):
    """y = 2 x + 1, or y = 2 x - 1; keeps the queries of all tasks."""

    spec = TaskSpec("reals", (1,), 1)

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def sample(self, n: int, generator: torch.Generator) -> Task:
        x = torch.randn(n, 12, 1, generator=generator)
        sign = torch.randint(2, (n, 1, 1), generator=generator) * 2 - 1
        y = 2 * x + sign
        self.seen.append(x[:, 6:])
        return Task(Examples(x[:, :6], y[:, :6]), Examples(x[:, 6:], y[:, 6:]))


def line(slope: float, offset: float) -> nn.Linear:
    net = nn.Linear(1, 1)
    nn.init.constant_(net.weight, slope)
    nn.init.constant_(net.bias, offset)
    return net


def maml(slope: float, rate: float = 0.4, **options: int) -> MAML:
    return MAML(line(slope, 0.0), rate, likelihood=Gaussian(), **options)


def scratch(rate: float = 0.1) -> Scratch:
    return Scratch(line(-3.0, 0.0), rate, likelihood=Gaussian())


def measured(
    learner: MAML, *rates: float, n: int = 8, **options: int
) -> HeadStartResult:
    candidates = [scratch(rate) for rate in rates or (0.1,)]
    return head_start.head_start(learner, candidates, Lines(), n=n, **options)


def test_a_near_start_is_faster_by_the_ratio_of_the_steps() -> None:
    found = measured(maml(2.0, 0.3, inner_steps=20))
    assert (found.score, found.tasks) == ("mse", 8)
    assert found.reached
    assert found.improves
    assert found.adapts
    assert found.learner_seconds == pytest.approx(20)
    assert found.scratch_seconds == pytest.approx(found.scratch_steps)
    assert found.speedup == pytest.approx(found.scratch_steps / 20)
    assert found.speedup_interval == pytest.approx((found.speedup, found.speedup))
    assert found.difference.mean == pytest.approx(
        found.learner.mean - found.scratch.mean
    )


def test_training_from_scratch_ends_where_it_stops_improving() -> None:
    found = measured(maml(2.0), 0.1, steps=1000)
    assert found.converged
    assert 5 < found.scratch_steps < 100
    # 99 % of the way down from the error of random weights
    assert 0 < found.scratch.mean < 0.05 * 25
    early = measured(maml(2.0), 0.1, steps=4)
    assert (early.scratch_steps, early.converged) == (4, False)
    assert early.scratch.mean > found.scratch.mean


def test_the_best_learning_rate_is_chosen() -> None:
    # too small, good, and one that diverges
    found = measured(maml(2.0), 1e-5, 0.1, 50.0, steps=200)
    assert found.choice == 1
    alone = measured(maml(2.0), 0.1, steps=200)
    assert (found.scratch_steps, found.scratch) == (alone.scratch_steps, alone.scratch)
    # of equally good ones, the fastest
    assert measured(maml(2.0), 0.01, 0.1, steps=3000).choice == 1


def test_the_choice_is_made_on_tasks_that_are_not_measured() -> None:
    tasks = Lines()
    head_start.head_start(maml(2.0), [scratch()], tasks, n=30, steps=5)
    chosen, *rest = tasks.seen
    assert sum(map(len, rest)) == 30
    both = torch.cat([chosen, *rest]).flatten(1)
    assert len(both.unique(dim=0)) == len(both)


def test_a_learner_without_adaptation_has_no_speedup() -> None:
    class One(Lines):
        def sample(self, n: int, generator: torch.Generator) -> Task:
            x = torch.randn(n, 12, 1, generator=generator)
            return Task(*(Examples(v, 2 * v) for v in x.split(6, 1)))

    learner = maml(2.0, inner_steps=0)  # its start is the solution of all tasks
    found = head_start.head_start(learner, [scratch()], One(), n=6)
    assert found.reached
    assert (found.adapts, found.speedup, found.speedup_interval) == (False, None, None)


def test_a_learner_that_does_not_reach_the_quality_has_no_speedup() -> None:
    found = measured(maml(-9.0, 1e-4))
    assert found.learner.mean > found.scratch.mean
    assert found.difference.mean > 0
    assert (found.reached, found.speedup) == (False, None)


def test_training_that_does_not_improve_has_no_speedup() -> None:
    solved = Scratch(line(2.0, 0.0), 1e-9, likelihood=Gaussian())
    found = head_start.head_start(
        maml(2.0, inner_steps=5), [solved], Lines(), n=6, steps=3
    )
    random = Scratch(line(2.0, 0.0), 50.0, likelihood=Gaussian())  # diverges
    worse = head_start.head_start(maml(2.0), [random], Lines(), n=6, steps=3)
    assert worse.scratch_steps == 0
    for result in (found, worse):
        assert result.reached
        assert result.improves == (result.scratch_steps > 0)
        assert (result.speedup is None) == (not result.improves)


def test_a_higher_accuracy_is_better() -> None:
    spec = TaskSpec("classes", (4,), 3)
    torch.manual_seed(1)
    candidates = [Scratch.build(spec, inner_lr=rate) for rate in (1e-6, 0.05)]
    learner = ProtoNet(nn.Identity())
    found = head_start.head_start(learner, candidates, Blobs(spec), n=10, steps=20)
    assert found.choice == 1
    assert found.score == "accuracy"
    assert found.reached == (found.learner.mean >= found.scratch.mean)
    assert found.scratch.mean > 0.5
    inverted = ProtoNet(nn.Identity())
    inverted.log_scale = nn.Parameter(torch.tensor(-1e3))  # exp is 0: all alike
    worse = head_start.head_start(inverted, candidates, Blobs(spec), n=10, steps=20)
    assert not worse.reached


def test_likelihoods_with_other_scores_are_refused() -> None:
    with pytest.raises(InnerloopError, match="cannot compare mse with the accuracy"):
        head_start.head_start(
            maml(1.0), [Scratch(line(0, 0), 0.1)], Lines(), n=2, steps=2
        )
    with pytest.raises(InnerloopError, match="n of head_start must be"):
        measured(maml(1.0), n=0)
    with pytest.raises(InnerloopError, match="steps of HeadStart must be"):
        HeadStart(steps=0)


@pytest.mark.parametrize("n", [1, 5, 6, 9, 50])
def test_the_interval_of_the_median_holds_95_percent(n: int) -> None:
    values = torch.randperm(n, generator=torch.Generator().manual_seed(0)).tolist()
    median = Median(values)
    assert median.value == pytest.approx(np.median(values))
    if n < 6:
        assert median.interval is None
        return
    low, high = median.interval  # 0, 1, ... are their own ranks
    assert low + high == n - 1

    def outside(below: int) -> float:  # P(Binomial(n, 1/2) <= below), both sides
        return 2 * sum(math.comb(n, i) for i in range(below + 1)) / 2**n

    assert outside(low) <= 0.05 < outside(low + 1)


def evaluated(learner: MAML, **options: int) -> str:
    torch.manual_seed(0)
    tasks = Sinusoid(10)
    report = HeadStart(**options)(learner, tasks, TestPlan(n=40, seed=1))
    json.dumps(report.as_dict(), allow_nan=False)
    return str(report)


def test_on_sinusoids_only_a_trained_learner_has_a_head_start() -> None:
    torch.manual_seed(0)
    tasks = Sinusoid(10)
    learner = MAML.build(tasks.spec, inner_lr=0.02, inner_steps=3)
    before = evaluated(learner, tasks=20, steps=40)
    assert "MAML does not reach the mse of training from scratch" in before
    assert "times as fast" not in before
    assert "speedup" not in before
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    for _ in meta_train(learner, tasks, steps=400, batch=16, optimizer=optimizer):
        pass
    after = evaluated(learner, tasks=20, steps=40)
    assert "times as fast (95 % interval" in after
    assert "median speedup" in after
    assert "still improving after 40 steps" in after


def test_the_report_has_both_methods_and_the_tasks_of_the_plan() -> None:
    learner = maml(2.0, inner_steps=3)
    evaluation = EVALUATIONS["head-start"](tasks=50, steps=10)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    report = evaluation(learner, Lines(), TestPlan(n=4, labels={"shots": 6}))
    assert torch.equal(torch.random.get_rng_state(), state)
    ours, theirs = report.tables[0].rows
    assert ours.labels["method"] == "MAML"
    assert theirs.labels["method"] == "from scratch"
    assert theirs.labels["learning rate"] in head_start.RATES
    assert ours.labels["shots"] == theirs.labels["shots"] == 6
    assert {value.n for row in (ours, theirs) for value in row.values} == {4}
    assert ours.values[1].mean == pytest.approx(3)
    assert ours.values[0].mean < 25


def test_the_evaluation_needs_tasks_that_a_network_can_be_trained_on() -> None:
    with pytest.raises(InnerloopTypeError, match="from scratch needs tasks of"):
        HeadStart()(maml(1.0), copy(), TestPlan())


def test_a_learner_adapts_as_in_use() -> None:
    learner = maml(1.0, inner_steps=4)
    found = measured(learner, n=200, steps=5)
    tested = meta_test(learner, Lines(), n=200).metrics["mse"]
    assert found.learner.mean == pytest.approx(
        tested.mean, abs=2 * (tested.interval + found.learner.interval)
    )
