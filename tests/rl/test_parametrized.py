"""Any environment of gymnasium with parameters that differ between tasks."""

# ruff: noqa: E402

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip(
    "gymnasium", reason="gymnasium is not installed: pip install 'innerloop[gym]'"
)

from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from innerloop import Choice, Experiment, InnerloopError, TestPlan
from innerloop.cli.train import command as train_command
from innerloop.rl import gym_tasks
from innerloop.rl.baselines import RandomActions
from innerloop.rl.family import Family
from innerloop.rl.gym import Rows
from innerloop.rl.parameters import Parameter
from innerloop.rl.parametrized import Parametrized, Together
from innerloop.rl.rollout import interact

OWN = '''
import gymnasium


class Buttons(gymnasium.Env):
    """One of three buttons is right; episodes have five steps."""

    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, button=0, config=None, name="x"):
        self.button, self.config = button, {"bonus": 1.0, "kind": "a", **(config or {})}
        self.scale = 2.0
        self.twice = 2 * self.scale

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return 0, {}

    def step(self, action):
        self.time += 1
        right = int(action == self.button)
        reward = right * self.config["bonus"] * self.twice
        return right, reward, self.time == 5, False, {}


class Needy(Buttons):
    def __init__(self, button):
        super().__init__(button)
'''
CARTPOLE = "masspole=0.05:0.5 length=0.25:1.0 force_mag=5:15"


def family(env: str, vary: str) -> Family:
    return Family(env, [Parameter.parse(word) for word in vary.split()])


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path / 'own.py'}:Buttons"


def test_ranges_and_choices_are_drawn_as_they_say() -> None:
    rng = torch.Generator().manual_seed(0)
    real = Parameter.parse("a=-1.5:2").sample(2000, rng)
    assert -1.5 <= real.min() < -1.4 < 1.9 < real.max() <= 2
    assert float(real.mean()) == pytest.approx(0.25, abs=0.1)
    choices = Parameter.parse("b=0.1,slow,true,7")
    found = {choices.value(float(number)) for number in choices.sample(200, rng)}
    assert found == {0.1, "slow", True, 7}
    whole = Parameter("c", (1, 3), True, True)
    assert {whole.value(float(n)) for n in whole.sample(200, rng)} == {1, 2, 3}


def test_the_flag_can_be_repeated() -> None:
    words = ["train", "rl2", "gym", "--env", "X-v0", "--out", "run"]
    context = train_command.make_context("train", words[1:])
    assert context.params["tasks__vary"] is None
    both = ["--vary", "a=1,2", "--vary", "b=1:2"]
    context = train_command.make_context("train", [*words[1:], *both])
    assert context.params["tasks__vary"] == "a=1,2 b=1:2"


@pytest.mark.parametrize(
    "word", ["a", "a=", "a=1:", "a=2:1", "a=1:2:3", "a=x:y", "1a=1:2", "a=1,,2", "=1:2"]
)
def test_other_texts_are_refused(word: str) -> None:
    with pytest.raises(InnerloopError, match="must be NAME=LOW:HIGH"):
        Parameter.parse(word)


def test_parameters_reach_the_constructor_its_config_and_attributes(own: str) -> None:
    some = family(own, "button=0:2 bonus=0.5:2 kind=a,b scale=1:4")
    assert some.given == {
        "button": "keywords",
        "bonus": "config",
        "kind": "config",
        "scale": "attributes",
    }
    assert [each.whole for each in some.parameters] == [True, False, False, False]
    env = some.make(np.array([2.0, 1.5, 1.0, 3.0])).unwrapped
    assert (env.button, env.scale) == (2, 3.0)
    assert env.config == {"bonus": 1.5, "kind": "b"}
    assert env.twice == 6.0  # what the constructor computes from it follows
    needy = family(own.replace("Buttons", "Needy"), "button=1,2")
    assert needy.make(np.array([1.0])).unwrapped.button == 2


def test_what_an_environment_does_not_take_is_said(own: str) -> None:
    with pytest.raises(
        InnerloopError, match=r"no parameter 'buton': did you mean 'but"
    ):
        family(own, "buton=0,1")
    with pytest.raises(
        InnerloopError, match=r"config: bonus, kind; attributes: .*scale"
    ):
        family(own, "zzz=0,1")
    with pytest.raises(InnerloopError, match="more than once"):
        family(own, "scale=0,1 scale=2,3")
    with pytest.raises(InnerloopError, match="at least one parameter"):
        family(own, "")
    with pytest.raises(InnerloopError, match="cannot be made with map_name = 9x9"):
        family("FrozenLake-v1", "map_name=9x9")
    for name in ("NoSuch-v0", "no_such_module:NoSuch-v0"):
        with pytest.raises(InnerloopError, match="there is no environment"):
            family(name, "a=1,2")
    with pytest.raises(InnerloopError, match="set horizon"):
        gym_tasks(env=own, vary="button=0,1,2")


def test_parameters_without_effect_are_named(own: str) -> None:
    environment = gym_tasks(env=own, vary="button=0,1 name=x,y kind=a", horizon=5)
    assert environment.note.startswith("name made no difference to 20 steps")
    assert not gym_tasks(env="CartPole-v1", vary=CARTPOLE).note


def test_one_vector_class_moves_as_single_environments_do() -> None:
    some = family("CartPole-v1", CARTPOLE)
    assert some.vector is not None
    params = some.sample(6, torch.Generator().manual_seed(0))
    seeds, steps = [7] * 6, 12
    fast = Together(some, 50)
    observed = fast.begin(params.numpy(), seeds)
    slow = Rows(some.make, 6)
    slow.begin(params.numpy(), seeds)
    for env, row in zip(slow.envs, observed, strict=True):
        assert env is not None
        env.unwrapped.state = row.astype(np.float64)  # pyright: ignore
        assert env.unwrapped.total_mass == env.unwrapped.masspole + 1  # pyright: ignore
    active = np.ones(6, dtype=bool)
    for step in range(steps):
        action = (np.arange(6) + step) % 2
        one, other = fast.step(action, active), slow.step(action, active)
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        active &= ~one[2]
    assert active.any()


class Mixed(CartPoleVectorEnv):
    """A vector class that gives all rows the parameters of the first one."""

    def step(self, action: Any) -> Any:
        observed, reward, *rest = super().step(action)
        return observed, reward * np.ravel(self.force_mag)[0], *rest


class Blind(gymnasium.vector.VectorEnv):
    """A vector class without the parameters."""

    def __init__(self, num_envs: int):
        self.num_envs = num_envs

    def reset(self, **kwargs: Any) -> Any:
        return np.zeros((self.num_envs, 4)), {}

    def step(self, actions: Any) -> Any:
        zeros = np.zeros(self.num_envs)
        return np.zeros((self.num_envs, 4)), zeros, zeros > 0, zeros > 0, {}


@pytest.mark.parametrize("vector", [Mixed, Blind])
def test_a_vector_class_that_confuses_rows_is_not_used(vector: Any) -> None:
    some = family("CartPole-v1", CARTPOLE)
    some.spec = replace(some.spec, vector_entry_point=vector)
    assert some.vector is None
    assert isinstance(Parametrized(some, 5).simulator(2), Rows)


def test_splits_share_no_task() -> None:
    rows = {
        split: gym_tasks(split, env="CartPole-v1", vary=CARTPOLE)
        .sample(50, torch.Generator().manual_seed(0))
        .support.x[:, 0]
        for split in ("train", "val", "test")
    }
    assert len(torch.cat(list(rows.values())).unique(dim=0)) == 150


@pytest.mark.parametrize(
    ("env", "vary", "discrete"),
    [
        ("Pendulum-v1", "g=5:15 m=0.5:2", False),
        ("Acrobot-v1", "LINK_LENGTH_1=0.5:1.5", True),
        ("FrozenLake-v1", "is_slippery=true,false", True),
    ],
)
def test_environments_of_gymnasium_are_played(
    env: str, vary: str, discrete: bool
) -> None:
    environment = gym_tasks(env=env, vary=vary, horizon=3, episodes=2)
    assert isinstance(environment, Parametrized)
    assert environment.discrete == discrete
    rng = torch.Generator().manual_seed(0)
    params = environment.params_of(environment.sample(2, rng))
    agent = RandomActions(environment, rng)
    steps = list(interact(agent, environment, params, rng, environment.steps))
    assert all(step.x.isfinite().all() for step in steps)
    if not discrete:
        actions = torch.stack([step.y[:, 0] for step in steps])
        assert actions.unique().numel() == 12
        assert actions.abs().max() <= 1


def test_a_users_own_environment_is_trained_and_tested(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"env": "own.py:Buttons", "vary": "button=2 scale=1:2", "horizon": 5}
    experiment = Experiment(
        Choice("pearl", {"hidden": 16}),
        Choice("gym", options),
        training={"batch": 16, "lr": 3e-2},
        steps=24,
    )
    learner = experiment.train(tmp_path / "run")
    monkeypatch.chdir("/")
    report = Experiment.load(tmp_path / "run").test(learner, TestPlan(n=100))
    reward = {row.labels["agent"]: row.values[0].mean for row in report.tables[0].rows}
    assert reward["random"] == pytest.approx(15 * 3 / 3, rel=0.2)
    assert reward["PEARL"] > 1.5 * reward["random"]
    assert [row.labels["episode"] for row in report.tables[1].rows] == [1, 2, 3]
