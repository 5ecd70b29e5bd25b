"""Episodes per second of every task distribution, and what share of a ProtoNet training step its sampling takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from innerloop.core.metagrad import backprop
from innerloop.core.task import TaskDistribution
from innerloop.learners import LEARNERS
from innerloop.tasks import omniglot, sinusoid, strokes


def median_seconds(function: Callable[[], object], repeats: int = 15) -> float:
    """The median time of one call, after two that do not count."""
    times = []
    for i in range(repeats + 2):
        clock = time.perf_counter()
        function()
        if i > 1:
            times.append(time.perf_counter() - clock)
    return statistics.median(times)


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    distributions: dict[str, Callable[[], TaskDistribution]] = {
        "strokes, 5-way 1-shot": lambda: strokes(),
        "strokes, 60-way 1-shot 4 queries": lambda: strokes(ways=60, queries=4, alphabets=3),
        "sinusoid, 10-shot": lambda: sinusoid(),
        "omniglot, 5-way 1-shot": lambda: omniglot(),
        "omniglot, 60-way 1-shot 4 queries": lambda: omniglot(ways=60, queries=4, alphabets=3),
    }
    print(f"{'tasks':<36}{'episodes/s':>12}{'of a step':>12}")
    for name, build in distributions.items():
        try:
            tasks = build()
        except FileNotFoundError as error:
            print(f"{name:<36}left out: {error}")
            continue
        batch = 1 if "60-way" in name else 16
        sampling = median_seconds(lambda tasks=tasks, batch=batch: tasks.sample(batch, generator))
        share = ""
        if "60-way" in name:
            learner = LEARNERS["protonet"].build(tasks.spec).train()

            def step(tasks: TaskDistribution = tasks, learner=learner) -> object:
                with torch.autocast("cpu", torch.bfloat16):
                    return backprop(learner, tasks.sample(1, generator))

            share = f"{100 * sampling / median_seconds(step, 5):.1f} %"
        print(f"{name:<36}{batch / sampling:>12.0f}{share:>12}")


if __name__ == "__main__":
    main()
