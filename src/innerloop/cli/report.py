"""`innerloop report`."""

from __future__ import annotations

from typing import Any

import click

from innerloop.cli.derived import DerivedCommand, task_flags
from innerloop.cli.flags import RunFolder, check_parent, option, test_options, values_of
from innerloop.engine.errors import InnerloopError

EXAMPLES = "Tasks to show, with predictions."
HEAD_START = "Also compare with training from scratch, which takes minutes."


def run(**arguments: Any) -> None:
    from innerloop.cli.output import console
    from innerloop.cli.progress import measuring
    from innerloop.measurements import TestPlan
    from innerloop.report import report
    from innerloop.runs import write_atomically

    file, to = check_parent(arguments["out"]), console()
    if not arguments["runs"] or file is None:
        raise InnerloopError("name a run: innerloop report RUN --out report.html")
    plan = TestPlan(
        n=arguments["tasks"],
        **{name: arguments[name] for name in ("seed", "steps", "precision")},
    )
    with measuring(to) as say:
        page = report(
            arguments["runs"],
            plan,
            tasks=arguments["on"],
            say=say,
            **{
                name: arguments[name]
                for name in ("title", "split", "examples", "head_start", "device")
            },
            **values_of(arguments, "tasks__"),
        )
    write_atomically(file, page.encode("utf-8", "replace"))
    to.print(f"written: {file} ({len(page) / 1e6:.1f} MB); open it in a browser")


command = DerivedCommand(
    "report",
    derive=task_flags,
    params=[
        click.Argument(["runs"], metavar="RUN...", type=RunFolder(), nargs=-1),
        option("--out", "The page.", metavar="FILE", default="report.html"),
        option("--title", "Heading of the page.", metavar="TEXT"),
        *test_options(100),
        option("--examples", EXAMPLES, type=click.IntRange(0, 20), default=3),
        option("--head-start", HEAD_START, is_flag=True),
    ],
    callback=run,
    help="Write a page about runs, one HTML file with everything in it: training "
    "curves, scores on the same unseen tasks, predictions, calibration, settings. "
    "`innerloop report RUN --help` also shows the options of the tasks.",
)
