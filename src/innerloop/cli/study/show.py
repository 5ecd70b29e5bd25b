"""`innerloop study show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from innerloop.cli.study.opened import RESULTS, opened

if TYPE_CHECKING:
    from innerloop.studies import Result


def run(name: str, results: str) -> None:
    from innerloop.cli.output import console

    study, stored = opened(name, results)
    to = console()
    to.print(study.title)
    if study.reference:
        to.print(study.reference)
    for test in study.tests.values():
        to.print(f"test {test.name}: {test.flags}")
    for row in study.rows:
        to.print(f"\n{row.name}")
        to.print(f"  {row.command}")
        for test, figure in row.published.items():
            to.print(f"  published, {test}: {figure.text} ({row.source})")
        for result in stored.of(study, row):
            _print(result, to)
        if row.note:
            to.print(f"  {row.note}")


def _print(result: Result, to: Any) -> None:
    length = "" if result.seconds is None else f", {result.seconds / 60:.1f} minutes"
    steps = "" if result.steps is None else f", {result.steps:,} steps"
    at = result.system.get("commit", "")
    to.print(f"  seed {result.seed}{steps}{length}, {result.date}, commit {at}")
    for name in result.tests:
        for table in result.report(name).tables:
            for row in table.rows:
                labels = " ".join(f"{k}={v}" for k, v in row.labels.items())
                values = ", ".join(f"{v.name} {v}" for v in row.values)
                to.print(f"    {name}: {labels} {values}  {row.signature}".rstrip())


command = click.Command(
    "show",
    params=[click.Argument(["name"]), RESULTS],
    callback=run,
    help="Print the command lines of a study, and every stored number with its "
    "signature.",
)
