"""`innerloop compare`."""

from __future__ import annotations

import json
from typing import Any

import click

from innerloop.cli.derived import DerivedCommand, task_flags
from innerloop.cli.flags import RunFolder, check_parent, option, test_options, values_of
from innerloop.engine.errors import InnerloopError


def run(**arguments: Any) -> None:
    from innerloop.cli.output import console, print_report
    from innerloop.cli.progress import measuring
    from innerloop.common_tasks import compare, trained_runs
    from innerloop.measurements import TestPlan
    from innerloop.runs import write_atomically

    if len(arguments["runs"]) < 2:
        raise InnerloopError("name at least two runs: innerloop compare RUN RUN")
    file, to = check_parent(arguments["json"]), console()
    runs = trained_runs(arguments["runs"], arguments["device"])
    plan = TestPlan(
        n=arguments["tasks"],
        **{name: arguments[name] for name in ("seed", "steps", "precision")},
    )
    with measuring(to) as say:
        report = compare(
            runs,
            plan,
            tasks=arguments["on"],
            split=arguments["split"],
            say=say,
            **values_of(arguments, "tasks__"),
        )
    if file is not None:
        content = json.dumps(report.as_dict(), indent=2, allow_nan=False)
        write_atomically(file, content.encode() + b"\n")
    print_report(report, to)


command = DerivedCommand(
    "compare",
    derive=task_flags,
    params=[
        click.Argument(["runs"], metavar="RUN RUN...", type=RunFolder(), nargs=-1),
        *test_options(1000),
        option("--json", "Also write the results to FILE.", metavar="FILE"),
    ],
    callback=run,
    help="Test runs on the same unseen tasks, and print the difference of each to the "
    "first, paired by task. `innerloop compare RUN --help` also shows the options of "
    "the tasks, which are those of the first run.",
)
