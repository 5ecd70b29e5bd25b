"""The protocol: a learner on unseen tasks, with intervals, its adaptation curve, and
what its start is worth.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from innerloop.core.descent import Descent
from innerloop.core.learner import Learner, Streaming
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.engine.precision import Precision


class Estimate(NamedTuple):
    """A mean over tasks and the half width of its 95 % interval."""

    mean: float
    interval: float

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        values = values.double()
        half = (
            1.96 * float(values.std()) / math.sqrt(len(values))
            if len(values) > 1
            else math.inf
        )
        return cls(float(values.mean()), half)


@dataclass(frozen=True)
class TestResult:
    """What `meta_test` measured: every metric, the score after 0, 1, ... gradient
    steps, and the seconds of the whole test.

    instances: of learners that stream classes, the accuracy for the 1st, 2nd, ...
    example of a class in the support set, before its label is shown.
    """

    __test__ = False  # no test case, for all its name says
    metrics: dict[str, Estimate]
    tasks: int
    transductive: bool
    seconds: float
    score: str
    curve: list[Estimate] = field(default_factory=list)
    instances: list[Estimate] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        lists = {
            name: [estimate._asdict() for estimate in getattr(self, name)]
            for name in ("curve", "instances")
        }
        return {
            **asdict(self),
            "metrics": {k: v._asdict() for k, v in self.metrics.items()},
            **lists,
        }


def meta_test(
    learner: Learner,
    tasks: TaskDistribution,
    *,
    n: int = 1000,
    curve_steps: int | None = None,
    precision: Precision = "float32",
    generator: torch.Generator | None = None,
    chunk: int = 25,
) -> TestResult:
    """Adapt to `n` unseen tasks and score their query sets: means with 95 % intervals
    over tasks.

    curve_steps: also score after every number of gradient steps up to this one, for
    learners that take steps (Descent).
    generator: draws the tasks (default: seed 0, so that learners compared by the
    default meet the same tasks).
    """
    begin = time.monotonic()
    scores: dict[str, list[Tensor]] = {}
    curves: list[Tensor] = []
    instances: list[Tensor] = []
    learner.eval()
    for batch in chunks(learner, tasks, n, chunk, generator):
        with (
            torch.no_grad(),
            torch.autocast(
                batch.query.x.device.type, torch.bfloat16, enabled=precision == "bf16"
            ),
        ):
            for name, values in learner.mapped(
                lambda task: score_state(learner, learner.adapt(task.support), task),
                batch,
            ).items():
                scores.setdefault(name, []).append(values.float().cpu())
            if curve_steps is not None and isinstance(learner, Descent):
                curves.append(
                    learner.mapped(
                        lambda task: _curve(learner, task, curve_steps), batch
                    )
                    .float()
                    .cpu()
                )
            if (
                isinstance(learner, Streaming)
                and tasks.spec.kind == "classes"
                and not tasks.spec.ordered
            ):
                instances.append(
                    learner.mapped(
                        lambda task: _by_instance(learner, task.support), batch
                    ).cpu()
                )
    return TestResult(
        metrics={
            name: Estimate.of(torch.cat(values)) for name, values in scores.items()
        },
        tasks=n,
        transductive=bool(getattr(learner, "transductive", False)),
        seconds=time.monotonic() - begin,
        score=learner.likelihood.score,
        curve=[Estimate.of(values) for values in torch.cat(curves).T] if curves else [],
        instances=[Estimate.of(values) for values in torch.cat(instances).T]
        if instances
        else [],
    )


def chunks(
    learner: Learner,
    tasks: TaskDistribution,
    n: int,
    chunk: int,
    generator: torch.Generator | None,
) -> Iterator[Task]:
    if n < 1:
        raise InnerloopError(f"a test needs at least one task, not {n}")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    device = next(learner.parameters(), torch.empty(0)).device
    for begin in range(0, n, chunk):
        yield tasks.sample(min(chunk, n - begin), generator).to(device)


def score_state(learner: Learner, state: Any, task: Task) -> dict[str, Tensor]:
    outputs = learner.predict(state, task.query.x)
    return {
        "loss": learner.likelihood.nll(outputs, task.query.y),
        **learner.likelihood.metrics(outputs, task.query.y),
    }


def _curve(learner: Descent, task: Task, steps: int) -> Tensor:
    score = learner.likelihood.score
    return torch.stack(
        [
            score_state(learner, state, task)[score]
            for state in learner.trajectory(task.support, steps)
        ]
    )


def _by_instance(learner: Streaming, support: Examples) -> Tensor:
    """Accuracy (shots,) for the 1st, 2nd, ... example of a class, from those before it;
    every class has as many.
    """
    # (n,)
    right = (learner.scan(support)[1].argmax(-1) == support.y.argmax(-1)).float()
    instance = (support.y * support.y.cumsum(0)).sum(-1)  # (n,) 1, 2, ...
    shots, ways = len(support.y) // support.y.shape[1], support.y.shape[1]
    # (n, shots)
    which = instance[:, None] == torch.arange(1, shots + 1, device=right.device)
    return (right[:, None] * which).sum(0) / ways
