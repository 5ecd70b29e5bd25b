"""What learning to learn is worth: a race against training from scratch."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from innerloop.core.descent import Descent
from innerloop.core.learner import Learner, State
from innerloop.core.meta_test import chunks, score_state
from innerloop.core.task import Examples, TaskDistribution


@dataclass(frozen=True)
class HeadStart:
    """What meta-training is worth in steps and seconds of adaptation, against training
    from scratch on the same support sets.

    target: the best mean score that training from scratch reaches. Each learner: its
    score by step (`*_curve`), the steps and the seconds for one task that it needs to
    reach the target; None where it does not.
    """

    score: str
    target: float
    tasks: int
    learner_steps: int | None
    learner_seconds: float | None
    scratch_steps: int
    scratch_seconds: float
    learner_curve: list[float]
    scratch_curve: list[float]

    @property
    def speedup(self) -> float | None:
        """Seconds from scratch over seconds from the meta-trained start."""
        return (
            self.scratch_seconds / max(self.learner_seconds, 1e-9)
            if self.learner_seconds is not None
            else None
        )


def head_start(
    learner: Learner,
    scratch: Descent,
    tasks: TaskDistribution,
    *,
    n: int = 100,
    steps: int = 100,
    generator: torch.Generator | None = None,
) -> HeadStart:
    """Race a meta-trained learner against `scratch`, which starts from random weights,
    to the best score that the latter reaches.

    Both adapt to the same `n` tasks. A learner that takes no gradient steps reaches its
    score in zero of them.
    """
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    state = generator.get_state()
    score = learner.likelihood.score
    curves, seconds = [], []
    for one, budget in (
        (learner, min(steps, max(10, getattr(learner, "inner_steps", 0)))),
        (scratch, steps),
    ):
        one.eval()
        generator.set_state(state)
        rows, spent = [], []
        for batch in chunks(one, tasks, n, 1, generator):
            task = batch.unbind()[0]
            with torch.no_grad():
                states, times = _timed(one, task.support, budget)
                rows.append(
                    torch.stack(
                        [score_state(one, adapted, task)[score] for adapted in states]
                    ).cpu()
                )
                spent.append(torch.tensor(times))
        curves.append(torch.stack(rows).mean(0))
        seconds.append(torch.stack(spent).median(0).values)
    sign = 1 if learner.likelihood.higher_is_better else -1
    best = int((sign * curves[1]).argmax())
    target = float(curves[1][best])
    reached = (sign * curves[0] >= sign * target).nonzero()
    at = int(reached[0]) if len(reached) else None
    return HeadStart(
        score,
        target,
        n,
        at,
        float(seconds[0][at]) if at is not None else None,
        best,
        float(seconds[1][best]),
        curves[0].tolist(),
        curves[1].tolist(),
    )


def _timed(
    learner: Learner, support: Examples, steps: int
) -> tuple[list[State], list[float]]:
    """The states after 0, 1, ... steps, and the seconds that adapting to each takes:
    all steps so far and one `finish`.
    """
    device = support.x.device
    clock = time.perf_counter()

    def passed() -> float:
        nonlocal clock
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        before, clock = clock, time.perf_counter()
        return clock - before

    if not isinstance(learner, Descent):
        return [learner.adapt(support)], [passed()]
    weights = learner.init(support)
    spent, states, times = passed(), [], []
    for step in range(steps + 1):
        if step:
            weights = learner.step(weights, support)
            spent += passed()
        states.append(learner.finalize(weights, support))
        times.append(spent + passed())
    return states, times
