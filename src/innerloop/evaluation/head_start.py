"""The head start: how much faster a meta-trained learner reaches the quality of
training from scratch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from innerloop.core.descent import Descent, Weights
from innerloop.core.learner import Learner, State
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, checked
from innerloop.evaluation.base import Evaluation
from innerloop.evaluation.chunks import Blocks, chunks, device_of, draw
from innerloop.evaluation.few_shot import score_state
from innerloop.learners.transfer.scratch import Scratch
from innerloop.measurements import (
    Estimate,
    Measurement,
    Report,
    Row,
    Table,
    TestPlan,
    Unit,
)

RATES = (0.003, 0.01, 0.03, 0.1, 0.3)  # learning rates of training from scratch
TOLERANCE = 0.01  # a smaller share of the whole improvement counts as none
SELECTION = 25  # tasks on which the learning rate and the number of steps are chosen
FEWEST_STEPS = 100  # from scratch, before it can count as converged


class Median:
    """The median of positive values (n,) and a distribution-free 95 % interval, None
    for fewer than six.
    """

    def __init__(self, values: Sequence[float]):
        ordered = sorted(values)
        n = len(ordered)
        self.value = float(torch.tensor(ordered, dtype=torch.float64).quantile(0.5))
        # the largest r with P(Binomial(n, 1/2) < r) <= 2.5 %
        total, r = 0.0, 0
        while r < n and (total := total + math.comb(n, r) * 0.5**n) <= 0.025:
            r += 1
        self.interval = (ordered[r - 1], ordered[n - r]) if r else None


@dataclass(frozen=True)
class HeadStartResult:
    """What `head_start` measured.

    Args:
        score: name of the metric.
        learner: the learner's score after adapting.
        scratch: the score of training from scratch at the step where it stops
            improving.
        difference: learner minus scratch, on the same tasks.
        learner_seconds, scratch_seconds: median seconds of adapting to one task.
        reached: whether the learner's score is at least that of training from scratch.
        improves: whether training from scratch is better than its random weights.
        adapts: whether the learner's predictions depend on the support set.
        speedup: the median over tasks of scratch_seconds / learner_seconds; None unless
            all three hold.
        speedup_interval: its 95 % interval; None for fewer than six tasks.
        scratch_steps: the steps of training from scratch.
        choice: position of the candidate that was best from scratch.
        converged: False where training from scratch still improved when the number of
            steps reached its bound.
        tasks: number of tasks.
    """

    score: str
    learner: Estimate
    scratch: Estimate
    difference: Estimate
    learner_seconds: float
    scratch_seconds: float
    reached: bool
    improves: bool
    adapts: bool
    speedup: float | None
    speedup_interval: tuple[float, float] | None
    scratch_steps: int
    choice: int
    converged: bool
    tasks: int


@torch.no_grad()
def head_start(
    learner: Learner,
    candidates: Sequence[Descent],
    tasks: TaskDistribution,
    *,
    n: Count = 50,
    steps: Count = 1000,
    generator: torch.Generator | None = None,
) -> HeadStartResult:
    """Compare a learner with training from scratch: scores, and the seconds that each
    needs for the same quality.

    The learner adapts as it does in use. Training from scratch is the best of the
    candidates (such as several learning rates), trained until it stops improving or for
    `steps` steps; both are chosen on other tasks than those measured. Times are of one
    task at a time and include all that is computed from the support set; only where the
    learner reaches the score of training from scratch are they compared.

    Args:
        candidates: ways to train from scratch.
        n: number of tasks.
        steps: largest number of steps from scratch.
        generator: draws the tasks (default: a generator with seed 0).
    """
    checked(head_start, {"n": n, "steps": steps}, "head_start")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    score = learner.likelihood.score
    for one in (learner, *candidates):
        one.eval()
        if one.likelihood.score != score:
            raise InnerloopError(
                f"cannot compare {score} with the {one.likelihood.score} of "
                f"{type(one).__name__}"
            )
    selection = draw(learner, tasks, Blocks(SELECTION, generator)[0]).to(
        device_of(learner)
    )
    trained = [_until_converged(one, selection, steps) for one in candidates]
    best = max(trained, key=lambda one: one.quality)
    margin = TOLERANCE * best.improvement
    good = [i for i, t in enumerate(trained) if t.quality >= best.quality - margin]
    choice = min(good, key=lambda i: trained[i].steps)
    scratch, chosen = candidates[choice], trained[choice]

    def train(support: Examples) -> State:
        weights = scratch.init(support)
        for _ in range(chosen.steps):
            weights = scratch.step(weights, support)
        return scratch.finalize(weights, support)

    def random_weights(support: Examples) -> State:
        return scratch.finalize(scratch.init(support), support)

    first, second = (task.support for task in selection.unbind()[:2])
    x = selection.query.x[0]
    one, two = (learner.predict(learner.adapt(s), x) for s in (first, second))
    scratch.step(scratch.init(first), first)  # both methods ran before any is timed
    scores, seconds = [], []
    for batch in chunks(learner, tasks, n, 1, generator):
        task = batch.unbind()[0]
        state, learner_time = _timed(learner.adapt, task.support)
        weights, scratch_time = _timed(train, task.support)
        scores.append(
            [
                float(score_state(learner, state, task)[score]),
                float(score_state(scratch, weights, task)[score]),
                float(score_state(scratch, random_weights(task.support), task)[score]),
            ]
        )
        seconds.append([learner_time, scratch_time])
    ours, theirs, start = torch.tensor(scores, dtype=torch.float64).T
    sign = 1 if learner.likelihood.higher_is_better else -1
    reached = bool(sign * ours.mean() >= sign * theirs.mean())
    improves = bool(sign * theirs.mean() > sign * start.mean())
    adapts = not torch.equal(one, two)
    compared = reached and improves and adapts
    ratio = Median([b / a for a, b in seconds]) if compared else None
    return HeadStartResult(
        score=score,
        learner=Estimate.of(ours),
        scratch=Estimate.of(theirs),
        difference=Estimate.of(ours - theirs),
        learner_seconds=Median([ours for ours, _ in seconds]).value,
        scratch_seconds=Median([theirs for _, theirs in seconds]).value,
        reached=reached,
        improves=improves,
        adapts=adapts,
        speedup=ratio.value if ratio else None,
        speedup_interval=ratio.interval if ratio else None,
        scratch_steps=chosen.steps,
        choice=choice,
        converged=chosen.converged,
        tasks=n,
    )


class Training(NamedTuple):
    """Training from scratch: the steps after which it no longer improves, the mean
    score there (negative where lower is better), how much better that is than at the
    start, and whether it stopped improving before the largest number of steps.
    """

    steps: int
    quality: float
    improvement: float
    converged: bool


def _until_converged(learner: Descent, tasks: Task, bound: int) -> Training:
    """Train on a batch of tasks until the second half of the steps brings no
    improvement, or up to `bound` steps.

    It is scored after every step at first, then after every 5 % more of them.
    """
    sign = 1 if learner.likelihood.higher_is_better else -1

    def quality(weights: Weights, task: Task) -> Tensor:
        state = learner.finalize(weights, task.support)
        return score_state(learner, state, task)[learner.likelihood.score]

    weights = learner.mapped(learner.init, tasks.support)
    scored: dict[int, float] = {}
    check, step, converged = min(FEWEST_STEPS, bound), 0, False
    while True:
        value = sign * float(learner.mapped(quality, weights, tasks).mean())
        if not math.isfinite(value):
            converged = True  # it diverged
            break
        scored[step] = value
        if step == check:
            start, highest = scored[0], max(scored.values())
            half = max(value for at, value in scored.items() if at <= check // 2)
            converged = highest - half <= TOLERANCE * (highest - start)
            if converged or check == bound:
                break
            check = min(2 * check, bound)
        following = min(max(step + 1, math.ceil(1.05 * step)), check)
        for _ in range(following - step):
            weights = learner.mapped(learner.step, weights, tasks.support)
        step = following
    if not scored:
        return Training(0, -math.inf, 0.0, True)
    improvement = max(scored.values()) - scored[0]
    enough = scored[0] + (1 - TOLERANCE) * improvement
    steps = next(at for at, value in scored.items() if value >= enough)
    return Training(steps, scored[steps], improvement, converged)


def _timed(
    function: Callable[[Examples], State], support: Examples
) -> tuple[State, float]:
    """The result of `function`, and the seconds that it took."""

    def now() -> float:
        if support.x.device.type == "cuda":
            torch.cuda.synchronize(support.x.device)
        return time.perf_counter()

    begin = now()
    state = function(support)
    return state, now() - begin


class HeadStart(Evaluation):
    """Head start: time to reach the quality of training from scratch.

    The same quality is that of the default network for these tasks, trained on the
    support set from random weights at the best of a few learning rates until it stops
    improving.

    Args:
        tasks: largest number of tasks.
        steps: largest number of steps from scratch.
    """

    tasks: Count = 50
    steps: Count = 1000

    @classmethod
    def supports(cls, learner: Learner, tasks: TaskDistribution) -> str | None:
        kinds = " or ".join(Scratch.kinds)
        if tasks.played or tasks.spec.ordered or tasks.spec.kind not in Scratch.kinds:
            return f"training from scratch needs tasks of {kinds}"
        return None

    def measure(
        self, learner: Learner, tasks: TaskDistribution, plan: TestPlan
    ) -> Report:
        device = device_of(learner)
        candidates = []
        for rate in RATES:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(plan.seed)
                candidates.append(Scratch.build(tasks.spec, inner_lr=rate).to(device))
        n = min(plan.n, self.tasks)
        result = head_start(
            learner,
            candidates,
            tasks,
            n=n,
            steps=self.steps,
            generator=plan.generator(),
        )
        unit: Unit = "%" if result.score in learner.likelihood.percent else ""
        name = type(learner).__name__
        chosen = {
            "steps": result.scratch_steps,
            "learning rate": RATES[result.choice],
        }
        rows = [
            Row(
                {**plan.labels, "method": method, **settings},
                (
                    Measurement.of(result.score, estimate, n, unit),
                    Measurement("median seconds", seconds, None, n, "s"),
                ),
            )
            for method, settings, estimate, seconds in (
                (name, dict.fromkeys(chosen), result.learner, result.learner_seconds),
                ("from scratch", chosen, result.scratch, result.scratch_seconds),
            )
        ]
        gap = Measurement.of(result.score, result.difference, n, unit)
        values = [gap]
        if result.speedup is not None:
            values.append(Measurement("median speedup", result.speedup, None, n))
        tables = (
            Table("adaptation to a new task", tuple(rows)),
            Table(
                f"{name} against training from scratch",
                (Row({**plan.labels, "of": "difference"}, tuple(values)),),
            ),
        )
        context = {"tasks": n, "speedup_interval": result.speedup_interval}
        return Report(tables, tuple(_notes(result, name, self.steps)), context)


def _notes(result: HeadStartResult, name: str, bound: int) -> list[str]:
    uncompared = "so the times are not compared"
    if not result.improves:
        note = (
            f"training from scratch does not improve the {result.score} of random "
            f"weights, {uncompared}"
        )
    elif not result.reached:
        note = (
            f"{name} does not reach the {result.score} of training from scratch, "
            f"{uncompared}"
        )
    elif not result.adapts:
        note = (
            f"{name} does not adapt: its predictions do not depend on the support set, "
            f"{uncompared}"
        )
    else:
        low, high = result.speedup_interval or (math.nan, math.nan)
        interval = f" (95 % interval {low:.3g} to {high:.3g})" if low == low else ""
        note = (
            f"{name} adapts {result.speedup:.3g} times as fast{interval} as training "
            f"from scratch, to a {result.score} that is at least as good"
        )
    notes = [note]
    if not result.converged:
        notes.append(
            f"training from scratch was still improving after {bound} steps, the "
            "largest number allowed: with more, it gets better"
        )
    return notes
