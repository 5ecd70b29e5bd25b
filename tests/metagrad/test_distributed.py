"""Several processes compute the meta-gradient of one."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from innerloop import MAML, ProtoNet
from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.workers import Share, Workers, joined
from innerloop.metagrad import MetaGradient
from innerloop.metagrad.base import Gradient, Move, Update, normalized_together
from innerloop.metagrad.distributed import distributed
from innerloop.metagrad.meta_train import apply_update, training_mode
from tests.metagrad.test_resume import CASES, RULES, Planes, built, seeded
from tests.metagrad.together import together

SIZE = 2
STEPS = 3


def tensors(update: Update) -> dict[str, Tensor | None]:
    return dict(update.grads if isinstance(update, Gradient) else update.theta)


def error(found: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> float:
    """The relative distance; infinite where other tensors are None."""
    assert {n for n, t in found.items() if t is not None} == {
        n for n, t in expected.items() if t is not None
    }
    pairs = [(t, expected[n]) for n, t in sorted(found.items()) if t is not None]
    a, b = (torch.cat([t.double().flatten() for t in side]) for side in zip(*pairs))  # noqa: B905
    return float((a - b).norm() / b.norm().clamp_min(1e-12))


def compared(
    learner: Learner,
    tasks: TaskDistribution,
    rules: tuple[MetaGradient, MetaGradient],
    batch: int,
) -> dict[str, float]:
    """The largest errors of the updates and of the metrics of several meta-steps, by
    processes together, from those of one process; both at the same parameters.
    """
    worst = {"update": 0.0, "metrics": 0.0}
    streams = []
    for rule in rules:
        generator = seeded(1)
        rule.prepare(learner, tasks, seeded(2))

        def draw(generator: torch.Generator = generator) -> Task:
            return tasks.sample(batch, generator)

        streams.append(draw)
    optimizer = torch.optim.SGD(learner.parameters(), 0.1)
    for step in range(STEPS):
        training_mode(learner)
        for rule in rules:
            rule.on_progress(step / STEPS)
        expected, found = (
            rule(learner, draw) for rule, draw in zip(rules, streams, strict=True)
        )
        assert type(found) is type(expected)
        worst["update"] = max(worst["update"], error(tensors(found), tensors(expected)))
        assert found.metrics.keys() == expected.metrics.keys()
        for name, value in expected.metrics.items():
            difference = float((found.metrics[name] - value).abs())
            worst["metrics"] = max(
                worst["metrics"], difference / max(1e-3, float(value.abs()))
            )
        apply_update(expected, dict(learner.named_parameters()), optimizer, 1.0)
    return worst


class Doubles(TaskDistribution):
    """Tasks in float64."""

    def __init__(self, tasks: TaskDistribution):
        self.tasks, self.spec = tasks, tasks.spec

    def sample(self, n: int, generator: torch.Generator) -> Task:
        drawn = self.tasks.sample(n, generator)
        return Task(*(Examples(*(t.double() for t in part)) for part in drawn))


class Pixels(TaskDistribution):
    """Small images with random labels."""

    spec = TaskSpec("classes", (1, 8, 8), 3)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        x = torch.randn(n, 12, 1, 8, 8, generator=generator)
        y = torch.eye(3).repeat(4, 1).expand(n, -1, -1)
        return Task(Examples(x[:, :3], y[:, :3]), Examples(x[:, 3:], y[:, 3:]))


# ------------------------------------------------------------------ in each process


def errors_of_all() -> dict[str, dict[str, float]]:
    found = {}
    workers = joined()
    assert workers.size == SIZE
    for name, pair in CASES:
        learner, tasks, rule = built(name, pair)

        def rules(rule: MetaGradient = rule) -> tuple[MetaGradient, MetaGradient]:
            return copy.deepcopy(rule), distributed(copy.deepcopy(rule), workers)

        for batch in (5, 1):
            found[f"{name} {pair} {batch}"] = compared(learner, tasks, rules(), batch)
        if not tasks.played:
            doubles = Doubles(tasks)
            found[f"{name} {pair} double"] = compared(
                learner.double(), doubles, rules(), 5
            )
    return found


@pytest.fixture(scope="module")
def errors() -> list[dict[str, dict[str, float]]]:
    return together(errors_of_all, SIZE)


def test_all(errors) -> None:
    for k, v in errors[0].items():
        print(k, v)
