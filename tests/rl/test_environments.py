"""Environments are what their papers say."""

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from innerloop.engine.options import options
from innerloop.rl import (
    ENVIRONMENTS,
    LIKELIHOODS,
    Bandits,
    Environment,
    Mazes,
    MDPs,
    Navigation,
)

REQUIRED = {"gym": {"env": "CartPole-v1", "vary": "masspole=0.05:0.5"}}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str, split: str = "train") -> Environment:
    if name == "half-cheetah":
        pytest.importorskip("mujoco", reason="MuJoCo is not installed")
    if name == "gym":
        pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    return ENVIRONMENTS[name](split, **REQUIRED.get(name, {}))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_steps_fit_the_spec_and_a_seed_fixes_them(name: str) -> None:
    environment = built(name)
    runs = []
    for _ in range(2):
        rng = generator()
        params = environment.params_of(environment.sample(5, rng))
        state = environment.start(params, rng)
        observed = environment.observe(params, state)
        assert observed.shape == (5, *environment.spec.x_shape)
        index = torch.arange(5) % environment.actions
        action = F.one_hot(index, environment.actions).float()
        following, reward, done = environment.step(params, state, action, rng)
        assert following.shape == state.shape
        assert reward.shape == done.shape == (5,)
        assert done.dtype == torch.bool
        runs.append((params, following, reward))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert environment.spec.y_dim == environment.actions + 2


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_answers_for_itself(name: str) -> None:
    environment = built(name)
    assert environment.played
    assert str(environment.horizon) in environment.describe()
    policy = environment.likelihood()
    assert policy.discrete == environment.discrete
    assert type(policy) in LIKELIHOODS.values()
    assert environment.objective() is not None
    described = options(ENVIRONMENTS[name])
    assert all(option.help for option in described.values()), described


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_unknown_splits_and_options_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="split must be one of train, val, test; got"):
        ENVIRONMENTS[name]("tests")
    for option in options(ENVIRONMENTS[name]).values():
        if option.type is int:
            with pytest.raises(ValueError, match=f"{option.name} .*must be.*; got 0"):
                ENVIRONMENTS[name](**{option.name: 0})


@pytest.mark.parametrize(
    "make",
    [
        lambda split: Bandits(3, 5, split=split),
        lambda split: MDPs(2, 2, 2, 2, split),
        lambda split: Navigation(split=split),
    ],
)
def test_splits_share_no_task_even_for_the_same_seed(
    make: Callable[[str], Environment],
) -> None:
    rows = torch.cat(
        [
            environment.params_of(environment.sample(20, generator(seed)))
            for environment in map(make, ("train", "val", "test"))
            for seed in (0, 1)
        ]
    )
    assert len(rows.unique(dim=0)) == 120


@pytest.mark.parametrize(
    "environment",
    [Bandits(3, 5), Bandits(3, 5, "gaussian"), MDPs(4, 3, 5, 2)],
    ids=["bernoulli", "gaussian", "mdps"],
)
def test_the_mean_of_rewards_is_the_expected_reward(environment: Environment) -> None:
    params = environment.sample_params(6, generator()).repeat_interleave(4000, 0)
    state = environment.start(params, generator())
    action = F.one_hot(
        torch.arange(6).repeat_interleave(4000) % environment.actions,
        environment.actions,
    ).float()
    reward = environment.step(params, state, action, generator(1))[1]
    expected = environment.expected_reward(params, state, action)
    assert expected is not None
    torch.testing.assert_close(
        reward.view(6, -1).mean(1), expected.view(6, -1)[:, 0], atol=0.06, rtol=0
    )


def test_mdps_move_as_their_tables_say() -> None:
    environment = MDPs(4, 2, 5, 2)
    one = environment.sample_params(1, generator())
    P = environment.tables(one)[1]
    torch.testing.assert_close(P.sum(-1), torch.ones(1, 4, 2))
    following = environment.step(
        one.expand(8000, -1),
        torch.tensor([[2.0, 0.0]]).expand(8000, 2),
        F.one_hot(torch.ones(8000).long(), 2).float(),
        generator(),
    )[0]
    assert following[:, 1].eq(1).all()  # the index of the step
    torch.testing.assert_close(
        F.one_hot(following[:, 0].long(), 4).float().mean(0),
        P[0, 2, 1],
        atol=0.02,
        rtol=0,
    )
    R, P, _ = environment.tables(environment.sample_params(4000, generator()))
    torch.testing.assert_close(
        torch.stack([R.mean(), R.std(), P.mean()]),
        torch.tensor([1.0, 1.0, 0.25]),
        atol=0.03,
        rtol=0,
    )
    # of a flat Dirichlet: mean (1 - mean) / (states + 1)
    assert float(P.var()) == pytest.approx(0.25 * 0.75 / 5, rel=0.03)


def test_the_training_reward_of_a_trial_is_the_return_less_the_optimal_one() -> None:
    """By brute force: the training reward, summed over all that may happen, is the
    value of a policy less that of the optimal policy.
    """
    environment = MDPs(2, 2, 3, 1)
    row = environment.sample_params(1, generator())
    R, P, _ = (table[0] for table in environment.tables(row))
    # an action for every step and state
    policies = [
        torch.tensor(bits).view(3, 2) for bits in itertools.product((0, 1), repeat=6)
    ]

    def value(
        policy: torch.Tensor,
        step: int,
        s: int,
        reward: Callable[[int, int, int], float],
    ) -> float:
        if step == 3:
            return 0.0
        a = int(policy[step, s])
        return reward(step, s, a) + sum(
            float(P[s, a, t]) * value(policy, step + 1, t, reward) for t in range(2)
        )

    def training(step: int, s: int, a: int) -> float:
        return float(
            environment.training_reward(
                row,
                torch.tensor([[float(s), float(step)]]),
                F.one_hot(torch.tensor([a]), 2).float(),
            )
        )

    rewards = [
        value(policy, 0, 0, lambda step, s, a: float(R[s, a])) for policy in policies
    ]
    for policy, reward in zip(policies, rewards, strict=True):
        assert value(policy, 0, 0, training) == pytest.approx(
            reward - max(rewards), abs=1e-5
        )


def test_every_room_of_a_maze_is_reached_through_doors_that_open_both_ways() -> None:
    environment = Mazes(4, loops=0.0)
    for row in environment.sample_params(20, generator()):
        doors, goal = row[:64].view(16, 4).bool(), row[64:]
        assert goal.sum() == 1
        assert goal[0] == 0
        reached, edge = {0}, [0]
        while edge:
            room = edge.pop()
            for direction, by in enumerate((-4, 1, 4, -1)):
                if doors[room, direction]:
                    assert doors[room + by, (direction + 2) % 4]
                    if room + by not in reached:
                        reached.add(room + by)
                        edge.append(room + by)
        assert reached == set(range(16))
        assert doors.sum() == 2 * 15  # a tree
    assert (
        environment.sample_params(200, generator(1))[:, :64].sum()
        < Mazes(4, loops=0.3).sample_params(200, generator(1))[:, :64].sum()
    )


def test_walls_stop_and_goals_reward_and_end_the_episode() -> None:
    environment = Mazes(3)
    row = torch.zeros(1, 45)
    # one door, between rooms 0 and 1; the goal in room 1
    row[0, 0 * 4 + 1] = row[0, 1 * 4 + 3] = row[0, 36 + 1] = 1
    start = environment.start(row, generator())
    assert environment.observe(row, start)[0].tolist() == [1, *[0] * 8, 0, 1, 0, 0]
    for direction, (room, reward) in enumerate([(0, 0), (1, 1), (0, 0), (0, 0)]):
        action = F.one_hot(torch.tensor([direction]), 4).float()
        state, found, done = environment.step(row, start, action, generator())
        assert (int(state), float(found), bool(done)) == (room, reward, reward == 1)


def test_impossible_environments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 action, step and episode; got"):
        Bandits(0, 5)
    with pytest.raises(ValueError, match="got 'poisson'"):
        Bandits(2, 5, "poisson")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="size of at least 2"):
        Mazes(1)
