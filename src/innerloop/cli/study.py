"""`innerloop study`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innerloop.cli.flags import Number, check_parent, option

if TYPE_CHECKING:
    from innerloop.studies import Results, Runner, Study

RESULTS = option(
    "--results", "Folder of the stored results.", metavar="DIR", default="results"
)
FORMATS = ("text", "markdown", "json")


def _opened(name: str, folder: str) -> tuple[Study, Results]:
    from innerloop.studies import Results, find_study

    study = find_study(name)
    return study, Results(Path(folder) / f"{study.name}.json")


def run(name: str, results: str, runs: str, collect: bool, **chosen: Any) -> None:
    from innerloop.cli.output import console
    from innerloop.studies import Runner

    study, stored = _opened(name, results)
    runner = Runner(study, stored, Path(runs), **{**chosen, "rows": chosen["rows"]})
    to = console()
    cells = runner.collect() if collect else _watched(runner, to)
    wrong = [cell for cell in cells if cell.state in ("failed", "stopped")]
    for cell in wrong:
        to.print(f"{cell.row.name}, seed {cell.seed}: {cell.state}: {cell.text}")
    _print(runner.study, stored, to)
    to.print(f"stored in {stored.file}")
    if any(cell.state == "failed" for cell in wrong):
        raise click.exceptions.Exit(1)


def _watched(runner: Runner, to: Any) -> Any:
    """Run, and show what goes on; returns the cells."""
    from rich.live import Live
    from rich.table import Table

    from innerloop.cli.progress import stop_signals

    def picture() -> Table:
        shown = Table(box=None, pad_edge=False)
        for head in ("row", "seed", "", "", ""):
            shown.add_column(head)
        for cell in runner.cells:
            share = f"{cell.progress:.0%}" if cell.job and cell.progress else ""
            words = cell.row.name, str(cell.seed), cell.state, share, cell.text
            shown.add_row(*words)
        return shown

    before: dict[int, str] = {}
    live = Live(get_renderable=picture, console=to, refresh_per_second=2)
    moving = live if to.is_terminal else contextlib.nullcontext()
    with stop_signals() as caught, contextlib.closing(iter(runner)) as steps, moving:
        for cells in steps:
            for cell in cells:
                if not to.is_terminal and before.get(id(cell)) != cell.state:
                    to.print(f"{cell.row.name}, seed {cell.seed}: {cell.state}")
                before[id(cell)] = cell.state
            if caught:
                to.print("stopping; what is trained is saved: run it again to continue")
                break
    if caught:
        raise KeyboardInterrupt
    return runner.cells


def _print(study: Study, results: Results, to: Any) -> None:
    from rich.table import Table

    from innerloop.studies import table

    found = table(study, results)
    head, *body = found.cells()
    shown = Table(title=study.title, title_justify="left", box=None, pad_edge=False)
    for place, text in enumerate(head):
        shown.add_column(text, justify="right" if place else "left")
    for line in body:
        shown.add_row(*line)
    to.print(shown, soft_wrap=False)
    if source := found.sources():
        to.print(f"in brackets: as published, {source}")
    for note in found.notes():
        to.print(note)


def list_studies(results: str) -> None:
    from rich.table import Table

    from innerloop.cli.output import console
    from innerloop.studies import names

    shown = Table(box=None, pad_edge=False)
    for head in ("study", "trainings", "measured", ""):
        shown.add_column(head, justify="right" if "a" in head[1:5] else "left")
    for name in names():
        study, stored = _opened(name, results)
        planned = [
            (row, s) for row in study.rows for s in range(row.seeds or study.seeds)
        ]
        done = sum(
            stored.measured(study, row, seed, study.tests_of(row))
            for row, seed in planned
        )
        shown.add_row(name, str(len(planned)), str(done), study.title)
    console().print(shown, soft_wrap=False)


def show(name: str, results: str) -> None:
    """The definition and every number, with its signature."""
    from innerloop.cli.output import console

    study, stored = _opened(name, results)
    to = console()
    to.print(study.title, *([study.reference] if study.reference else []), sep="\n")
    for test in study.tests.values():
        to.print(f"test {test.name}: {test.flags}")
    for row in study.rows:
        to.print(f"\n{row.name}")
        to.print(f"  {'innerloop train ' if row.train else 'python '}{row.line}")
        for test, figure in row.published.items():
            to.print(f"  published, {test}: {figure.text} ({row.source})")
        for result in stored.of(study, row):
            _print_result(result, to)
        if row.note:
            to.print(f"  {row.note}")


def _print_result(result: Any, to: Any) -> None:
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


def show_table(
    names: tuple[str, ...], results: str, format: str, out: str | None
) -> None:
    from innerloop import studies
    from innerloop.cli.output import console
    from innerloop.runs import write_atomically

    file, to, texts = check_parent(out), console(), []
    for name in names or studies.names():
        study, stored = _opened(name, results)
        found = studies.table(study, stored)
        if format == "text" and file is None:
            _print(study, stored, to)
            to.print()
        elif format == "json":
            head, *body = found.cells()
            rows = [dict(zip(["row", *head[1:]], line, strict=True)) for line in body]
            texts.append(json.dumps({"study": name, "rows": rows}, ensure_ascii=False))
        else:
            notes = [f"- {note}" for note in found.notes()]
            texts.append("\n".join([studies.markdown(found.cells()), "", *notes]))
    text = "\n".join(texts)
    if file is not None:
        write_atomically(file, text.encode() + b"\n")
    elif text:
        to.print(text)


command = click.Group(
    "study",
    help="Run studies: trainings and tests that belong together, whose numbers are "
    "stored and compared with published ones. NAME is a study of this package, or the "
    "path of your own .toml file.",
    commands=[
        click.Command(
            "list",
            params=[RESULTS],
            callback=list_studies,
            help="List the studies of this package.",
        ),
        click.Command(
            "run",
            params=[
                click.Argument(["name"]),
                option(
                    "--budget",
                    "Train for so many minutes in all, which the trainings share "
                    "equally, and for one seed; tests take further time. Default: the "
                    "lengths of the study.",
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
                option(
                    "--row",
                    "Run this row only, and those that it needs; several times for "
                    "several rows.",
                    dest="rows",
                    multiple=True,
                    metavar="NAME",
                ),
                option(
                    "--collect",
                    "Store what the run folders hold, and train nothing.",
                    is_flag=True,
                ),
                option(
                    "--runs",
                    "Folder of the run folders.",
                    metavar="DIR",
                    default="runs",
                ),
                RESULTS,
            ],
            callback=run,
            help="Run what is missing of a study, and store the results. A study that "
            "was stopped goes on where it was.",
        ),
        click.Command(
            "show",
            params=[click.Argument(["name"]), RESULTS],
            callback=show,
            help="Print the command lines of a study, and every stored number with "
            "its signature.",
        ),
        click.Command(
            "table",
            params=[
                click.Argument(["names"], nargs=-1, metavar="[NAME]..."),
                option(
                    "--format",
                    "Of the table.",
                    type=click.Choice(FORMATS),
                    default="text",
                ),
                option("--out", "Write to FILE.", metavar="FILE"),
                RESULTS,
            ],
            callback=show_table,
            help="Print the tables of studies, all by default.",
        ),
    ],
)
