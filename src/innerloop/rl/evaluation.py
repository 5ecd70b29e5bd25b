"""The reward of a learner on unseen tasks, compared with the baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from innerloop.core.descent import Descent
from innerloop.core.learner import Learner
from innerloop.engine.sharing import shared
from innerloop.measurements import Estimate, Measurement, Report, Row, Table, TestPlan
from innerloop.rl.advantages import mean_return
from innerloop.rl.environment import Environment
from innerloop.rl.policy_gradient import adapt_by_acting
from innerloop.rl.rollout import interact, rollout

BLOCK = 1000  # tasks that are drawn at once, from one seed
TRIALS_AT_ONCE = 500
TASKS_AT_ONCE = 25  # of learners that adapt weights
UPDATES = 3  # that such learners take at least
CURVES = 5  # episodes of a trial that are drawn


def evaluate(learner: Learner, environment: Environment, plan: TestPlan) -> Report:
    """The mean reward of a learner on `plan.n` unseen tasks, with 95 % intervals.

    A learner that streams acts in one trial of every task; the report has the total
    reward of a trial, that of the baselines on the same tasks, and the reward of the
    1st, 2nd, ... episode. The validation split is not compared with baselines.

    A learner that adapts weights acts, updates, and acts again; the report has the
    return of an episode after `plan.steps` updates (default: the learner's inner
    steps), and after 0, 1, ... updates.

    Tasks are drawn and played in batches, so many of them need little memory.
    """
    learner.eval()
    if isinstance(learner, Descent):
        return _after_updates(learner, environment, plan)
    by_episode = _by_episode(learner, environment, plan)
    rows = [_row(plan, type(learner).__name__, Estimate.of(by_episode.sum(-1)))]
    if environment.split != "val":
        rows += [
            _row(plan, name, estimate)
            for name, estimate in baseline_rewards(environment, plan).items()
        ]
    tables = [Table("reward of a trial", tuple(rows))]
    if environment.episodes > 1:
        tables.append(_curve("reward by episode", "episode", by_episode.T, 1))
    return Report(tuple(tables))


def rewards(learner: Learner, environment: Environment, plan: TestPlan) -> Tensor:
    """The reward of a learner (n,) on every task of `evaluate`: of a whole trial, or
    the return of an episode after the updates.
    """
    learner.eval()
    if isinstance(learner, Descent):
        values, at = _returns(learner, environment, plan)
        return values[at]
    return _by_episode(learner, environment, plan).sum(-1)


def rewards_by_step(
    learner: Learner, environment: Environment, params: Tensor
) -> tuple[str, dict[int, list[float]]]:
    """The reward up to every step in a task with parameters (1, p): of the first
    episodes of a trial, by their number from 1, or of an episode after 0, 1, ...
    updates; and which of both.
    """
    rng = torch.Generator().manual_seed(0)
    if isinstance(learner, Descent):
        played = adapt_by_acting(learner, environment, params, rng, updates=UPDATES)
        found = dict(enumerate(each.reward[0, 0] for each in played))
        label = "update"
    else:
        reward = rollout(learner, environment, params, rng).reward[0, 0]
        episodes = reward.unflatten(0, (environment.episodes, -1))
        found, label = dict(enumerate(episodes[:CURVES], 1)), "episode"
    return label, {k: v.cumsum(0).tolist() for k, v in found.items()}


def _by_episode(learner: Learner, environment: Environment, plan: TestPlan) -> Tensor:
    """The reward of every episode of a trial, (n, episodes)."""
    device = next(learner.parameters(), torch.empty(0)).device

    def play(params: Tensor, rng: torch.Generator) -> Tensor:
        played = rollout(learner, environment, params.to(device), rng)
        reward = played.reward[:, 0].cpu().contiguous()  # (n, steps)
        return reward.unflatten(1, (environment.episodes, -1)).sum(-1)

    return torch.cat(_by_batch(environment, plan, TRIALS_AT_ONCE, play))


def baseline_rewards(environment: Environment, plan: TestPlan) -> dict[str, Estimate]:
    """The total reward of a trial of every baseline, on the tasks of `evaluate`."""
    baselines = environment.baselines()

    def total(played: tuple[TestPlan, str]) -> Tensor:
        part, name = played
        params = environment.params_of(environment.sample(part.n, part.generator()))
        own, rng = (
            torch.Generator().manual_seed(part.seed + offset) for offset in (1, 2)
        )
        agent = baselines[name](environment, own)
        steps = interact(agent, environment, params, rng, environment.steps)
        return torch.stack([step.y[:, -2] for step in steps]).sum(0)

    def tasks(played: tuple[TestPlan, str]) -> int:
        part, name = played
        return part.n if name == list(baselines)[-1] else 0

    every = [(part, name) for part in parts(plan) for name in baselines]
    found = shared(every, total, tasks, plan.n)
    totals: dict[str, list[Tensor]] = defaultdict(list)
    for (_, name), values in zip(every, found, strict=True):
        totals[name].append(values)
    return {name: Estimate.of(torch.cat(each)) for name, each in totals.items()}


def parts(plan: TestPlan) -> Iterator[TestPlan]:
    """A plan of many tasks as plans of at most 1,000 tasks; the first one has the same
    seed, the others have seeds that are drawn from it.
    """
    seed, seeds = plan.seed, plan.generator()
    for begin in range(0, plan.n, BLOCK):
        yield replace(plan, n=min(BLOCK, plan.n - begin), seed=seed)
        seed = int(torch.randint(2**32, (), generator=seeds))


def _by_batch(
    environment: Environment,
    plan: TestPlan,
    size: int,
    play: Callable[[Tensor, torch.Generator], Tensor],
) -> list[Tensor]:
    """`play(params, rng)` for the tasks of a plan, at most `size` at once: with their
    parameters (size, p) and the generator of their episodes, which have a seed of their
    own. Several processes can share them.
    """
    every = list(parts(plan))

    @lru_cache(maxsize=1)
    def drawn(index: int) -> tuple[tuple[Tensor, ...], list[int]]:
        rng = every[index].generator()
        params = environment.params_of(environment.sample(every[index].n, rng))
        batches = params.split(size)
        seeds = torch.randint(2**32, (len(batches),), generator=rng)
        return batches, seeds.tolist()

    def result(piece: tuple[int, int]) -> Tensor:
        index, at = piece
        batches, seeds = drawn(index)
        return play(batches[at], torch.Generator().manual_seed(seeds[at]))

    pieces = [(i, at) for i, p in enumerate(every) for at in range(-(-p.n // size))]

    def tasks(piece: tuple[int, int]) -> int:
        index, at = piece
        return min(size, every[index].n - at * size)

    return shared(pieces, result, tasks, plan.n)


def _after_updates(
    learner: Descent, environment: Environment, plan: TestPlan
) -> Report:
    values, at = _returns(learner, environment, plan)
    row = _row(plan, type(learner).__name__, Estimate.of(values[at]))
    curve = _curve("return of an episode by update", "updates", values, 0)
    return Report((Table("return of an episode", (row,)), curve))


def _returns(
    learner: Descent, environment: Environment, plan: TestPlan
) -> tuple[Tensor, int]:
    """The return of an episode after 0, 1, ... updates, (updates + 1, n), and after how
    many of them the learner is measured.
    """
    device = next(learner.parameters()).device
    at = plan.steps if plan.steps is not None else learner.inner_steps
    updates = at if plan.steps is not None else max(at, UPDATES)

    def play(params: Tensor, rng: torch.Generator) -> Tensor:
        played = adapt_by_acting(
            learner, environment, params.to(device), rng, updates=updates
        )
        return torch.stack([mean_return(episodes).cpu() for episodes in played])

    return torch.cat(_by_batch(environment, plan, TASKS_AT_ONCE, play), 1), at


def _row(plan: TestPlan, agent: str, estimate: Estimate) -> Row:
    value = Measurement.of("reward", estimate, plan.n)
    return Row({**plan.labels, "agent": agent}, (value,))


def _curve(title: str, label: str, values: Tensor, first: int) -> Table:
    """A table of values (rows, n), with rows numbered from `first`."""
    return Table(
        title,
        tuple(
            Row({label: i}, (Measurement.of("reward", Estimate.of(row), len(row)),))
            for i, row in enumerate(values, first)
        ),
    )
