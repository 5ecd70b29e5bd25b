"""How the time of a meta-step grows with what is chosen: the number of tasks, ways,
examples, and inner steps.

    python benchmarks/growth.py --rounds 5

MAML and ProtoNet on Omniglot, one process, one thread. Every setting differs from the
first one of its learner in one number. Settings are measured in turn, one meta-step
each; the figure is the median over rounds, in milliseconds and relative to the first.
"""

from __future__ import annotations

import statistics

import torch
from reporting import finish, parser_of, row, table
from scaling import Training, Workload

from innerloop.engine.workers import ALONE

BASE = {"tasks": 4, "ways": 5, "shots": 1, "queries": 10}
BASES: dict[str, dict[str, int]] = {
    "maml": {**BASE, "inner steps": 5},
    "protonet": BASE,
}
VARIED = {
    "tasks": (8, 16, 32),
    "ways": (10, 20),
    "shots": (5, 10),
    "queries": (5, 15),
    "inner steps": (1, 10, 20),
}
WARM_UP = 4  # meta-steps, in which gradients are recorded


def workload(learner: str, numbers: dict[str, int]) -> Workload:
    """A training with so many tasks, ways, shots, queries and inner steps."""
    steps = {"inner_steps": n} if (n := numbers.get("inner steps")) else {}
    sizes = {name: numbers[name] for name in ("ways", "shots", "queries")}
    return {
        "learner": {"name": learner, "options": steps},
        "tasks": {"name": "omniglot", "options": sizes},
        "training": {"batch": numbers["tasks"]},
    }


def settings(learner: str, varied: list[str]) -> list[dict[str, int]]:
    """The base of a learner, and what differs from it in one number."""
    base = BASES[learner]
    return [base] + [
        {**base, name: value}
        for name in varied
        if name in base
        for value in VARIED[name]
    ]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(BASES), help="one of the learners")
    parser.add_argument("--vary", choices=list(VARIED), help="one of the numbers")
    options = parser.parse_args()
    varied = [options.vary] if options.vary else list(VARIED)
    torch.set_num_threads(1)
    rows = []
    for learner in [options.only] if options.only else BASES:
        chosen = settings(learner, varied)
        made = [Training(workload(learner, numbers), ALONE) for numbers in chosen]
        for training in made:
            training.run(WARM_UP)
        rounds = [[t.run(1) for t in made] for _ in range(options.rounds)]
        medians = [statistics.median(seconds) for seconds in zip(*rounds, strict=True)]
        for numbers, median in zip(chosen, medians, strict=True):
            values = {"ms": 1000 * median, "relative": median / medians[0]}
            rows.append(row({"learner": learner, **numbers}, values))
            print(rows[-1], flush=True)
    finish(table("time of a meta-step", rows), options)


if __name__ == "__main__":
    main()
