"""`innerloop study`."""

from __future__ import annotations

import click

from innerloop.cli.study import curves, entries, run, show, table

command = click.Group(
    "study",
    help="Run studies: trainings and tests that belong together, whose numbers are "
    "stored and compared with published ones. NAME is a study of this package, or the "
    "path of your own .toml file.",
    commands={
        "list": entries.command,
        "run": run.command,
        "show": show.command,
        "table": table.command,
        "curves": curves.command,
    },
)
