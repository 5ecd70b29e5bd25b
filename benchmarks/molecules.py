"""Tox21 with test molecules that occur in training assays (the published protocol),
and with unseen molecules.

The area under the ROC curve on unseen assays: each learner after the same training
time, at its best step on the validation split (other assays, and other molecules where
they are split), beside a random forest, ridge regression, a quadratic probe and the
nearest class mean, each on the support set alone.

    INNERLOOP_DATA=... python benchmarks/molecules.py --minutes 3
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

import torch
from reporting import finish, parser_of, row, table
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Task
from innerloop.engine.scores import roc_auc
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.learners.optimization.maml import MAML
from innerloop.learners.optimization.r2d2 import R2D2
from innerloop.metagrad.meta_train import build_optimizer, meta_train, warmup_cosine
from innerloop.tasks.molecules import Assays, Protocol, tox21
from innerloop.tasks.ranking import baselines, by

SHOTS, QUERIES, BATCH = 10, 32, 8
LEARNERS: dict[str, Callable[[Assays], Learner]] = {
    "ProtoNet": lambda tasks: ProtoNet.build(tasks.spec),
    "MAML": lambda tasks: MAML.build(tasks.spec, inner_lr=0.1, inner_steps=5),
    "R2D2": lambda tasks: R2D2.build(tasks.spec),
}


def tasks_of(split: str, protocol: Protocol, fingerprint: str) -> Assays:
    return tox21(
        split,
        shots=SHOTS,
        queries=QUERIES,
        holdout=True,
        molecules=protocol,
        fingerprint=fingerprint,
    )


def scores(learner: Learner, tasks: Sequence[Task]) -> Tensor:
    """Area under the ROC curve of every task (n,)."""
    learner.eval()
    found = [roc_auc(by(learner)(task).detach(), task.query.y[:, 1]) for task in tasks]
    return torch.stack(found)


def trained(
    name: str, protocol: Protocol, fingerprint: str, minutes: float, seed: int
) -> Learner:
    """A learner at its best step on the validation split."""
    torch.manual_seed(seed)
    tasks, val = (tasks_of(part, protocol, fingerprint) for part in ("train", "val"))
    learner = LEARNERS[name](tasks)
    config = replace(learner.defaults, batch=BATCH)
    best, kept = 0.0, learner.state_dict()
    validation = val.sample(100, torch.Generator().manual_seed(1)).unbind()
    due = begun = time.monotonic()
    for step in meta_train(
        learner,
        tasks,
        seconds=60 * minutes,
        batch=BATCH,
        optimizer=build_optimizer(learner, config),
        schedule=warmup_cosine(config.warmup, config.decay),
        clip=config.clip,
        generator=torch.Generator().manual_seed(seed),
    ):
        if time.monotonic() < due:
            continue
        found = float(scores(learner, validation).mean())
        if found > best:
            best = found
            kept = {k: v.detach().clone() for k, v in learner.state_dict().items()}
        after = time.monotonic() - begun
        print(f"  {name} {protocol} step {step.number} {after:.0f} s: {found:.4f}")
        learner.train()
        due = time.monotonic() + 1.2 * minutes
    learner.load_state_dict(kept)
    return learner


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--learners", nargs="*", choices=list(LEARNERS), default=list(LEARNERS)
    )
    parser.add_argument("--molecules", choices=get_args(Protocol), default="disjoint")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument("--fingerprint", default="ecfp")
    chosen = parser.parse_args()
    test = tasks_of(chosen.split, chosen.molecules, chosen.fingerprint)
    generator = torch.Generator().manual_seed(0)
    drawn = test.sample(chosen.tasks, generator).unbind()
    found = {
        name: torch.stack(
            [roc_auc(method(task), task.query.y[:, 1]) for task in drawn]
        ).detach()
        for name, method in baselines().items()
    }
    trained_ones = {
        name: scores(
            trained(
                name, chosen.molecules, chosen.fingerprint, chosen.minutes, chosen.seed
            ),
            drawn,
        )
        for name in chosen.learners
    }
    rows = [
        row({"method": name}, {"roc_auc": values})
        for name, values in trained_ones.items()
    ]
    for name, values in found.items():
        gaps = {
            f"roc_auc of {own} minus this": best - values
            for own, best in trained_ones.items()
        }
        rows.append(row({"method": name}, {"roc_auc": values, **gaps}))
    finish(table(f"{chosen.molecules} molecules, {chosen.fingerprint}", rows), chosen)


if __name__ == "__main__":
    main()
