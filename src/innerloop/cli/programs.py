"""What `innerloop test` tells of a learner that writes programs: how many tasks it
solves, and how many enumeration does in the same time.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.utils._pytree import tree_map

from innerloop.core.meta_test import Estimate
from innerloop.core.task import Task
from innerloop.engine.errors import InnerloopFileError
from innerloop.learners.synthesis.robustfill import RobustFill
from innerloop.learners.synthesis.synthesizer import Search, Synthesizer
from innerloop.programs import strings
from innerloop.programs.search import enumerated
from innerloop.runs import RunError, Settings, write_atomically

SEARCHES: dict[str, Search] = {
    "guided": "guided",
    "enumeration, pruned": "pruned",
    "plain enumeration": "plain",
}
READY = 500_000  # expressions that are enumerated beforehand, in nobody's time


def show_programs(
    options: argparse.Namespace,
    settings: Settings,
    learner: Synthesizer,
    console: Console,
) -> None:
    """Test a run and print the table; the results go to `options.json`, where that is
    given. Raises RunError for other tasks than its own.
    """
    if options.on and options.on != settings.tasks:
        raise RunError(
            f"{options.run} writes programs for {settings.tasks}, and there is nothing of that kind in {options.on}"
        )
    if options.json and not Path(options.json).absolute().parent.is_dir():
        raise InnerloopFileError(
            f"there is no folder {Path(options.json).parent} to write {Path(options.json).name} into"
        )
    told = {
        "shots": options.shots or settings.task_options["shots"],
        "queries": options.queries or settings.task_options["queries"],
    }
    drawn = settings.distribution(options.part, **told).sample(
        options.tasks, torch.Generator().manual_seed(options.seed)
    )
    drawn = tree_map(lambda t: t.to(options.device), drawn)
    seconds = options.seconds or learner.seconds
    rows = {}
    for name, search in [*SEARCHES.items()][: None if options.race else 1]:
        if search != "guided" and isinstance(learner, RobustFill):
            enumerated(strings.GRAMMAR).first(READY)
        with console.status(f"{name} on {options.tasks} tasks"):
            rows[name] = measured(learner, search, drawn.unbind(), seconds)
    where = f"{settings.tasks} ({options.part} part, {options.tasks} tasks, {told['shots']} examples shown, {told['queries']} held out"
    table = Table(
        title=f"{settings.learner} on {where}, {seconds:g} s of the processor a task, 95 % intervals)",
        title_justify="left",
    )
    for column in ("search", "solved", "fits what is shown", "seconds a task"):
        table.add_column(column, justify="left" if column == "search" else "right")
    for name, row in rows.items():
        shares = (
            f"{100 * row[key].mean:.1f} ± {100 * row[key].interval:.1f} %"
            for key in ("solved", "fits")
        )
        table.add_row(name, *shares, f"{row['seconds'].mean:.3f}")
    console.print(table)
    if options.json:
        plain_rows = {
            name: {key: value._asdict() for key, value in row.items()}
            for name, row in rows.items()
        }
        report = {
            "run": str(options.run),
            "learner": settings.learner,
            "tasks": settings.tasks,
            "part": options.part,
            "n": options.tasks,
            **told,
        }
        write_atomically(
            Path(options.json),
            json.dumps(
                {**report, "seconds": seconds, "results": plain_rows}, indent=2
            ).encode()
            + b"\n",
        )


def measured(
    learner: Synthesizer, search: Search, tasks: list[Task], seconds: float
) -> dict[str, Estimate]:
    """How many tasks a search solves in time, all held-out rows right; for how many it
    finds in time what fits what is shown; its time.
    """
    found: dict[str, list[float]] = {"solved": [], "fits": [], "seconds": []}
    for shown, asked in tasks:
        clock = time.process_time()
        state = learner.found(shown, search, seconds)
        found["seconds"].append(time.process_time() - clock)
        for name, (x, y) in (("fits", shown), ("solved", asked)):
            right = bool(
                learner.likelihood.metrics(learner.predict(state, x), y)["solved"]
            )
            found[name].append(right and found["seconds"][-1] <= seconds)
    return {
        name: Estimate.of(torch.tensor(values, dtype=torch.float64))
        for name, values in found.items()
    }
