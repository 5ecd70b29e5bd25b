"""The reward of a learner on unseen tasks, compared with the baselines."""

from __future__ import annotations

import torch
from torch import Tensor

from innerloop.core.descent import Descent
from innerloop.core.learner import Learner
from innerloop.measurements import Estimate, Measurement, Report, Row, Table, TestPlan
from innerloop.rl.advantages import mean_return
from innerloop.rl.environment import Environment
from innerloop.rl.policy_gradient import adapt_by_acting
from innerloop.rl.rollout import interact, rollout

TRIALS_AT_ONCE = 500
TASKS_AT_ONCE = 25  # of learners that adapt weights
UPDATES = 3  # that such learners take at least


def evaluate(learner: Learner, environment: Environment, plan: TestPlan) -> Report:
    """The mean reward of a learner on `plan.n` unseen tasks, with 95 % intervals.

    A learner that streams acts in one trial of every task; the report has the total
    reward of a trial, that of the baselines on the same tasks, and the reward of the
    1st, 2nd, ... episode. The validation split is not compared with baselines.

    A learner that adapts weights acts, updates, and acts again; the report has the
    return of an episode after `plan.steps` updates (default: the learner's inner
    steps), and after 0, 1, ... updates.
    """
    learner.eval()
    if isinstance(learner, Descent):
        return _after_updates(learner, environment, plan)
    rng = plan.generator()
    params = environment.params_of(environment.sample(plan.n, rng))
    device = next(learner.parameters(), torch.empty(0)).device
    reward = torch.cat(
        [
            rollout(learner, environment, part.to(device), rng).reward[:, 0].cpu()
            for part in params.split(TRIALS_AT_ONCE)
        ]
    )  # (n, steps)
    rows = [_row(plan, type(learner).__name__, Estimate.of(reward.sum(-1)))]
    if environment.split != "val":
        rows += [
            _row(plan, name, estimate)
            for name, estimate in baseline_rewards(environment, plan).items()
        ]
    tables = [Table("reward of a trial", tuple(rows))]
    if environment.episodes > 1:
        by_episode = reward.unflatten(1, (environment.episodes, -1)).sum(-1)
        tables.append(_curve("reward by episode", "episode", by_episode.T, 1))
    return Report(tuple(tables))


def baseline_rewards(environment: Environment, plan: TestPlan) -> dict[str, Estimate]:
    """The total reward of a trial of every baseline, on the tasks of `evaluate`."""
    params = environment.params_of(environment.sample(plan.n, plan.generator()))
    found = {}
    for name, baseline in environment.baselines().items():
        own, rng = (
            torch.Generator().manual_seed(plan.seed + offset) for offset in (1, 2)
        )
        agent = baseline(environment, own)
        steps = interact(agent, environment, params, rng, environment.steps)
        total = torch.stack([step.y[:, -2] for step in steps]).sum(0)  # (n,)
        found[name] = Estimate.of(total)
    return found


def _after_updates(
    learner: Descent, environment: Environment, plan: TestPlan
) -> Report:
    rng = plan.generator()
    params = environment.params_of(environment.sample(plan.n, rng))
    device = next(learner.parameters()).device
    at = plan.steps if plan.steps is not None else learner.inner_steps
    updates = at if plan.steps is not None else max(at, UPDATES)
    parts = [
        torch.stack(
            [
                mean_return(played).cpu()
                for played in adapt_by_acting(
                    learner, environment, part.to(device), rng, updates=updates
                )
            ]
        )
        for part in params.split(TASKS_AT_ONCE)
    ]
    values = torch.cat(parts, 1)  # (updates + 1, n)
    row = _row(plan, type(learner).__name__, Estimate.of(values[at]))
    curve = _curve("return of an episode by update", "updates", values, 0)
    return Report((Table("return of an episode", (row,)), curve))


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
