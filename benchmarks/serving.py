"""How long a new task takes a trained classifier: fit and predict, one task at a time
and 64 at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from reporting import finish, parser_of, row, table

from innerloop import FewShotClassifier
from innerloop.learners import LEARNERS
from innerloop.tasks import strokes

PERCENTILE = "99th percentile, ms"


class Latency(NamedTuple):
    """Milliseconds: the median, and what one call in a hundred exceeds."""

    title: str
    p50: float
    p99: float


def latency(title: str, function: Callable[[], object], calls: int) -> Latency:
    for _ in range(min(5, calls)):
        function()
    times = []
    for _ in range(calls):
        clock = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - clock))
    found = Latency(
        title, *torch.tensor(times).quantile(torch.tensor([0.5, 0.99])).tolist()
    )
    print(found, flush=True)
    return found


def latencies(calls: int) -> list[Latency]:
    """5-way 1-shot tasks with 15 queries a class, inductive; the networks that
    `innerloop train` makes.
    """
    tasks = strokes("test", queries=15)
    many = tasks.sample(64, torch.Generator().manual_seed(0))
    x, y = many.support.x[0].numpy(), many.support.y[0].argmax(-1).numpy()
    queries = many.query.x[0].numpy()
    found = []
    for name, title in (("protonet", "ProtoNet"), ("maml", "MAML, 1 inner step")):
        learner = LEARNERS[name].build(tasks.spec).eval()
        classifier = FewShotClassifier(learner)
        found.append(
            latency(f"{title}: fit, 5 images", lambda c=classifier: c.fit(x, y), calls)
        )
        found.append(
            latency(
                f"{title}: predict, 1 image",
                lambda c=classifier: c.predict(queries[:1]),
                calls,
            )
        )
        found.append(
            latency(
                f"{title}: predict, 75 images",
                lambda c=classifier: c.predict(queries),
                calls,
            )
        )

        def all_at_once(learner=learner) -> None:
            with torch.no_grad():
                learner.mapped(
                    lambda task: learner.predict(
                        learner.adapt(task.support), task.query.x
                    ),
                    many,
                )

        found.append(
            latency(
                f"{title}: adapt to 64 tasks at once and predict 75 images of each",
                all_at_once,
                max(1, calls // 15),
            )
        )
    return found


if __name__ == "__main__":
    parser = parser_of(__doc__)
    parser.add_argument("--calls", type=int, default=300, help="calls timed (300)")
    options = parser.parse_args()
    rows = [
        row({"operation": each.title}, {"median, ms": each.p50, PERCENTILE: each.p99})
        for each in latencies(options.calls)
    ]
    finish(table("serving", rows), options)
