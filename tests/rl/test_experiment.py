"""Experiments in environments: defaults, and runs that are loaded and tested."""

from pathlib import Path

import pytest

from innerloop import MAML, Experiment, load
from innerloop.experiment import Choice
from innerloop.measurements import TestPlan
from innerloop.rl import Policy, PolicyGradient


@pytest.mark.parametrize(
    ("learner", "tasks", "meta_gradient"),
    [
        ("rl2", "bandits", "ppo"),
        ("lstm", "bandits", "ppo"),
        ("neat", "bandits", "neat"),
        ("maml", "navigation", "policy-gradient"),
    ],
)
def test_the_default_meta_gradient_acts(
    learner: str, tasks: str, meta_gradient: str
) -> None:
    resolved, _ = Experiment(learner, tasks, steps=1).resolve()
    assert resolved.meta_gradient is not None
    assert resolved.meta_gradient.name == meta_gradient


def test_a_run_of_maml_keeps_its_policy(tmp_path: Path) -> None:
    experiment = Experiment(
        "maml",
        Choice("navigation", {"horizon": 4, "episodes": 3}),
        Choice("policy-gradient", {"estimator": "dice"}),
        training={"batch": 2},
        steps=2,
    )
    learner = experiment.train(tmp_path / "run")
    assert learner.likelihood == PolicyGradient(discrete=False, estimator="dice")
    assert isinstance(learner, MAML)
    assert learner.inner_lr == 0.1
    loaded = load(tmp_path / "run")
    assert loaded.likelihood == learner.likelihood
    first, curve = Experiment.load(tmp_path / "run").test(loaded, TestPlan(n=6)).tables
    assert len(curve.rows) == 4
    assert first.rows[0].values == curve.rows[1].values


def test_a_run_is_tested_beside_the_baselines(tmp_path: Path) -> None:
    experiment = Experiment(
        Choice("lstm", {"hidden": 6}),
        Choice("mdps", {"episodes": 2}),
        training={"batch": 16},
        steps=1,
    )
    learner = experiment.train(tmp_path / "run")
    assert learner.likelihood == Policy(value=True)
    total, episodes = (
        Experiment.load(tmp_path / "run").test(learner, TestPlan(n=20)).tables
    )
    reward = {row.labels["agent"]: row.values[0].mean for row in total.rows}
    assert {"LSTM", "random", "PSRL"} <= set(reward)
    assert reward["LSTM"] == pytest.approx(20, abs=5)
    assert reward["random"] == pytest.approx(20, abs=5)
    assert len(episodes.rows) == 2
