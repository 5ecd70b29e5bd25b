"""Environments of gymnasium: the task reaches the simulator, episodes begin and end as
they should.
"""

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
from innerloop.rl import half_cheetah, play
from innerloop.rl.gym import Gym
from innerloop.rl.policy_gradient import MetaPolicyGradient, PolicyGradient


class Counter(gymnasium.Env[Any, Any]):
    """Counts its steps; is over after as many as its task says, and rewards an action
    by its number.
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


def counting(
    actions: gymnasium.Space[Any], horizon: int, mode: str = "Disabled"
) -> Gym:
    return Gym(
        lambda n: gymnasium.vector.SyncVectorEnv(
            [lambda: Counter(actions)] * n, autoreset_mode=mode
        ),
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
    "actions", [gymnasium.spaces.Discrete(3), gymnasium.spaces.Box(-1, 1, (2,))]
)
def test_a_row_that_is_over_begins_anew_and_the_others_go_on(
    actions: gymnasium.Space[Any],
) -> None:
    environment = counting(actions, 4)
    learner, state = actor(environment)
    parameters = torch.tensor([[2.0], [3.0], [9.0]])
    for _ in range(2):  # the first play leaves rows in the middle of an episode
        played = play(
            learner,
            environment,
            parameters,
            torch.Generator().manual_seed(0),
            state=state,
            times=1,
            episodes=2,
        )
        assert played.x[:, 0, :, 0].tolist() == [
            [0, 1] * 4,
            [0, 1, 2] * 2 + [0, 1],
            [0, 1, 2, 3] * 2,
        ]
        assert played.over[:, 0].tolist() == [
            [0, 1] * 4,
            [0, 0, 1] * 2 + [0, 0],
            [0, 0, 0, 1] * 2,
        ]
        action = played.y[:, 0, :, :-2]
        reward = (
            action.argmax(-1).float()
            if environment.discrete
            else action.clamp(-1, 1).sum(-1)
        )
        torch.testing.assert_close(played.reward[:, 0], reward)


def test_what_resets_itself_or_cannot_be_seen_is_refused() -> None:
    with pytest.raises(ValueError, match="resets itself"):
        counting(gymnasium.spaces.Discrete(3), 4, "NextStep")
    with pytest.raises(ValueError, match="actions a Box or Discrete"):
        counting(gymnasium.spaces.MultiBinary(3), 4)


@pytest.fixture
def cheetah(request: pytest.FixtureRequest) -> Gym:
    pytest.importorskip(
        "mujoco", reason="MuJoCo is not installed: pip install 'innerloop[gym]'"
    )
    made = half_cheetah(asked=request.param, horizon=5)
    assert isinstance(made, Gym)
    return made


@pytest.mark.parametrize("cheetah", ["direction", "velocity"], indirect=True)
def test_the_cheetah_earns_what_it_is_asked_for(cheetah: Gym) -> None:
    asked = cheetah.draw(50, torch.Generator().manual_seed(0))
    if cheetah.simulator(1).get_attr("asked")[0] == "direction":
        assert set(asked.flatten().tolist()) == {-1.0, 1.0}
    else:
        assert 0 <= asked.min() < 0.5 < 1.5 < asked.max() <= 2
    asked = torch.tensor([[1.0], [-1.0]])
    where = cheetah.start(asked, torch.Generator().manual_seed(0))
    assert where.shape == (2, 17)
    action = torch.full((2, 6), 0.5)
    before = [env.unwrapped.data.qpos[0] for env in cheetah.simulator(2).envs]  # pyright: ignore[reportAttributeAccessIssue]
    where, reward, over = cheetah.step(asked, where, action, torch.Generator())
    after = [env.unwrapped.data.qpos[0] for env in cheetah.simulator(2).envs]  # pyright: ignore[reportAttributeAccessIssue]
    speed = (torch.tensor(after) - torch.tensor(before)) / 0.05
    direction = cheetah.simulator(1).get_attr("asked")[0] == "direction"
    expected = (
        asked[:, 0] * speed if direction else -(speed - asked[:, 0]).abs()
    ) - 0.1 * 6 * 0.25
    torch.testing.assert_close(reward, expected.float(), atol=1e-5, rtol=1e-5)
    assert not over.any()


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
            meta_gradient=MetaPolicyGradient(cheetah, episodes=2),
        )
    )
    assert {"reward_before", "reward"} <= set(steps[-1].metrics)
    assert any(
        not torch.equal(p, q) for p, q in zip(before, learner.parameters(), strict=True)
    )


def test_another_request_is_refused() -> None:
    with pytest.raises(ValueError, match='"direction" or "velocity", not \'height\''):
        half_cheetah(asked="height")  # pyright: ignore[reportArgumentType]
