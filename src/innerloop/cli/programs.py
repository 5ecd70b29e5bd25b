"""What `innerloop test` tells of a learner that writes programs: how many tasks it solves, and how many enumeration does in the same time."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from innerloop.core.meta_test import Estimate
from innerloop.core.task import Task
from innerloop.learners.program.robustfill import RobustFill
from innerloop.programs import strings
from innerloop.programs.search import Budget, Found, Written, plain, pruned
from innerloop.runs import RunError, Settings, write_atomically
from innerloop.synthesis import enumerated

READY = 500_000  # expressions that are enumerated beforehand, in nobody's time


def show_programs(options: argparse.Namespace, settings: Settings, learner: RobustFill, console: Console) -> None:
    """Test a run and print the table; the results go to `options.json`, where that is given. Raises RunError for other tasks than its own."""
    if options.on and options.on != settings.tasks:
        raise RunError(f"{options.run} writes programs for {settings.tasks}, and there is nothing of that kind in {options.on}")
    if options.json and not Path(options.json).absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {Path(options.json).parent} to write {Path(options.json).name} into")
    told = {"shots": options.shots or settings.task_options["shots"], "queries": options.queries or settings.task_options["queries"]}
    drawn = settings.distribution(options.part, **told).sample(options.tasks, torch.Generator().manual_seed(options.seed))
    learner.seconds = options.seconds or learner.seconds
    ways: dict[str, Callable[[Written], list[Found]]] = {"guided": lambda written: learner.search([*written.inputs], [*written.outputs])}
    if options.race:
        enumerated().first(READY)
        ways["enumeration, pruned"] = lambda written: pruned(enumerated(), written, Budget(learner.seconds))
        ways["plain enumeration"] = lambda written: plain(enumerated(), written, Budget(learner.seconds))
    tasks = [texts(task) for task in drawn.unbind()]
    rows = {}
    for name, search in ways.items():
        with console.status(f"{name} on {options.tasks} tasks"):
            rows[name] = measured(search, tasks, learner.seconds)
    where = f"{settings.tasks} ({options.part} part, {options.tasks} tasks, {told['shots']} examples shown, {told['queries']} held out"
    table = Table(title=f"{settings.learner} on {where}, {learner.seconds:g} s of the processor a task, 95 % intervals)", title_justify="left")
    for column in ("search", "solved", "fits what is shown", "seconds a task"):
        table.add_column(column, justify="left" if column == "search" else "right")
    for name, row in rows.items():
        shares = (f"{100 * row[key].mean:.1f} ± {100 * row[key].interval:.1f} %" for key in ("solved", "fits"))
        table.add_row(name, *shares, f"{row['seconds'].mean:.3f}")
    console.print(table)
    if options.json:
        plain_rows = {name: {key: value._asdict() for key, value in row.items()} for name, row in rows.items()}
        report = {"run": str(options.run), "learner": settings.learner, "tasks": settings.tasks, "part": options.part, "n": options.tasks, **told}
        write_atomically(Path(options.json), json.dumps({**report, "seconds": learner.seconds, "results": plain_rows}, indent=2).encode() + b"\n")


def texts(task: Task) -> tuple[list[str], list[str], list[str], list[str]]:
    """The inputs and outputs that are shown, and those that are held out."""
    parts = (task.support.x, task.support.y, task.query.x, task.query.y)
    shown, wanted, asked, held_out = ([strings.text_of(row) for row in part[:, : task.support.x.shape[1]].long().tolist()] for part in parts)
    return shown, wanted, asked, held_out


def measured(search: Callable[[Written], list[Found]], tasks: list[tuple[list[str], ...]], seconds: float) -> dict[str, Estimate]:
    """How many tasks a search solves in time, all held-out rows right; for how many it finds in time what fits what is shown; its time."""
    found: dict[str, list[float]] = {"solved": [], "fits": [], "seconds": []}
    for shown, wanted, asked, held_out in tasks:
        clock = time.process_time()
        programs = search(Written(strings.evaluate, shown, wanted))
        found["seconds"].append(time.process_time() - clock)
        fits = bool(programs) and found["seconds"][-1] <= seconds
        found["fits"].append(fits)
        found["solved"].append(fits and [strings.run(programs[0].program, text) for text in asked] == held_out)
    return {name: Estimate.of(torch.tensor(values, dtype=torch.float64)) for name, values in found.items()}
