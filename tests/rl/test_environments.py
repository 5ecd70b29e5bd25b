"""Tasks that are played are what their papers say."""

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from innerloop.rl import PLAYED, Bandits, Environment, Mazes, MDPs


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", PLAYED)
def test_steps_fit_the_spec_and_a_seed_fixes_them(name: str) -> None:
    environment = PLAYED[name]("train")
    runs = []
    for _ in range(2):
        drawn = generator()
        parameters = environment.sample(5, drawn).support.x[:, 0]
        where = environment.start(parameters, drawn)
        assert environment.look(parameters, where).shape == (
            5,
            *environment.spec.x_shape,
        )
        action = F.one_hot(
            torch.arange(5) % environment.actions, environment.actions
        ).float()
        after, reward, over = environment.step(parameters, where, action, drawn)
        assert (after.shape, reward.shape, over.shape, over.dtype) == (
            where.shape,
            (5,),
            (5,),
            torch.bool,
        )
        runs.append((parameters, after, reward))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert environment.spec.y_dim == environment.actions + 2
    with pytest.raises(ValueError, match="a part is one of"):
        PLAYED[name]("tests")


@pytest.mark.parametrize(
    "environment",
    [Bandits(3, 5), Bandits(3, 5, "gaussian"), MDPs(4, 3, 5, 2)],
    ids=["bernoulli", "gaussian", "mdps"],
)
def test_rewards_are_what_is_expected_of_them(environment: Environment) -> None:
    parameters = environment.draw(6, generator()).repeat_interleave(4000, 0)
    where = environment.start(parameters, generator())
    action = F.one_hot(
        torch.arange(6).repeat_interleave(4000) % environment.actions,
        environment.actions,
    ).float()
    reward = environment.step(parameters, where, action, generator(1))[1]
    expected = environment.expected(parameters, where, action)
    assert expected is not None
    torch.testing.assert_close(
        reward.view(6, -1).mean(1), expected.view(6, -1)[:, 0], atol=0.06, rtol=0
    )


def test_mdps_move_as_their_tables_say() -> None:
    environment = MDPs(4, 2, 5, 2)
    one = environment.draw(1, generator())
    P = environment.tables(one)[1]
    torch.testing.assert_close(P.sum(-1), torch.ones(1, 4, 2))
    where = torch.tensor([[2.0, 0.0]]).expand(8000, 2)
    after = environment.step(
        one.expand(8000, -1),
        where,
        F.one_hot(torch.ones(8000).long(), 2).float(),
        generator(),
    )[0]
    # the step, by which what is left of an episode is counted
    assert after[:, 1].eq(1).all()
    torch.testing.assert_close(
        F.one_hot(after[:, 0].long(), 4).float().mean(0), P[0, 2, 1], atol=0.02, rtol=0
    )
    many = environment.tables(environment.draw(4000, generator()))
    torch.testing.assert_close(
        torch.stack([many[0].mean(), many[0].std(), many[1].mean()]),
        torch.tensor([1.0, 1.0, 0.25]),
        atol=0.03,
        rtol=0,
    )
    # of a flat Dirichlet: mean (1 - mean) / (states + 1)
    assert float(many[1].var()) == pytest.approx(0.25 * 0.75 / 5, rel=0.03)


def test_the_credit_of_a_trial_is_its_reward_less_the_best_policy_s() -> None:
    """With the tables known, by brute force: the credit along all that may happen adds
    up to what a policy is worth less what the best one is.
    """
    environment = MDPs(2, 2, 3, 1)
    row = environment.draw(1, generator())
    R, P = (table[0] for table in environment.tables(row))
    # an action for every step and state
    policies = [
        torch.tensor(bits).view(3, 2) for bits in itertools.product((0, 1), repeat=6)
    ]

    def worth(
        policy: torch.Tensor, step: int, s: int, judge: Callable[[int, int, int], float]
    ) -> float:
        if step == 3:
            return 0.0
        a = int(policy[step, s])
        return judge(step, s, a) + sum(
            float(P[s, a, t]) * worth(policy, step + 1, t, judge) for t in range(2)
        )

    def credit(step: int, s: int, a: int) -> float:
        return float(
            environment.credit(
                row,
                torch.tensor([[float(s), float(step)]]),
                F.one_hot(torch.tensor([a]), 2).float(),
            )
        )

    rewards = [
        worth(policy, 0, 0, lambda step, s, a: float(R[s, a])) for policy in policies
    ]
    for policy, reward in zip(policies, rewards, strict=True):
        assert worth(policy, 0, 0, credit) == pytest.approx(
            reward - max(rewards), abs=1e-5
        )


def test_every_room_of_a_maze_is_reached_through_doors_that_lead_both_ways() -> None:
    environment = Mazes(4, loops=0.0)
    for row in environment.draw(20, generator()):
        doors, goal = row[:64].view(16, 4).bool(), row[64:]
        assert goal.sum() == 1
        assert goal[0] == 0
        reached, edge = {0}, [0]
        while edge:
            room = edge.pop()
            for way, by in enumerate((-4, 1, 4, -1)):
                if doors[room, way]:
                    assert doors[room + by, (way + 2) % 4]
                    if room + by not in reached:
                        reached.add(room + by)
                        edge.append(room + by)
        assert reached == set(range(16))
        assert doors.sum() == 2 * 15  # a tree
    assert (
        environment.draw(200, generator(1))[:, :64].sum()
        < Mazes(4, loops=0.3).draw(200, generator(1))[:, :64].sum()
    )


def test_walls_stop_and_goals_pay_and_end_the_episode() -> None:
    environment = Mazes(3)
    row = torch.zeros(1, 45)
    # one door, between rooms 0 and 1; the goal in room 1
    row[0, 0 * 4 + 1] = row[0, 1 * 4 + 3] = row[0, 36 + 1] = 1
    start = environment.start(row, generator())
    assert environment.look(row, start)[0].tolist() == [1, *[0] * 8, 0, 1, 0, 0]
    for way, (room, reward) in enumerate([(0, 0), (1, 1), (0, 0), (0, 0)]):
        after, earned, over = environment.step(
            row, start, F.one_hot(torch.tensor([way]), 4).float(), generator()
        )
        assert (int(after), float(earned), bool(over)) == (room, reward, reward == 1)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(
        ValueError, match="at least one action, step and episode, got 0, 5 and 1"
    ):
        Bandits(0, 5)
    with pytest.raises(ValueError, match="not 'poisson'"):
        Bandits(2, 5, "poisson")
    with pytest.raises(ValueError, match="at least 2 x 2 rooms"):
        Mazes(1)
