"""`innerloop study list`."""

from __future__ import annotations

import click

from innerloop.cli.study.opened import RESULTS, opened


def run(results: str) -> None:
    from rich.table import Table

    from innerloop.cli.output import console
    from innerloop.studies import names

    shown = Table(box=None, pad_edge=False)
    shown.add_column("study")
    shown.add_column("trainings", justify="right")
    shown.add_column("measured", justify="right")
    shown.add_column("")
    for name in names():
        study, stored = opened(name, results)
        planned = [
            (row, seed)
            for row in study.rows
            for seed in range(row.seeds or study.seeds)
        ]
        done = sum(
            stored.measured(study, row, seed, study.tests_of(row))
            for row, seed in planned
        )
        shown.add_row(name, str(len(planned)), str(done), study.title)
    console().print(shown, soft_wrap=False)


command = click.Command(
    "list",
    params=[RESULTS],
    callback=run,
    help="List the studies of this package, and how much of them is measured.",
)
