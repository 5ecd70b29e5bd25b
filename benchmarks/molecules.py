"""Tox21 with test molecules that occur in training assays (the published protocol),
and with unseen molecules.

Prints a Markdown table of the area under the ROC curve on unseen assays: each learner
after the same training time, at its best step on the validation split (other assays,
and other molecules where they are split), beside a random forest, ridge regression, a
quadratic probe and the nearest class mean, each on the support set alone.

    INNERLOOP_DATA=... python benchmarks/molecules.py --minutes 3
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.engine.scores import roc_auc
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.learners.optimization.maml import MAML
from innerloop.learners.optimization.r2d2 import R2D2
from innerloop.measurements import Estimate
from innerloop.metagrad.meta_train import build_optimizer, meta_train, warmup_cosine
from innerloop.tasks.molecules import Assays, Protocol, tox21
from innerloop.tasks.ranking import baselines

SHOTS, QUERIES, BATCH = 10, 32, 8
LEARNERS: dict[str, Callable[[Assays], Learner]] = {
    "protonet": lambda tasks: ProtoNet.build(tasks.spec),
    "maml": lambda tasks: MAML.build(tasks.spec, inner_lr=0.1, inner_steps=5),
    "r2d2": lambda tasks: R2D2.build(tasks.spec),
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


def scores(learner: Learner, tasks: Assays, n: int, seed: int) -> Tensor:
    """Area under the ROC curve of every task (n,)."""
    generator, found = torch.Generator().manual_seed(seed), []
    learner.eval()
    for _ in range(n // 20):
        for task in tasks.sample(20, generator).unbind():
            outputs = learner.predict(learner.adapt(task.support), task.query.x)
            margin = (outputs[:, 1] - outputs[:, 0]).detach()
            found.append(roc_auc(margin, task.query.y[:, 1]))
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
        found = float(scores(learner, val, 100, 1).mean())
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learners", nargs="*", default=list(LEARNERS))
    parser.add_argument(
        "--molecules", nargs="*", default=["disjoint", "scaffold", "shared"]
    )
    parser.add_argument("--fingerprint", default="ecfp")
    chosen = parser.parse_args()
    print("| learner | molecules | ROC-AUC |\n| --- | --- | --- |", flush=True)
    for protocol in chosen.molecules:
        test = tasks_of("test", protocol, chosen.fingerprint)
        generator = torch.Generator().manual_seed(0)
        drawn = test.sample(chosen.tasks, generator).unbind()
        rows = {
            name: torch.stack(
                [roc_auc(method(task), task.query.y[:, 1]) for task in drawn]
            )
            for name, method in baselines().items()
        }
        for name in chosen.learners:
            learner = trained(
                name, protocol, chosen.fingerprint, chosen.minutes, chosen.seed
            )
            rows[name] = scores(learner, test, chosen.tasks, 0)
        for name, values in rows.items():
            mean, interval = Estimate.of(values)
            print(f"| {name} | {protocol} | {mean:.3f} ± {interval:.3f} |", flush=True)


if __name__ == "__main__":
    main()
