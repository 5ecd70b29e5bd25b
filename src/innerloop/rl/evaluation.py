"""The protocol of tasks that are played: the reward of trials on unseen tasks, with
intervals, and the oracles beside it.
"""

from __future__ import annotations

import time

import torch

from innerloop.core.descent import Descent
from innerloop.core.learner import Learner
from innerloop.core.meta_test import Estimate, TestResult
from innerloop.engine.errors import InnerloopError
from innerloop.rl.baselines import oracles, strategy_rewards
from innerloop.rl.environment import Environment
from innerloop.rl.policy_gradient import update_test
from innerloop.rl.rollout import play

# parts draw from one continuum: from seeds of their own, so that no task comes twice
UNSEEN = {"train": 0, "val": 1 << 40, "test": 1 << 41}
AT_ONCE = 500  # trials


def unseen(split: str, seed: int = 0) -> torch.Generator:
    """What draws the tasks of a split."""
    return torch.Generator().manual_seed(UNSEEN[split] + seed)


def play_test(
    learner: Learner,
    environment: Environment,
    *,
    n: int = 1000,
    generator: torch.Generator | None = None,
    updates: int | None = None,
) -> TestResult:
    """Play one trial of each of `n` unseen tasks: the mean total reward, and that of
    the 1st, 2nd, ... episode of a trial, with 95 % intervals.

    Of a learner that descends: the mean return of an episode after its steps, and its
    curve after 0, 1, ... `updates` of them, a trial before each. generator: draws the
    tasks, and then what is drawn in play (default: the test split's of seed 0).
    """
    if n < 1:
        raise InnerloopError(f"a test needs at least one task, not {n}")
    begin = time.monotonic()
    generator = generator if generator is not None else unseen("test")
    if isinstance(learner, Descent):
        return update_test(
            learner, environment, n=n, generator=generator, updates=updates
        )
    device = next(learner.parameters(), torch.empty(0)).device
    parameters = environment.draw(n, generator).to(device)
    # (n, steps)
    rewards = torch.cat(
        [
            play(learner, environment, split, generator).reward[:, 0].cpu()
            for split in parameters.split(AT_ONCE)
        ]
    )
    # (n, episodes)
    episodes = rewards.unflatten(1, (environment.episodes, environment.horizon)).sum(-1)
    return TestResult(
        metrics={"reward": Estimate.of(rewards.sum(-1))},
        tasks=n,
        transductive=False,
        seconds=time.monotonic() - begin,
        score="reward",
        instances=[Estimate.of(values) for values in episodes.T]
        if environment.episodes > 1
        else [],
    )


def oracle_test(
    environment: Environment, *, n: int = 1000, split: str = "test", seed: int = 0
) -> dict[str, Estimate]:
    """The total reward of every strategy that knows the environment, on the tasks of
    `play_test`.
    """
    parameters = environment.draw(n, unseen(split, seed))
    found = {}
    for name, strategy in oracles(environment).items():
        own, luck = (
            torch.Generator().manual_seed(UNSEEN[split] + seed + offset)
            for offset in (1, 2)
        )
        found[name] = Estimate.of(
            strategy_rewards(
                strategy(environment, own), environment, parameters, luck
            ).sum(-1)
        )
    return found
