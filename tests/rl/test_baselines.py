"""Baselines against dynamic programming that shares no code with them."""

from functools import cache

import pytest
import torch

from innerloop.rl import Bandits, Environment, MDPs
from innerloop.rl.bandit_baselines import Gittins, gittins
from innerloop.rl.baselines import Baseline
from innerloop.rl.mdp_baselines import optimal_q
from innerloop.rl.rollout import interact


def total_rewards(
    agent: Baseline,
    environment: Environment,
    params: torch.Tensor,
    rng: torch.Generator,
) -> torch.Tensor:
    """The reward (n,) of a trial of every task."""
    steps = interact(agent, environment, params, rng, environment.steps)
    return torch.stack([step.y[:, -2] for step in steps]).sum(0)


def gain_of_pulling(m: int, s: int, f: int, constant: float) -> float:
    """The gain of pulling an arm over taking the constant reward m times, by plain
    recursion.
    """
    p = (1 + s) / (2 + s + f)
    after = (
        [0.0, 0.0]
        if m == 1
        else [
            (m - 1) * constant
            + max(0.0, gain_of_pulling(m - 1, s + 1 - lost, f + lost, constant))
            for lost in (0, 1)
        ]
    )
    return p * (1 + after[0]) + (1 - p) * after[1] - m * constant


@pytest.mark.parametrize(
    ("m", "s", "f"), [(1, 0, 0), (1, 2, 1), (4, 0, 0), (5, 1, 2), (6, 0, 0)]
)
def test_an_index_is_the_constant_reward_of_equal_value(m: int, s: int, f: int) -> None:
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if gain_of_pulling(m, s, f, middle) > 0 else (low, middle)
        )
    assert float(gittins(9)[m][s, f]) == pytest.approx(low, abs=1e-5)


def test_the_index_policy_is_nearly_bayes_optimal() -> None:
    pulls, index = 8, gittins(8)

    @cache
    def worth(m: int, arms: tuple[tuple[int, int], ...], optimal: bool) -> float:
        """The expected reward of m more pulls, of the best strategy or of indices."""
        if m == 0:
            return 0.0

        def pulled(arm: int) -> float:
            s, f = arms[arm]
            won, lost = (
                tuple(new if i == arm else old for i, old in enumerate(arms))
                for new in ((s + 1, f), (s, f + 1))
            )
            p = (1 + s) / (2 + s + f)
            return p * (1 + worth(m - 1, won, optimal)) + (1 - p) * worth(
                m - 1, lost, optimal
            )

        if optimal:
            return max(map(pulled, range(len(arms))))
        return pulled(max(range(len(arms)), key=lambda arm: float(index[m][arms[arm]])))

    best, by_index = (worth(pulls, ((0, 0),) * 2, optimal) for optimal in (True, False))
    assert 0 <= best - by_index < 0.002 * best
    environment = Bandits(2, pulls)
    rng = torch.Generator().manual_seed(0)
    params = environment.sample_params(20000, rng)
    rewards = total_rewards(Gittins(environment, rng), environment, params, rng)
    assert float(rewards.mean()) == pytest.approx(
        by_index, abs=4 * float(rewards.std()) / 20000**0.5
    )


def test_planning_is_the_best_of_all_policies() -> None:
    environment = MDPs(3, 2, 4, 1)
    params = environment.sample_params(1, torch.Generator().manual_seed(0))
    R, P, _ = (table[0].tolist() for table in environment.tables(params))

    def best(left: int, s: int, a: int) -> float:
        return R[s][a] + (
            left > 1
            and sum(
                P[s][a][t] * max(best(left - 1, t, b) for b in range(2))
                for t in range(3)
            )
        )

    Q = optimal_q(torch.tensor(R), torch.tensor(P), 4)
    for step in range(4):
        for s in range(3):
            assert Q[step, s].tolist() == pytest.approx(
                [best(4 - step, s, a) for a in range(2)], abs=1e-5
            )


def test_baselines_are_in_their_known_order() -> None:
    found = {}
    for environment, n in ((Bandits(5, 30), 3000), (MDPs(), 100)):
        params = environment.sample_params(n, torch.Generator().manual_seed(1))
        for name, baseline in environment.baselines().items():
            rng = torch.Generator().manual_seed(2)
            agent = baseline(environment, rng)
            total = total_rewards(agent, environment, params, rng)
            found[type(environment), name] = float(total.mean())
    in_order = [
        found[Bandits, name]
        for name in ("random", "Thompson", "greedy", "Gittins index")
    ]
    assert in_order == sorted(in_order)
    assert in_order[0] == pytest.approx(15, abs=0.3)
    assert found[Bandits, "epsilon-greedy"] > in_order[1]
    assert found[Bandits, "Thompson"] < found[Bandits, "optimistic Thompson"]
    assert found[Bandits, "UCB1"] > found[Bandits, "Thompson"]
    assert found[MDPs, "random"] == pytest.approx(100, abs=5)
    assert found[MDPs, "random"] + 15 < found[MDPs, "PSRL"] < found[MDPs, "greedy"]
    assert "Gittins index" not in Bandits(2, 5, "gaussian").baselines()
