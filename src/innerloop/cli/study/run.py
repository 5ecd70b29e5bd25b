"""`innerloop study run`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innerloop.cli.flags import Number, option, ray_option
from innerloop.cli.study.opened import RESULTS, opened, print_table

if TYPE_CHECKING:
    from innerloop.studies import Runner


def run(
    name: str,
    results: str,
    runs: str,
    collect: bool,
    ray: str | None,
    **chosen: Any,
) -> None:
    from innerloop.cli.output import console
    from innerloop.engine.ray_cluster import connected
    from innerloop.studies import RayMachines, Runner

    study, stored = opened(name, results)
    to = console()
    with contextlib.ExitStack() as held:
        if ray is not None:
            chosen["machines"] = RayMachines(held.enter_context(connected(ray)))
        runner = Runner(study, stored, Path(runs), **chosen)
        trials = runner.collect() if collect else _watched(runner, to)
    wrong = [trial for trial in trials if trial.state in ("failed", "stopped")]
    for trial in wrong:
        to.print(f"{trial.row.name}, seed {trial.seed}: {trial.state}: {trial.text}")
    print_table(runner.study, stored, to)
    if len(wrong) < len(trials):
        to.print(f"stored in {stored.file}")
    if any(trial.state == "failed" for trial in wrong):
        raise click.exceptions.Exit(1)


def _watched(runner: Runner, to: Any) -> Any:
    """Run, and show what goes on; returns the trials.

    Raises KeyboardInterrupt after an interrupt, when everything has stopped.
    """
    from rich.live import Live
    from rich.table import Table

    from innerloop.cli.progress import stop_signals

    def picture() -> Table:
        shown = Table.grid(padding=(0, 2))
        for trial in runner.trials:
            share = f"{trial.progress:.0%}" if trial.job and trial.progress else ""
            words = trial.row.name, f"seed {trial.seed}", trial.state, share, trial.text
            shown.add_row(*words)
        return shown

    before: dict[int, str] = {}
    live = Live(get_renderable=picture, console=to, refresh_per_second=2)
    moving = live if to.is_terminal else contextlib.nullcontext()
    with stop_signals() as caught, contextlib.closing(iter(runner)) as steps, moving:
        for trials in steps:
            for trial in trials:
                if not to.is_terminal and before.get(id(trial)) != trial.state:
                    to.print(f"{trial.row.name}, seed {trial.seed}: {trial.state}")
                before[id(trial)] = trial.state
            if caught:
                to.print("stopping; what is trained is saved: run it again to continue")
                break
    if caught:
        raise KeyboardInterrupt
    return runner.trials


command = click.Command(
    "run",
    params=[
        click.Argument(["name"]),
        option(
            "--budget",
            "Train for so many minutes in all, which the trainings share equally, and "
            "for one seed; tests take further time. Default: the lengths of the study.",
            type=Number(0, 10**6, min_open=True),
            metavar="MINUTES",
        ),
        option(
            "--seeds",
            "Trainings of each row. Default: as the study says.",
            type=click.IntRange(1, 1000),
        ),
        option(
            "--jobs",
            "Processes at once. Default: one for each core.",
            type=click.IntRange(1, 1000),
        ),
        ray_option(
            "Run the processes on Ray, whose machines must all see the same files."
        ),
        option(
            "--row",
            "Run this row only, and those that it needs; several times for several "
            "rows.",
            dest="rows",
            multiple=True,
            metavar="NAME",
        ),
        option(
            "--collect",
            "Store what the run folders hold, and train nothing.",
            is_flag=True,
        ),
        option("--runs", "Folder of the run folders.", metavar="DIR", default="runs"),
        RESULTS,
    ],
    callback=run,
    help="Run what is missing of a study, and store the results. A study that was "
    "stopped goes on where it was.",
)
