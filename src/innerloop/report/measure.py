"""What a report measures: runs on the same unseen tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from innerloop.assembly import Choice, build_tasks, probed
from innerloop.common_tasks import (
    CommonTasks,
    Say,
    TrainedRun,
    common_tasks,
    same_tasks,
)
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.evaluation.calibration import Calibration
from innerloop.evaluation.chunks import BLOCK, chunks, generators
from innerloop.evaluation.few_shot import meta_test
from innerloop.evaluation.head_start import HeadStart
from innerloop.measurements import Estimate, Report, TestPlan
from innerloop.registry import find

CURVE_STEPS = 10


@dataclass(frozen=True)
class Where:
    """Which tasks are tested, see `Experiment.test_tasks`."""

    tasks: Choice | str | None = None
    split: str = "test"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Example:
    """A task of the test, and what each run predicts on it.

    Args:
        shown: the task with inputs that people can read, where there are such.
        names: of the classes, or empty.
        tasks: as each run reads it, by name.
    """

    shown: Task
    names: list[str]
    tasks: dict[str, Task]


@dataclass
class Measured:
    """All that a report shows of a test.

    Args:
        runs: in order; the first is what others are compared with.
        where, plan: what was tested, and how.
        settings: every setting, with scores.
        problem: why nothing could be tested, or "".
        source: the readable task distribution of the first setting.
        adaptation: the score after 0, 1, ... steps, by the name of the run.
        calibration, head_start: by the name of the run.
        examples: a few tasks of the first setting.
    """

    runs: Sequence[TrainedRun]
    where: Where
    plan: TestPlan
    settings: list[CommonTasks] = field(default_factory=list)
    problem: str = ""
    source: TaskDistribution | None = None
    adaptation: dict[str, list[Estimate]] = field(default_factory=dict)
    calibration: dict[str, Report] = field(default_factory=dict)
    head_start: dict[str, Report | str] | None = None
    examples: list[Example] = field(default_factory=list)

    def place(self, name: str) -> int:
        """The number of a run."""
        return [run.name for run in self.runs].index(name)

    @property
    def main(self) -> CommonTasks | None:
        """The setting that most runs were tested in, the first of those."""
        return max(self.settings, key=lambda s: len(s.scores), default=None)

    def tested(self) -> list[TrainedRun]:
        """The runs that were tested in the main setting."""
        main = self.main
        return [r for r in self.runs if main is not None and r.name in main.scores]


def measure(
    runs: Sequence[TrainedRun],
    plan: TestPlan,
    where: Where,
    *,
    examples: int,
    head_start: bool,
    say: Say,
) -> Measured:
    """Test the runs for a report.

    Args:
        examples: tasks to show.
        head_start: whether to measure the time that training from scratch takes.
        say: called with what is measured next.
    """
    found = Measured(runs, where, plan)
    try:
        source = {"tasks": where.tasks, "split": where.split}
        found.settings = common_tasks(runs, plan, **source, **where.options)
        for setting in found.settings:
            for run in runs:
                if run.name in setting.tasks:
                    shown = " ".join(f"{v} {k}" for k, v in setting.labels.items())
                    say(f"testing {run.name} {shown}".strip())
                    setting.measure(run, plan)
    except InnerloopError as error:
        found.problem = str(error)
        if not any(setting.scores for setting in found.settings):
            found.settings = []
    main = found.main
    if main is None:
        return found
    for run in found.tested():
        tasks = main.tasks[run.name]
        if _takes_steps(run, tasks, plan):
            say(f"adaptation curve of {run.name}")
            found.adaptation[run.name] = _adaptation(run, tasks, plan)
        if Calibration.supports(run.learner, tasks) is None:
            say(f"calibration of {run.name}")
            found.calibration[run.name] = Calibration()(run.learner, tasks, plan)
    if head_start:
        found.head_start = {
            run.name: _head_start(run, main.tasks[run.name], plan, say)
            for run in found.tested()
        }
    found.source, found.examples = _examples(found, main, examples)
    return found


def _takes_steps(run: TrainedRun, tasks: TaskDistribution, plan: TestPlan) -> bool:
    if tasks.played:
        return False
    batch = next(chunks(run.learner, tasks, 1, 1, plan.generator()))
    with torch.no_grad():
        states = list(run.learner.trajectory(batch.unbind()[0].support, 1))
    return len(states) == 2


def _adaptation(
    run: TrainedRun, tasks: TaskDistribution, plan: TestPlan
) -> list[Estimate]:
    found = meta_test(
        run.learner,
        tasks,
        n=plan.n,
        curve_steps=plan.steps or CURVE_STEPS,
        precision=plan.precision,
        generator=plan.generator(),
    )
    return found.curve


def _head_start(
    run: TrainedRun, tasks: TaskDistribution, plan: TestPlan, say: Callable[[str], None]
) -> Report | str:
    evaluation = HeadStart()
    reason = evaluation.supports(run.learner, tasks)
    if reason is not None:
        return reason
    say(f"head start of {run.name} over training from scratch")
    try:
        return evaluation(run.learner, tasks, plan)
    except InnerloopError as error:
        return str(error)


def _examples(
    found: Measured, main: CommonTasks, count: int
) -> tuple[TaskDistribution, list[Example]]:
    """The first tasks of the test, in a form that people can read."""
    plan, first = found.plan, found.tested()[0]
    tested = [main.tasks[run.name] for run in found.tested()]
    readable = next((t for t in tested if _is_readable(t)), None)
    source = readable or _plain(found, main, first) or tested[0]
    n = min(plan.n, BLOCK)
    names = source.sample_names(n, next(generators(plan.generator())))

    def drawn(tasks: TaskDistribution) -> list[Task]:
        generator = next(generators(plan.generator()))
        return tasks.sample(n, generator).unbind()[:count]

    by_run = {run.name: drawn(main.tasks[run.name]) for run in found.tested()}
    return source, [
        Example(
            task,
            names[i] if names else [],
            {name: tasks[i] for name, tasks in by_run.items()},
        )
        for i, task in enumerate(drawn(source))
    ]


def _is_readable(tasks: TaskDistribution) -> bool:
    """Whether inputs are images or texts, not the vectors of an encoder."""
    if tasks.spec.vocabulary and tasks.reader is not None:
        x = tasks.sample(1, torch.Generator().manual_seed(0)).query.x[0, 0]
        return tasks.reader.as_text(x) is not None
    return tasks.spec.is_image or tasks.spec.kind != "classes"


def _plain(
    found: Measured, main: CommonTasks, run: TrainedRun
) -> TaskDistribution | None:
    """The same tasks with images or texts in place of the vectors of an encoder, or
    None where they cannot be read so.
    """
    experiment, where = run.experiment, found.where
    if experiment.reader is None or experiment.spec is None:
        return None
    name = Choice.of(where.tasks).name if where.tasks else experiment.tasks.name
    source = find("tasks", name)
    known = {n: v for n, v in experiment.tasks.options.items() if n in source.options}
    try:
        options = probed(source, {**known, **where.options})
        spec = build_tasks(source, where.split, options, None).spec
        spec = replace(spec, y_dim=experiment.spec.y_dim)
        plain = replace(experiment, reader=None, spec=spec)
        ((_, tasks, _),) = plain.test_tasks(
            run.learner,
            tasks=where.tasks,
            split=where.split,
            **{**where.options, **main.labels},
        )
    except InnerloopError:
        return None
    alike = same_tasks(main.tasks[run.name], tasks, found.plan)
    return tasks if alike and _is_readable(tasks) else None
