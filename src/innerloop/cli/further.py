"""`innerloop test` of learners that ask for labels, and of learners that go on learning
(`--continual`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from innerloop.core.learner import Learner
from innerloop.core.meta_test import Estimate
from innerloop.core.task import TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.evaluation.active import asking_curves
from innerloop.evaluation.class_incremental import continual_test
from innerloop.learners.active.active_learner import ActiveLearner
from innerloop.runs import Settings, seen_classes, write_atomically
from innerloop.tasks import Episodes

SHOWN = (1, 5, 10, 15, 20, 30, 50)  # labels


def percent(estimate: Estimate, sign: str = "") -> str:
    return f"{100 * estimate.mean:{sign}.2f} ± {100 * estimate.interval:.2f} %"


def show_asking(
    learner: ActiveLearner,
    tasks: TaskDistribution,
    options: argparse.Namespace,
    console: Console,
    row: dict[str, Any],
) -> None:
    """Print the accuracy after some numbers of labels, by strategy; all of them go into
    `row`.
    """
    found = asking_curves(
        learner,
        tasks,
        n=options.tasks,
        generator=torch.Generator().manual_seed(options.seed),
    )
    row["asking"] = {
        name: {
            part: [e._asdict() for e in getattr(curve, part)] for part in curve._fields
        }
        for name, curve in found.items()
    }
    at = [label for label in SHOWN if label <= len(found["learned"].accuracy)]
    titles = {
        "accuracy": "accuracy in % after so many labels",
        "behind": "by how much the learned policy is better, on the same tasks",
    }
    for part, title in titles.items():
        table = Table(title=title, title_justify="left")
        for column in ("asks by", *map(str, at)):
            table.add_column(column, justify="left" if column == "asks by" else "right")
        for name, curve in found.items():
            if part == "accuracy" or name != "learned":
                table.add_row(
                    name,
                    *(
                        percent(
                            getattr(curve, part)[label - 1],
                            "+" if part == "behind" else "",
                        )[:-2]
                        for label in at
                    ),
                )
        console.print(table)


def show_continual(
    options: argparse.Namespace, settings: Settings, learner: Learner, console: Console
) -> None:
    """Test on classes that arrive one after the other, and print the accuracy as they
    come, and what was forgotten.
    """
    from innerloop.cli.test import test_tasks

    tasks = (
        test_tasks(options, settings, 2, 1)
        if settings.spec["kind"] == "classes" and "ways" in settings.task_options
        else None
    )
    if not isinstance(tasks, Episodes):
        raise InnerloopError(
            f"--continual needs tasks of classes, and {settings.tasks} has none"
        )
    with console.status(f"{options.streams} streams of classes"):
        result = continual_test(
            learner,
            tasks,
            groups=options.continual,
            shots=options.shots or 5,
            queries=options.queries or 10,
            streams=options.streams,
            generator=torch.Generator().manual_seed(options.seed),
        )
    title = f"{settings.learner}, classes one after the other ({options.part} part, {result.shots} examples each, {result.streams} streams)"
    table = Table(title=title, title_justify="left")
    for column in ("groups so far", "classes", "accuracy among all so far"):
        table.add_column(column, justify="right")
    for i, (classes, accuracy) in enumerate(
        zip(result.classes, result.accuracy, strict=True), 1
    ):
        table.add_row(str(i), f"{classes:.0f}", percent(accuracy))
    console.print(table)
    console.print(
        f"forgetting, of a group: {percent(result.forgetting)}; told a query's group: {percent(result.told_forgetting)}",
        highlight=False,
    )
    console.print(
        f"at the end, told a query's group: {percent(result.told)}; {result.seconds:.0f} s",
        highlight=False,
    )
    seen = (
        seen_classes(settings, tasks)
        if (options.on or settings.tasks) == settings.tasks
        else 0
    )
    if seen:
        console.print(
            f"{seen} of these classes were trained on: the figures are no test of learning new ones",
            soft_wrap=True,
        )
    if options.json:
        told = {
            "run": str(options.run),
            "learner": settings.learner,
            "fields": settings.fields,
            "part": options.part,
        }
        report = {**told, "seen_classes": seen, "continual": result.as_dict()}
        write_atomically(
            Path(options.json), json.dumps(report, indent=2).encode() + b"\n"
        )
