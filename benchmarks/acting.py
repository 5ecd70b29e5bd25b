"""Learning to act: the return after 0, 1, 2 and 3 updates, from a meta-trained
initialization and from a policy that was trained on all tasks at once.

python benchmarks/acting.py navigation --steps 100 --seeds 5 --plot docs/navigation.png
python benchmarks/acting.py half-cheetah --horizon 100 --episodes 10 --batch 4 --uses 10
--lr 2e-3 --seeds 1 --alone

Both have the same network, act in as many episodes, and learn new tasks alike. The size
of the steps after the first one, and for the second policy also the learning rate, are
chosen on other tasks, by the return after the last update.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from reporting import finish, parser_of, row
from torch import Tensor

from innerloop import MAML, meta_train
from innerloop.cli.figures import pyplot
from innerloop.measurements import Estimate, Report, Table
from innerloop.rl import (
    ENVIRONMENTS,
    Environment,
    MetaPolicyGradient,
    Rollout,
    adapt_by_acting,
)
from innerloop.rl.advantages import mean_return

UPDATES = 3
RATES = (0.03, 0.1, 0.3)  # for the policy that was trained on all tasks at once
LATER = (1.0, 0.5, 0.25, 0.1)  # relative size of the steps after the first one


def trained(
    environment: Environment, inner_steps: int, seed: int, options: argparse.Namespace
) -> MAML:
    """MAML, or without inner steps a policy for all tasks at once, which acts in twice
    as many episodes of each.
    """
    torch.manual_seed(seed)
    gradient = MetaPolicyGradient(
        episodes=environment.episodes * (1 if inner_steps else 2),
        uses=options.uses,
        estimator=options.estimator,
    )
    learner = MAML.build(
        environment.spec,
        inner_lr=0.1,
        inner_steps=inner_steps,
        likelihood=gradient.likelihood(environment),
    )
    optimizer = torch.optim.Adam(learner.parameters(), lr=options.lr)
    begin = time.process_time()
    for step in meta_train(
        learner,
        environment,
        steps=options.steps,
        batch=options.batch,
        meta_gradient=gradient,
        optimizer=optimizer,
        generator=torch.Generator().manual_seed(seed),
        clip=10.0,
    ):
        if step.number % max(1, options.steps // 10) == 0:
            shown = {
                name: round(float(value), 2)
                for name, value in step.metrics.items()
                if name.startswith("reward")
            }
            spent = f"{time.process_time() - begin:.0f} s of one core"
            print(
                f"seed {seed}, {inner_steps} inner steps, meta-step {step.number}, "
                f"{spent}: {shown}",
                flush=True,
            )
    print(f"seed {seed}: {time.process_time() - begin:.0f} s of one core", flush=True)
    return learner


def tested(
    learner: MAML, environment: Environment, tasks: int, seed: int, later_scale: float
) -> list[Rollout]:
    """The rollouts of new tasks after 0, 1, ... updates."""
    rng = torch.Generator().manual_seed(seed)
    params = environment.params_of(environment.sample(tasks, rng))
    return list(
        adapt_by_acting(
            learner,
            environment,
            params,
            rng,
            updates=UPDATES,
            later_scale=later_scale,
        )
    )


def chosen(
    learner: MAML, environment: Environment, rates: Sequence[float], seed: int
) -> float:
    """Sets the learner's rate, and returns the relative size of later steps, that are
    best on 40 validation tasks.
    """
    found = {}
    for learner.inner_lr, later in product(rates, LATER):
        rollouts = tested(learner, environment, 40, seed, later)
        found[learner.inner_lr, later] = returns(rollouts)[-1]
    learner.inner_lr, later = max(found, key=lambda pair: found[pair])
    print(
        f"seed {seed}: the first step at {learner.inner_lr}, the others at {later} of "
        f"it: {found[learner.inner_lr, later]:.2f}",
        flush=True,
    )
    return later


def returns(rollouts: list[Rollout]) -> list[float]:
    return [float(mean_return(each).mean()) for each in rollouts]


def draw(
    path: Path,
    results: dict[str, list[list[float]]],
    rollouts: list[Rollout],
    goals: Tensor,
) -> None:
    """The returns after every update, and paths to some goals."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8, 3.4), constrained_layout=True
    )
    for (name, some), color in zip(results.items(), ("C0", "C7"), strict=False):
        found = [Estimate.of(values) for values in torch.tensor(some).T]
        mean = torch.tensor([each.mean for each in found])
        half = torch.tensor([each.interval or 0.0 for each in found])
        left.plot(range(UPDATES + 1), mean, "o-", color=color, label=name)
        left.fill_between(
            range(UPDATES + 1), mean - half, mean + half, alpha=0.2, color=color
        )
    left.set(xlabel="updates", ylabel="return of an episode", xticks=range(UPDATES + 1))
    left.legend(frameon=False)
    for task, goal in enumerate(goals):
        for update, style in ((0, ":"), (1, "--"), (UPDATES, "-")):
            episode = rollouts[update].x[task, 0]
            ends = rollouts[update].done[task, 0].nonzero()[0, 0] + 1
            right.plot(
                *episode[:ends].T,
                style,
                color=f"C{task}",
                lw=1,
                label=f"after {update} updates" if not task else None,
            )
        right.plot(*goal, "*", color=f"C{task}", ms=11, mec="black")
    right.set(aspect="equal", title="one episode each, goals as stars")
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("environment", choices=("navigation", "half-cheetah"))
    parser.add_argument("--horizon", type=int, help="most steps in an episode")
    parser.add_argument("--episodes", type=int, help="episodes before an update")
    parser.add_argument("--steps", type=int, default=100, help="meta-steps (100)")
    parser.add_argument(
        "--batch", type=int, default=20, help="tasks in a meta-step (20)"
    )
    parser.add_argument(
        "--uses",
        type=int,
        default=1,
        help="meta-steps for every round of rollouts (1)",
    )
    parser.add_argument(
        "--lr", type=float, default=3e-3, help="learning rate of the meta-steps (0.003)"
    )
    parser.add_argument("--estimator", choices=("dice", "lvc", "biased"), default="lvc")
    parser.add_argument(
        "--seeds", type=int, default=5, help="number of trainings of each (5)"
    )
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--tasks", type=int, default=100, help="number of test tasks (100)"
    )
    parser.add_argument("--alone", action="store_true", help="train MAML only")
    parser.add_argument("--plot", type=Path, help="file of a figure (navigation only)")
    options = parser.parse_args()
    sizes: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("horizon", "episodes")
        if getattr(options, name)
    }
    train, validation, test = (
        ENVIRONMENTS[options.environment](split, **sizes)
        for split in ("train", "val", "test")
    )
    rows: dict[str, list[list[float]]] = {"meta-trained": []}
    paths: list[Rollout] = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        learner = trained(train, 1, seed, options)
        later = chosen(learner, validation, (learner.inner_lr,), seed)
        rollouts = tested(learner, test, options.tasks, seed, later)
        rows["meta-trained"].append(returns(rollouts))
        paths = paths or rollouts
        print(f"seed {seed}: {rows['meta-trained'][-1]}", flush=True)
        if options.alone:
            continue
        policy = trained(train, 0, seed, options)
        later = chosen(policy, validation, RATES, seed)
        found = returns(tested(policy, test, options.tasks, seed, later))
        rows.setdefault("trained on all tasks at once", []).append(found)
        print(f"seed {seed}, all at once: {found}", flush=True)
    updates = ["1 update" if i == 1 else f"{i} updates" for i in range(UPDATES + 1)]
    title = "return of an episode"
    each = [
        row(
            {"initialization": name, "seed": seed}, dict(zip(updates, one, strict=True))
        )
        for name, some in rows.items()
        for seed, one in enumerate(some, options.first_seed)
    ]
    means = [
        row(
            {"initialization": name},
            dict(zip(updates, torch.tensor(some).T.contiguous(), strict=True)),
        )
        for name, some in rows.items()
    ]
    tables = Table(title, tuple(means)), Table(f"{title}, each training", tuple(each))
    finish(Report(tables), options)
    if options.plot:
        rng = torch.Generator().manual_seed(options.first_seed)
        goals = test.params_of(test.sample(options.tasks, rng))
        corners = [
            int((goals - torch.tensor(corner)).norm(dim=1).argmin())
            for corner in ((0.4, 0.4), (-0.4, 0.3), (-0.3, -0.4), (0.3, -0.3))
        ]
        shown = [Rollout(*(part[corners] for part in each)) for each in paths]
        draw(options.plot, rows, shown, goals[corners])


if __name__ == "__main__":
    main()
