"""Evolution strategies beside backpropagation: the same learner on the same tasks, each
with as many steps as it needs; with `--speed`, the time that evaluating a population at
once saves.

python benchmarks/evolution.py
python benchmarks/evolution.py --speed
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from reporting import finish, parser_of, row, table
from torch import Tensor, nn

from innerloop import (
    LSTM,
    MAML,
    Learner,
    ProtoNet,
    TaskDistribution,
    meta_train,
)
from innerloop.engine import population
from innerloop.measurements import Report
from innerloop.metagrad import ES, Backprop, es
from innerloop.tasks import sinusoid, strokes

TASKS = 1000  # of the test


class Way(NamedTuple):
    """How to train: meta-steps, tasks in each, the learning rate of Adam; for evolution
    strategies, pairs and sigma.
    """

    steps: int
    batch: int
    rate: float
    pairs: int = 0
    sigma: float = 0.0


class Case(NamedTuple):
    """A learner, its tasks by split, and how each meta-gradient trains it: the learning
    rates were chosen on the validation split.
    """

    name: str
    learner: Callable[[], Learner]
    tasks: Callable[[str], TaskDistribution]
    backprop: Way
    es: Way


def drawings(split: str) -> TaskDistribution:
    return strokes(split, ways=5, shots=1, queries=5)


def waves(split: str) -> TaskDistribution:
    return sinusoid(split, shots=10)


def small_protonet() -> Learner:
    """2,129 weights: an image of 7x7 pixels to 16 features."""
    encoder = nn.Sequential(
        nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, 32), nn.ReLU(), nn.Linear(32, 16)
    )
    return ProtoNet.build(drawings("train").spec, encoder=encoder)


def small_maml() -> Learner:
    """481 weights, one step at 0.01."""
    net = nn.Sequential(
        nn.Linear(1, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 1)
    )
    return MAML.build(waves("train").spec, net=net, inner_lr=0.01)


CASES = (
    Case(
        "ProtoNet, strokes, 5-way 1-shot",
        small_protonet,
        drawings,
        Way(600, 8, 1e-2),
        Way(8000, 4, 5e-2, 128, 0.1),
    ),
    Case(
        "MAML, sinusoid, 10-shot",
        small_maml,
        waves,
        Way(3000, 25, 1e-2),
        Way(10000, 25, 1e-2, 128, 0.03),
    ),
)


def trained(case: Case, how: Way, share: float) -> tuple[Learner, float]:
    """The meta-trained learner, and the seconds of its training."""
    torch.manual_seed(0)
    learner = case.learner()
    rule = ES(pairs=how.pairs, sigma=how.sigma) if how.pairs else Backprop()
    optimizer = torch.optim.Adam(
        [p for p in learner.parameters() if p.requires_grad], lr=how.rate
    )
    clock = time.perf_counter()
    for _ in meta_train(
        learner,
        case.tasks("train"),
        steps=max(1, round(share * how.steps)),
        batch=how.batch,
        meta_gradient=rule,
        optimizer=optimizer,
        schedule=lambda step, progress: min(1.0, 2 - 2 * progress),
    ):
        pass
    return learner, time.perf_counter() - clock


def losses(learner: Learner, tasks: TaskDistribution) -> Tensor:
    """The loss (TASKS,) on the query sets of the same tasks for all learners."""
    return torch.vmap(lambda task: learner.loss(task)[0])(
        tasks.sample(TASKS, torch.Generator().manual_seed(2))
    ).detach()


def compare(share: float) -> Report:
    rows = []
    for case in CASES:
        (descended, quick), (evolved, slow) = (
            trained(case, case.backprop, share),
            trained(case, case.es, share),
        )
        found = [
            losses(learner, case.tasks("test")) for learner in (descended, evolved)
        ]
        weights = sum(p.numel() for p in descended.parameters())
        labels = {
            "learner and tasks": case.name,
            "weights": f"{weights:,}",
            "meta-steps": f"{case.backprop.steps:,} and {case.es.steps:,}",
            "seconds": f"{quick:,.0f} and {slow:,.0f}",
        }
        values = {
            "backprop": found[0],
            "es": found[1],
            "es minus backprop": found[1] - found[0],
        }
        rows.append(row(labels, values))
        print(rows[-1], flush=True)
    return table("loss on unseen tasks", rows)


def seconds(
    learner: Learner,
    tasks: TaskDistribution,
    pairs: int,
    batch: int,
    numbers: int,
    rounds: int = 5,
) -> float:
    """The seconds of one meta-gradient, with members evaluated at once up to so many
    numbers: the minimum of some rounds after the first.
    """
    drawn = tasks.sample(batch, torch.Generator().manual_seed(0))
    usual, population.CHUNK_NUMBERS = population.CHUNK_NUMBERS, numbers
    found = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        es(learner, drawn, pairs=pairs, generator=torch.Generator().manual_seed(0))
        found.append(time.perf_counter() - begin)
    population.CHUNK_NUMBERS = usual
    return min(found[1:])


def speed() -> Report:
    curves, images = sinusoid("train"), drawings("train")
    cases: list[tuple[str, Learner, TaskDistribution, int, int]] = [
        ("MAML, sinusoid, 64 pairs, 8 tasks", MAML.build(curves.spec), curves, 64, 8),
        (
            "LSTM of 16 units, sinusoid, 64 pairs, 8 tasks",
            LSTM.build(curves.spec, hidden=16),
            curves,
            64,
            8,
        ),
        (
            "ProtoNet with mlp, strokes, 64 pairs, 4 tasks",
            ProtoNet.build(images.spec, encoder="mlp"),
            images,
            64,
            4,
        ),
        (
            "MAML with mlp, strokes, 64 pairs, 4 tasks",
            MAML.build(images.spec, net="mlp"),
            images,
            64,
            4,
        ),
        (
            "ProtoNet with conv4, strokes, 4 pairs, 2 tasks",
            ProtoNet.build(images.spec),
            images,
            4,
            2,
        ),
    ]
    rows = []
    for name, *case in cases:
        slow, fast = (
            seconds(*case, numbers=0),
            seconds(*case, numbers=population.CHUNK_NUMBERS),
        )
        times = {"one by one, ms": 1000 * slow, "at once, ms": 1000 * fast}
        rows.append(row({"workload": name}, {**times, "times as fast": slow / fast}))
    return table("one meta-gradient", rows)


if __name__ == "__main__":
    parser = parser_of(__doc__)
    parser.add_argument("--speed", action="store_true", help="time populations instead")
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of the meta-steps to take (1)"
    )
    options = parser.parse_args()
    finish(speed() if options.speed else compare(options.share), options)
