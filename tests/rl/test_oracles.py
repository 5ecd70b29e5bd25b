"""Oracles against dynamic programming that shares no code with them."""

from functools import cache

import pytest
import torch

from innerloop.rl import Bandits, MDPs, oracles
from innerloop.rl.baselines import Gittins, gittins, solved, strategy_rewards


def one_arm_and_sure(m: int, s: int, f: int, sure: float) -> float:
    """What going on with an arm is worth beyond taking the sure reward m times, by
    plain recursion.
    """
    p = (1 + s) / (2 + s + f)
    after = (
        [0.0, 0.0]
        if m == 1
        else [
            (m - 1) * sure
            + max(0.0, one_arm_and_sure(m - 1, s + 1 - lost, f + lost, sure))
            for lost in (0, 1)
        ]
    )
    return p * (1 + after[0]) + (1 - p) * after[1] - m * sure


@pytest.mark.parametrize(
    ("m", "s", "f"), [(1, 0, 0), (1, 2, 1), (4, 0, 0), (5, 1, 2), (6, 0, 0)]
)
def test_an_index_is_the_sure_reward_that_makes_indifferent(
    m: int, s: int, f: int
) -> None:
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if one_arm_and_sure(m, s, f, middle) > 0 else (low, middle)
        )
    assert float(gittins(9)[m][s, f]) == pytest.approx(low, abs=1e-5)


def test_playing_by_indices_is_nearly_bayes_optimal() -> None:
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
    drawn = torch.Generator().manual_seed(0)
    rewards = strategy_rewards(
        Gittins(environment, drawn), environment, environment.draw(20000, drawn), drawn
    ).sum(1)
    assert float(rewards.mean()) == pytest.approx(
        by_index, abs=4 * float(rewards.std()) / 20000**0.5
    )


def test_planning_is_the_best_of_all_policies() -> None:
    environment = MDPs(3, 2, 4, 1)
    R, P = (
        table[0].tolist()
        for table in environment.tables(
            environment.draw(1, torch.Generator().manual_seed(0))
        )
    )

    def best(left: int, s: int, a: int) -> float:
        return R[s][a] + (
            left > 1
            and sum(
                P[s][a][t] * max(best(left - 1, t, b) for b in range(2))
                for t in range(3)
            )
        )

    Q = solved(torch.tensor(R), torch.tensor(P), 4)
    for step in range(4):
        for s in range(3):
            assert Q[step, s].tolist() == pytest.approx(
                [best(4 - step, s, a) for a in range(2)], abs=1e-5
            )


def test_strategies_stand_in_the_order_that_is_known() -> None:
    bandit, mdp = Bandits(5, 30), MDPs()
    found = {}
    for environment, n in ((bandit, 3000), (mdp, 100)):
        parameters = environment.draw(n, torch.Generator().manual_seed(1))
        for name, strategy in oracles(environment).items():
            drawn = torch.Generator().manual_seed(2)
            found[type(environment), name] = float(
                strategy_rewards(
                    strategy(environment, drawn), environment, parameters, drawn
                )
                .sum(1)
                .mean()
            )
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
    assert "Gittins index" not in oracles(Bandits(2, 5, "gaussian"))
