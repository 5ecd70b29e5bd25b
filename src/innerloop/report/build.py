"""A report from run folders."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from innerloop.assembly import Choice
from innerloop.common_tasks import Say, trained_runs
from innerloop.engine.errors import InnerloopError
from innerloop.measurements import TestPlan
from innerloop.report import results, summary
from innerloop.report.examples import tasks_section
from innerloop.report.html import join
from innerloop.report.measure import Measured, Where, measure
from innerloop.report.page import Section, page
from innerloop.report.settings import settings
from innerloop.runs import versions

TASKS = 100  # tested, by default
EXAMPLES = 3  # tasks that are shown


def report(
    runs: Sequence[Path | str],
    plan: TestPlan | None = None,
    *,
    title: str | None = None,
    tasks: Choice | str | None = None,
    split: str = "test",
    examples: int = EXAMPLES,
    head_start: bool = False,
    device: str = "cpu",
    say: Say = lambda text: None,
    **options: Any,
) -> str:
    """A page in HTML about runs, complete in itself: settings, training curves, scores
    on the same unseen tasks with paired differences, adaptation curves, a few tasks
    with predictions, calibration and stored results.

    Args:
        runs: run folders; the first is what the others are compared with.
        plan: number of tasks (default: 100), seed, steps and precision of the test.
        title: heading of the page.
        tasks, split, options: what is tested, see `Experiment.test_tasks`.
        examples: tasks to show.
        head_start: whether to compare with training from scratch, which takes minutes.
        device: where to compute.
        say: called with what is measured next.

    Raises InnerloopError where a run cannot be used.
    """
    if not runs:
        raise InnerloopError("a report needs at least one run folder")
    plan = plan or TestPlan(n=TASKS)
    say("reading the runs")
    found = measure(
        trained_runs(runs, device),
        plan,
        Where(tasks, split, options),
        examples=examples,
        head_start=head_start,
        say=say,
    )
    say("writing the page")
    names = [run.name for run in found.runs]
    return page(
        title or " and ".join(names),
        _lead(found),
        _sections(found),
        {
            "innerloop": versions()["innerloop"],
            "torch": versions()["torch"],
            "written": time.strftime("%Y-%m-%d %H:%M"),
        },
    )


def _lead(found: Measured) -> str:
    main = found.main
    if main is None:
        return "How these runs were trained. They could not be tested."
    tested = next(iter(main.tasks.values()))
    seed = f"seed {found.plan.seed}"
    return f"Tested on {found.plan.n} unseen tasks ({seed}): {tested.describe()}."


def _sections(found: Measured) -> list[Section]:
    several = len(found.runs) > 1
    scores = "Comparison on the same tasks" if several else "Scores on unseen tasks"
    return [
        Section("summary", "Summary", "Summary", summary.summary(found)),
        Section("training", "Training", "Training curves", summary.training(found)),
        Section("scores", "Scores", scores, results.comparison(found)),
        Section(
            "adaptation", "Adaptation", "Adaptation curve", results.adaptation(found)
        ),
        Section("tasks", "Tasks", "A few tasks", join(tasks_section(found))),
        Section(
            "calibration", "Calibration", "Calibration", results.calibration(found)
        ),
        Section(
            "head-start",
            "Head start",
            "Head start over training from scratch",
            results.head_start(found),
        ),
        Section("tests", "Stored tests", "Stored test results", results.stored(found)),
        Section("settings", "Settings", "Settings", settings(found)),
    ]
