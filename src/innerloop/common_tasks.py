"""Several runs on the same tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from innerloop.assembly import Choice, check_device
from innerloop.core.learner import Learner
from innerloop.core.task import TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.evaluation.chunks import BLOCK, generators
from innerloop.evaluation.comparison import compared, paired_difference, scores_on
from innerloop.experiment import Experiment, load
from innerloop.measurements import Report, TaskScores, TestPlan, merged
from innerloop.runs import Run

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainedRun:
    """A run and its learner.

    Args:
        name: the end of the folder's path, as much as tells it from the others.
    """

    name: str
    run: Run
    experiment: Experiment
    learner: Learner


@dataclass
class CommonTasks:
    """One setting of a test, on the tasks of the first run.

    Args:
        labels: what tells the setting from others, such as ways and shots.
        tasks: the tasks by the name of the run that they are read for.
        problems: why the other runs cannot be tested on them, by name.
        scores: on the tasks, by name, as they are measured.
    """

    labels: dict[str, Any]
    tasks: dict[str, TaskDistribution]
    problems: dict[str, str]
    scores: dict[str, TaskScores] = field(default_factory=dict)

    def measure(self, run: TrainedRun, plan: TestPlan) -> None:
        """Test a run; where that is impossible, `problems` says why.

        Raises InnerloopError where the first run cannot be tested.
        """
        tasks = self.tasks[run.name]
        try:
            found = scores_on(run.learner, tasks, plan)
            for other in self.scores.values():
                paired_difference(found, other)
            self.scores[run.name] = found
        except InnerloopError as error:
            if not self.scores:
                raise
            self.problems[run.name] = str(error)


def trained_runs(
    folders: Sequence[Path | str], device: str = "cpu"
) -> list[TrainedRun]:
    """The runs in these folders. Raises InnerloopError for a folder that is named
    twice.
    """
    paths = [Path(folder).resolve() for folder in folders]
    twice = next((p for p in paths if paths.count(p) > 1), None)
    if twice is not None:
        raise InnerloopError(f"{twice} is named twice: name each run once")
    where = check_device(device)
    return [
        TrainedRun(name, Run(path), Experiment.load(path), load(path).to(where))
        for name, path in zip(_names(paths), paths, strict=True)
    ]


def _names(paths: Sequence[Path]) -> list[str]:
    """The last parts of every path, as many as tell all of them apart."""
    for count in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return list(map(str, paths))


def common_tasks(
    runs: Sequence[TrainedRun],
    plan: TestPlan,
    *,
    tasks: Choice | str | None = None,
    split: str = "test",
    **options: Any,
) -> list[CommonTasks]:
    """The settings in which the first run is tested, see `Experiment.test_tasks`, and
    the same tasks for the others, each read as its run reads inputs.
    """
    first, *others = runs
    source = {"tasks": tasks, "split": split}
    found = []
    for labels, ours, _ in first.experiment.test_tasks(
        first.learner, **source, **options
    ):
        setting = CommonTasks(labels, {first.name: ours}, {})
        for run in others:
            alike = replace(run.experiment, tasks=first.experiment.tasks)
            exact = {**options, **labels}
            try:
                ((_, theirs, _),) = alike.test_tasks(run.learner, **source, **exact)
            except InnerloopError as error:
                setting.problems[run.name] = str(error)
                continue
            if same_tasks(ours, theirs, plan):
                setting.tasks[run.name] = theirs
            else:
                setting.problems[run.name] = (
                    f"its reader leaves other tasks: {theirs.describe()}"
                )
        found.append(setting)
    return found


def same_tasks(
    ours: TaskDistribution, theirs: TaskDistribution, plan: TestPlan
) -> bool:
    """Whether two distributions draw the same tasks, though their inputs may be read in
    another way.
    """
    if ours.describe() != theirs.describe():
        return False
    drawn = [
        tasks.sample(min(plan.n, BLOCK), next(generators(plan.generator())))
        for tasks in (ours, theirs)
    ]
    return all(
        torch.equal(a.y, b.y)
        and (ours.reader != theirs.reader or torch.equal(a.x, b.x))
        for a, b in zip(*drawn, strict=True)
    )


def compare(
    runs: Sequence[TrainedRun],
    plan: TestPlan,
    *,
    tasks: Choice | str | None = None,
    split: str = "test",
    say: Say = lambda text: None,
    **options: Any,
) -> Report:
    """The scores of runs on the same tasks, and the paired difference of each to the
    first.

    Args:
        plan: number of tasks, seed, steps and precision of the test.
        tasks, split, options: see `Experiment.test_tasks`.
        say: called with what is measured next.

    Raises InnerloopError where no run can be compared with the first.
    """
    settings = common_tasks(runs, plan, tasks=tasks, split=split, **options)
    for setting in settings:
        for run in runs:
            if run.name in setting.tasks:
                what = [f"{value} {name}" for name, value in setting.labels.items()]
                say(", ".join([f"testing {run.name}", *what]))
                setting.measure(run, _at_steps(run, plan))
    reasons = problems(settings)
    if all(len(setting.scores) < 2 for setting in settings):
        raise InnerloopError(reasons[0])
    report = merged([compared(s.scores, s.labels) for s in settings])
    notes = [
        *reasons,
        *remarks(runs, settings),
        "The difference is the mean over tasks of a run's score minus that of "
        f"{runs[0].name} on the same task, with its 95 % interval (Student's t).",
    ]
    context = {
        "runs": {run.name: str(run.run.folder) for run in runs},
        "baseline": runs[0].name,
        "tasks": plan.n,
        "seed": plan.seed,
        "precision": plan.precision,
        "steps": plan.steps,
        "split": split,
    }
    return Report(report.tables, tuple(notes), context)


def _at_steps(run: TrainedRun, plan: TestPlan) -> TestPlan:
    """The plan, without steps for a learner that takes none, which is tested as it
    is.
    """
    if plan.steps is None:
        return plan
    try:
        run.learner.set_steps(plan.steps)
    except InnerloopError:
        return replace(plan, steps=None)
    return plan


def problems(settings: Sequence[CommonTasks]) -> list[str]:
    """Why runs are not compared, a line for each reason."""
    found = dict.fromkeys(
        f"{name} is not compared: {text}"
        for setting in settings
        for name, text in setting.problems.items()
    )
    return list(found)


def remarks(runs: Sequence[TrainedRun], settings: Sequence[CommonTasks]) -> list[str]:
    """A line for every run that was trained on classes of the test, or on another task
    source.
    """
    found = []
    trained_on = runs[0].experiment.tasks.name
    for run in runs:
        own = run.experiment.tasks.name
        if own != trained_on:
            found.append(
                f"{run.name} was trained on {own}, {runs[0].name} on {trained_on}"
            )
        tasks = next((s.tasks[run.name] for s in settings if run.name in s.tasks), None)
        count = run.experiment.seen_classes(tasks) if tasks is not None else 0
        if count:
            found.append(
                f"{run.name} was trained on {count} of these classes: its score does "
                "not measure the learning of new classes"
            )
    return found
