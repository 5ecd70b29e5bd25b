"""Reports of environments."""

from dataclasses import asdict
from typing import ClassVar

import pytest
import torch

from innerloop import LSTM, MAML, RL2, ProtoNet, TaskSpec
from innerloop.core.learner import Learner
from innerloop.engine.progress import watched
from innerloop.measurements import Report, TestPlan
from innerloop.rl import (
    LIKELIHOODS,
    Bandits,
    Environment,
    MDPs,
    MetaPolicyGradient,
    Navigation,
    Policy,
    PolicyGradient,
    baseline_rewards,
    evaluation,
)

PLAN = TestPlan(n=50, labels={"arms": 2})


def test_a_learner_that_streams_is_reported_beside_the_baselines() -> None:
    environment = MDPs(3, 2, 2, 3, split="test")
    torch.manual_seed(0)
    learner = LSTM.build(environment.spec, likelihood=Policy(value=True), hidden=6)
    report = environment.evaluate(learner, PLAN)
    total, episodes = report.tables
    assert [row.labels["agent"] for row in total.rows] == [
        "LSTM",
        *environment.baselines(),
    ]
    assert all(row.labels["arms"] == 2 for row in total.rows)
    assert all(row.values[0].name == "reward" for row in total.rows)
    assert total.rows[0].values[0].n == 50
    assert [row.labels["episode"] for row in episodes.rows] == [1, 2, 3]
    assert sum(row.values[0].mean for row in episodes.rows) == pytest.approx(
        total.rows[0].values[0].mean
    )
    assert environment.evaluate(learner, PLAN) == report
    assert environment.evaluate(learner, TestPlan(n=50, seed=1)) != report
    assert Report.from_dict(report.as_dict()) == report


class CountedBandits(Bandits):
    """Bandits that record how many tasks are drawn, and played, at once."""

    sizes: ClassVar[list[int]] = []

    def sample_params(self, n: int, generator: torch.Generator) -> torch.Tensor:
        self.sizes.append(n)
        return super().sample_params(n, generator)

    def observe(self, params: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(params))
        return super().observe(params, state)


def test_many_tasks_are_drawn_and_played_in_batches() -> None:
    environment = CountedBandits(2, 3, split="test")
    environment.sizes.clear()
    torch.manual_seed(0)
    learner = RL2.build(environment.spec, likelihood=Policy(value=True), hidden=4)
    done: list[tuple[int, int]] = []
    with watched(lambda *progress: done.append(progress)):
        report = environment.evaluate(learner, TestPlan(n=2100))
    assert max(environment.sizes) <= 1000
    assert all(row.values[0].n == 2100 for row in report.tables[0].rows)
    learning = [(500, 2100), (1000, 2100), (1500, 2100), (2000, 2100), (2100, 2100)]
    assert done == [*learning, (1000, 2100), (2000, 2100), (2100, 2100)]


@pytest.mark.parametrize("adapts", [False, True])
def test_a_plan_of_many_tasks_is_that_of_its_parts(
    adapts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner: Learner
    environment: Environment
    torch.manual_seed(0)
    if adapts:
        environment = Navigation(horizon=3, episodes=2, split="test")
        policy = MetaPolicyGradient().likelihood(environment)
        learner = MAML.build(environment.spec, likelihood=policy)
    else:
        environment = MDPs(3, 2, 2, 3, split="test")
        learner = LSTM.build(environment.spec, likelihood=Policy(value=True), hidden=4)

    def means(plan: TestPlan) -> torch.Tensor:
        rows = [r for t in environment.evaluate(learner, plan).tables for r in t.rows]
        return torch.tensor([row.values[0].mean for row in rows])

    whole = means(TestPlan(n=45, seed=5))
    monkeypatch.setattr(evaluation, "BLOCK", 45)
    assert torch.equal(means(TestPlan(n=45, seed=5)), whole)
    monkeypatch.setattr(evaluation, "BLOCK", 20)
    divided = means(TestPlan(n=45, seed=5))
    first, second, third = evaluation.parts(TestPlan(n=45, seed=5))
    assert [first.n, second.n, third.n] == [20, 20, 5]
    assert first.seed == 5
    assert len({first.seed, second.seed, third.seed}) == 3
    expected = sum(part.n / 45 * means(part) for part in (first, second, third))
    torch.testing.assert_close(divided, expected)
    assert not torch.equal(means(first), means(second))


def test_a_random_agent_gets_the_mean_reward() -> None:
    environment = MDPs(horizon=5, episodes=4, split="test")
    found = baseline_rewards(environment, TestPlan(n=400))
    mean, interval = found["random"]
    assert interval is not None
    assert abs(mean - 20) < 3 * interval


def test_splits_are_tested_on_different_tasks_and_validation_without_baselines() -> (
    None
):
    torch.manual_seed(0)
    learner = RL2.build(Bandits(2, 4).spec, likelihood=Policy(value=True), hidden=4)
    reports = [
        Bandits(2, 4, split=split).evaluate(learner, TestPlan(n=200))
        for split in ("train", "val", "test")
    ]
    rewards = {report.tables[0].rows[0].values[0].mean for report in reports}
    assert len(rewards) == 3
    assert len(reports[1].tables[0].rows) == 1
    assert len(reports[2].tables[0].rows) > 1


@pytest.mark.parametrize(("steps", "at", "length"), [(None, 1, 4), (2, 2, 3)])
def test_a_learner_that_adapts_weights_is_reported_after_every_update(
    steps: int | None, at: int, length: int
) -> None:
    environment = Navigation(horizon=4, episodes=3, split="test")
    torch.manual_seed(0)
    policy = MetaPolicyGradient().likelihood(environment)
    learner = MAML.build(environment.spec, likelihood=policy)
    report = environment.evaluate(learner, TestPlan(n=30, steps=steps))
    (row,), curve = report.tables[0].rows, report.tables[1].rows
    assert [row.labels["updates"] for row in curve] == list(range(length))
    assert row.values == curve[at].values
    assert row.labels == {"agent": "MAML"}


def test_what_cannot_be_tested_is_refused() -> None:
    environment = Bandits(2, 4)
    with pytest.raises(TypeError, match=r"needs a learner that streams.*got ProtoNet"):
        environment.evaluate(
            ProtoNet.build(TaskSpec("classes", (1,), 2)), TestPlan(n=2)
        )
    with pytest.raises(TypeError, match="RL2 with likelihood=Policy"):
        environment.evaluate(RL2.build(environment.spec), TestPlan(n=2))


@pytest.mark.parametrize(
    "likelihood",
    [Policy(discrete=False), PolicyGradient(estimator="dice", value=True)],
)
def test_likelihoods_are_rebuilt_from_plain_data(likelihood: Policy) -> None:
    name = next(n for n, kind in LIKELIHOODS.items() if kind is type(likelihood))
    assert LIKELIHOODS[name](**asdict(likelihood)) == likelihood
