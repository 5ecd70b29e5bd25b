"""`innerloop advise`."""

from __future__ import annotations

import json
from typing import Any

import click

from innerloop.cli.adapt import COLUMNS
from innerloop.cli.flags import SEED, Number, SectionedCommand, check_parent, option

DATA = "Labeled examples: a folder DIR/CLASS/FILE, an archive of it, or a table."
SHOTS = "Examples of each class, one or several numbers."
MINUTES = "How long to measure, after the items are embedded."
MINUTE = Number(0, 10**6, min_open=True)
FLAGS = [f"--{name.replace('_', '-')}" for name in COLUMNS]


def run(**arguments: Any) -> None:
    from rich.progress import BarColumn, Progress, TextColumn

    from innerloop.advice import Advisor, Plan, read_labeled
    from innerloop.cli.output import console, print_report
    from innerloop.cli.progress import stop_signals
    from innerloop.runs import write_atomically

    page, out = check_parent(arguments["report"]), check_parent(arguments["json"])
    columns = {n: arguments[n] for n in COLUMNS if arguments[n] is not None}
    plan = Plan(**{n: arguments[n] for n in ("minutes", "ways", "shots", "seed")})
    data = read_labeled(arguments["data"], arguments["encoder"], columns)
    advisor = Advisor(data, plan)
    to = console()
    words = TextColumn("{task.percentage:>3.0f} % of the time  {task.description}")
    bar = Progress(BarColumn(16), words, console=to, disable=not to.is_terminal)
    shown = bar.add_task("", total=1.0)
    with stop_signals() as caught, bar:
        for step in advisor.run():
            bar.update(shown, completed=step.share, description=step.text)
            if caught:
                advisor.notes.append("stopped early: this is what was known then")
                break
    advice = advisor.advice()
    report = advice.report()
    print_report(report, to)
    contents = {page: advice.page, out: lambda: json.dumps(report.as_dict(), indent=2)}
    for file, content in contents.items():
        if file is not None:
            write_atomically(file, content().encode("utf-8", "surrogateescape"))
            to.print(f"written: {file}")


class _Command(SectionedCommand):
    """`--shots 1 5` is the same as `--shots 1 --shots 5`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words: list[str] = []
        for word in args:
            more = word.isdigit() and words[-2:-1] == ["--shots"]
            words += ["--shots", word] if more else [word]
        return super().parse_args(ctx, words)


command = _Command(
    "advise",
    params=[
        option("--data", DATA, required=True, metavar="PATH"),
        option("--minutes", MINUTES, type=MINUTE, default=5.0),
        option("--ways", "Classes in a task.", type=int, default=5),
        option("--shots", SHOTS, type=int, multiple=True, default=(1, 5)),
        option("--encoder", "A pretrained encoder.", metavar="NAME"),
        option("--report", "A page in HTML with pictures.", metavar="FILE"),
        option("--json", "The tables as JSON.", metavar="FILE"),
        *(option(f, "A column of a table.", metavar="NAME") for f in FLAGS),
        option("--seed", "Random seed.", type=SEED, default=0),
    ],
    callback=run,
    help="Find out which classifier suits your own classes, by cross-validation, and "
    "what is wrong with your data. Ctrl-C answers with what is known.",
)
