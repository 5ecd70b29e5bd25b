"""Environments of gymnasium: tasks reach the simulators, episodes start and end."""

# ruff: noqa: E402

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

gymnasium = pytest.importorskip(
    "gymnasium", reason="gymnasium is not installed: pip install 'innerloop[gym]'"
)

from innerloop import MAML, meta_train
from innerloop.rl import MetaPolicyGradient, PolicyGradient, half_cheetah, rollout
from innerloop.rl.baselines import RandomActions
from innerloop.rl.gym import Gym, Rows
from innerloop.rl.rollout import interact


class Counter(gymnasium.Env[Any, Any]):
    """Counts its steps; an episode has as many as the task says, and the reward is the
    index of the action.
    """

    observation_space = gymnasium.spaces.Box(-100, 100, (1,))
    task = np.ones(1)

    def __init__(self, actions: gymnasium.Space[Any]):
        self.action_space, self.steps = actions, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return (
            np.full(1, self.steps, dtype=np.float32),
            float(np.sum(action)),
            self.steps >= self.task[0],
            False,
            {},
        )


def counting(actions: gymnasium.Space[Any], horizon: int) -> Gym:
    def make(params: Any, old: Any) -> Counter:
        env = Counter(actions)
        env.task = params
        return env

    return Gym(
        lambda n: Rows(make, n),
        Counter.observation_space,
        actions,
        lambda n, generator: torch.arange(1.0, n + 1)[:, None],
        horizon,
    )


def actor(environment: Gym) -> tuple[MAML, dict[str, Tensor]]:
    torch.manual_seed(0)
    learner = MAML.build(
        environment.spec,
        inner_lr=0.1,
        likelihood=PolicyGradient(discrete=environment.discrete),
    )
    return learner, {
        name: w.detach().expand(3, *w.shape)
        for name, w in learner.net.named_parameters()
    }


@pytest.mark.parametrize(
    "actions", [gymnasium.spaces.Discrete(3), gymnasium.spaces.Box(-3, 3, (2,))]
)
def test_an_episode_that_has_ended_waits_for_the_others(
    actions: gymnasium.Space[Any],
) -> None:
    environment = counting(actions, 4)
    learner, state = actor(environment)
    parameters = torch.tensor([[2.0], [3.0], [9.0]])
    for _ in range(2):
        played = rollout(
            learner,
            environment,
            parameters,
            torch.Generator().manual_seed(0),
            state=state,
            repeats=1,
            episodes=2,
        )
        assert played.x[:, 0, :, 0].tolist() == [
            [0, 1, 2, 2] * 2,
            [0, 1, 2, 3] * 2,
            [0, 1, 2, 3] * 2,
        ]
        assert played.done[:, 0].tolist() == [
            [0, 1, 1, 1] * 2,
            [0, 0, 1, 1] * 2,
            [0, 0, 0, 1] * 2,
        ]
        action = played.y[:, 0, :, :-2]
        reward = (
            action.argmax(-1).float()
            if environment.discrete
            else 3 * action.clamp(-1, 1).sum(-1)
        )
        idle = torch.tensor([[0, 0, 1, 1] * 2, [0, 0, 0, 1] * 2, [0, 0, 0, 0] * 2])
        torch.testing.assert_close(played.reward[:, 0], reward * (1 - idle))
    # a rollout that ends in the middle of an episode leaves nothing to the next one
    rng = torch.Generator().manual_seed(0)
    for _ in range(2):
        steps = interact(
            RandomActions(environment, rng), environment, parameters, rng, 8
        )
        assert [next(steps).x[2].item() for _ in range(3)] == [0, 1, 2]
        parameters = parameters.clone()


def test_other_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match="actions a Box or Discrete; got"):
        counting(gymnasium.spaces.MultiBinary(3), 4)


@pytest.fixture
def cheetah(request: pytest.FixtureRequest) -> Gym:
    pytest.importorskip(
        "mujoco", reason="MuJoCo is not installed: pip install 'innerloop[gym]'"
    )
    made = half_cheetah(goal=request.param, horizon=5)
    assert isinstance(made, Gym)
    return made


def positions(cheetah: Gym) -> torch.Tensor:
    simulator = cheetah.simulator(2)
    assert isinstance(simulator, Rows)
    envs: list[Any] = simulator.envs
    return torch.tensor([env.unwrapped.data.qpos[0] for env in envs])


@pytest.mark.parametrize("cheetah", ["direction", "velocity"], indirect=True)
def test_the_cheetah_is_rewarded_for_its_goal(cheetah: Gym) -> None:
    drawn = cheetah.sample_params(50, torch.Generator().manual_seed(0))
    direction = "direction" in cheetah.title
    if direction:
        assert set(drawn.flatten().tolist()) == {-1.0, 1.0}
    else:
        assert 0 <= drawn.min() < 0.5 < 1.5 < drawn.max() <= 2
    goal = torch.tensor([[1.0], [-1.0]])
    state = cheetah.start(goal, torch.Generator().manual_seed(0))
    assert state.shape == (2, 17)
    before = positions(cheetah)
    state, reward, done = cheetah.step(
        goal, state, torch.full((2, 6), 0.5), torch.Generator()
    )
    speed = (positions(cheetah) - before) / 0.05
    earned = goal[:, 0] * speed if direction else -(speed - goal[:, 0]).abs()
    expected = earned - 0.1 * 6 * 0.25
    torch.testing.assert_close(reward, expected.float(), atol=1e-5, rtol=1e-5)
    assert not done.any()


@pytest.mark.parametrize("cheetah", ["direction"], indirect=True)
def test_a_learner_trains_on_the_cheetah(cheetah: Gym) -> None:
    learner, _ = actor(cheetah)
    before = [p.detach().clone() for p in learner.parameters()]
    steps = list(
        meta_train(
            learner,
            cheetah,
            steps=2,
            batch=2,
            meta_gradient=MetaPolicyGradient(episodes=2),
        )
    )
    assert {"reward_before", "reward"} <= set(steps[-1].metrics)
    assert any(
        not torch.equal(p, q) for p, q in zip(before, learner.parameters(), strict=True)
    )


def test_another_goal_is_refused() -> None:
    with pytest.raises(ValueError, match="one of direction, velocity; got 'height'"):
        half_cheetah(goal="height")  # pyright: ignore[reportArgumentType]
