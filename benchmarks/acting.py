"""Learning to act: the return after 0, 1, 2 and 3 updates, of a start that was
meta-trained and of a policy that was trained on all tasks at once.

python benchmarks/acting.py navigation --steps 100 --seeds 5 --plot docs/navigation.png
python benchmarks/acting.py half-cheetah --horizon 100 --episodes 10 --batch 4 --uses 10
--lr 2e-3 --seeds 1 --alone
Both have the same network, play as many episodes, and then learn new tasks alike. How
long steps after the first are, as a share of it, and for the latter the rate, too, is
chosen on other tasks, by the return after the last.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from innerloop import MAML, meta_train
from innerloop.cli.plot import pyplot
from innerloop.rl import (
    PLAYED,
    Environment,
    MetaPolicyGradient,
    Played,
    PolicyGradient,
    play_and_learn,
)
from innerloop.rl.policy_gradient import mean_return

UPDATES = 3
RATES = (0.03, 0.1, 0.3)  # for the policy that was trained on all tasks at once
LATER = (1.0, 0.5, 0.25, 0.1)  # shares of it, for the steps after the first


def trained(
    environment: Environment, inner_steps: int, seed: int, options: argparse.Namespace
) -> MAML:
    """MAML, or with no inner step a policy for all tasks at once, which then plays
    twice as many episodes of each.
    """
    torch.manual_seed(seed)
    policy = PolicyGradient(discrete=environment.discrete, estimator=options.estimator)
    learner = MAML.build(
        environment.spec, inner_lr=0.1, inner_steps=inner_steps, likelihood=policy
    )
    generator, drawing = (torch.Generator().manual_seed(seed) for _ in range(2))
    episodes = environment.episodes if inner_steps else 2 * environment.episodes
    gradient = MetaPolicyGradient(
        environment, episodes=episodes, uses=options.uses, generator=drawing
    )
    optimizer, begin = (
        torch.optim.Adam(learner.parameters(), lr=options.lr),
        time.process_time(),
    )
    for step in meta_train(
        learner,
        environment,
        steps=options.steps,
        batch=options.batch,
        meta_gradient=gradient,
        optimizer=optimizer,
        generator=generator,
        clip=10.0,
    ):
        if step.number % (options.steps // 10) == 0:
            told = {
                name: round(float(value), 2)
                for name, value in step.metrics.items()
                if name.startswith("reward")
            }
            spent = f"{time.process_time() - begin:.0f} s of one core"
            print(
                f"seed {seed}, {inner_steps} inner steps, meta-step {step.number}, {spent}: {told}",
                flush=True,
            )
    print(f"seed {seed}: {time.process_time() - begin:.0f} s of one core", flush=True)
    return learner


def tested(
    learner: MAML, environment: Environment, tasks: int, seed: int, later: float
) -> list[Played]:
    """What is played of `tasks` new tasks after 0, 1, ... updates."""
    generator = torch.Generator().manual_seed(seed)
    return list(
        play_and_learn(
            learner,
            MetaPolicyGradient(environment),
            environment.draw(tasks, generator),
            generator,
            UPDATES,
            later,
        )
    )


def chosen(
    learner: MAML, environment: Environment, rates: Sequence[float], seed: int
) -> float:
    """Sets the learner's rate, and gives the share of it for later steps, that were
    best on 40 other tasks.
    """
    found = {}
    for learner.inner_lr, later in product(rates, LATER):
        found[learner.inner_lr, later] = returns(
            tested(learner, environment, 40, 2000 + seed, later)
        )[-1]
    learner.inner_lr, later = max(found, key=lambda pair: found[pair])
    print(
        f"seed {seed}: the first step at {learner.inner_lr}, the others at {later} of it, gives {found[learner.inner_lr, later]:.2f}",
        flush=True,
    )
    return later


def returns(played: list[Played]) -> list[float]:
    return [float(mean_return(each).mean()) for each in played]


def over_seeds(rows: list[list[float]]) -> list[tuple[float, float]]:
    """Mean and half width of the 95 % interval, by Student's t."""
    t = {
        1: math.nan,
        2: 12.71,
        3: 4.30,
        4: 3.18,
        5: 2.78,
        6: 2.57,
        8: 2.36,
        10: 2.26,
    }.get(len(rows), 1.96)
    found = torch.tensor(rows)
    half = (
        t * found.std(0, correction=1) / math.sqrt(len(rows))
        if len(rows) > 1
        else found[0] * math.nan
    )
    return list(zip(found.mean(0).tolist(), half.tolist(), strict=True))


def draw(
    path: Path,
    told: dict[str, list[tuple[float, float]]],
    played: list[Played],
    goals: Tensor,
) -> None:
    """The returns after each update, and walks to some goals."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8, 3.4), constrained_layout=True
    )
    for (name, points), colour in zip(told.items(), ("C0", "C7"), strict=False):
        mean, half = torch.tensor(points).T
        left.plot(range(UPDATES + 1), mean, "o-", color=colour, label=name)
        left.fill_between(
            range(UPDATES + 1), mean - half, mean + half, alpha=0.2, color=colour
        )
    left.set(xlabel="updates", ylabel="return of an episode", xticks=range(UPDATES + 1))
    left.legend(frameon=False)
    for task, goal in enumerate(goals):
        for update, style in ((0, ":"), (1, "--"), (UPDATES, "-")):
            episode = played[update].x[task, 0]
            ends = played[update].over[task, 0].nonzero()[0, 0] + 1
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environment", choices=("navigation", "half-cheetah"))
    parser.add_argument("--horizon", type=int, help="the longest episode")
    parser.add_argument("--episodes", type=int, help="before an update")
    parser.add_argument("--steps", type=int, default=100, help="meta-steps (100)")
    parser.add_argument(
        "--batch", type=int, default=20, help="tasks in a meta-step (20)"
    )
    parser.add_argument(
        "--uses",
        type=int,
        default=1,
        help="meta-steps that go by what was played once (1)",
    )
    parser.add_argument(
        "--lr", type=float, default=3e-3, help="of the meta-steps (0.003)"
    )
    parser.add_argument("--estimator", choices=("dice", "lvc", "biased"), default="lvc")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each (5)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--tasks", type=int, default=100, help="new tasks that are learned (100)"
    )
    parser.add_argument("--alone", action="store_true", help="MAML alone")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="a picture, of navigation")
    options = parser.parse_args()
    told_environment: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("horizon", "episodes")
        if getattr(options, name)
    }
    environment = PLAYED[options.environment](**told_environment)
    rows: dict[str, list[list[float]]] = (
        {"meta-trained": []}
        if options.alone
        else {"meta-trained": [], "trained on all tasks at once": []}
    )
    walks: list[Played] = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        learner = trained(environment, 1, seed, options)
        later = chosen(learner, environment, (learner.inner_lr,), seed)
        played = tested(learner, environment, options.tasks, 1000 + seed, later)
        rows["meta-trained"].append(returns(played))
        walks = walks or played
        print(f"seed {seed}: {rows['meta-trained'][-1]}", flush=True)
        if options.alone:
            continue
        policy = trained(environment, 0, seed, options)
        later = chosen(policy, environment, RATES, seed)
        rows["trained on all tasks at once"].append(
            returns(tested(policy, environment, options.tasks, 1000 + seed, later))
        )
        print(
            f"seed {seed}, all at once: {rows['trained on all tasks at once'][-1]}",
            flush=True,
        )
    told = {name: over_seeds(each) for name, each in rows.items()}
    print(
        "| start | "
        + " | ".join(f"{update} updates" for update in range(UPDATES + 1))
        + " |"
    )
    for name, points in told.items():
        print(
            f"| {name} | "
            + " | ".join(f"{mean:.2f} ± {half:.2f}" for mean, half in points)
            + " |"
        )
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "told": told}, indent=2))
    if options.plot:
        goals = environment.draw(
            options.tasks, torch.Generator().manual_seed(1000 + options.first_seed)
        )
        corners = [
            int((goals - torch.tensor(corner)).norm(dim=1).argmin())
            for corner in ((0.4, 0.4), (-0.4, 0.3), (-0.3, -0.4), (0.3, -0.3))
        ]
        draw(
            options.plot,
            told,
            [Played(*(part[corners] for part in each)) for each in walks],
            goals[corners],
        )


if __name__ == "__main__":
    main()
