"""`innerloop test`."""

from __future__ import annotations

import json
from typing import Any

import click

from innerloop.cli.derived import DerivedCommand, test_flags
from innerloop.cli.flags import RunFolder, check_parent, option, test_options, values_of
from innerloop.engine.errors import InnerloopError


def run(**arguments: Any) -> None:
    from innerloop.assembly import Choice, check_device
    from innerloop.cli.figures import draw
    from innerloop.cli.output import console, print_report
    from innerloop.cli.progress import measuring
    from innerloop.experiment import Experiment, load
    from innerloop.measurements import TestPlan
    from innerloop.runs import Run, write_atomically

    files = {name: check_parent(arguments[name]) for name in ("json", "plot")}
    chosen = [
        name.removeprefix("evaluation__").replace("_", "-")
        for name, switched_on in arguments.items()
        if name.startswith("evaluation__") and switched_on
    ]
    if len(chosen) > 1:
        raise InnerloopError(f"choose one of --{' and --'.join(chosen)}")
    to, folder = console(), Run(arguments["run"])
    experiment = Experiment.load(folder)
    learner = load(folder.folder).to(check_device(arguments["device"]))
    if arguments["steps"] is not None:
        learner.set_steps(arguments["steps"])
    plan = TestPlan(
        n=arguments["tasks"],
        **{name: arguments[name] for name in ("seed", "steps", "precision")},
    )
    options = values_of(arguments, "tasks__")
    where = {"tasks": arguments["on"], "split": arguments["split"], **options}
    settings = experiment.test_tasks(learner, **where)
    if files["plot"] is not None:
        draw(learner, [s.tasks for s in settings], files["plot"], plan.seed)
    measure = Choice(chosen[0], values_of(arguments, "options__")) if chosen else None
    with measuring(to, "testing"):
        report = experiment.test(
            learner,
            plan,
            evaluation=measure,
            processes=arguments["processes"],
            **where,
        )
    result = experiment.record(report, settings[0].tasks, plan, measure, **where)
    stored = folder.save_report(result.pop("name"), result)
    if files["json"] is not None:
        write_atomically(files["json"], json.dumps(result, indent=2).encode() + b"\n")
    print_report(report, to)
    if result["seen_classes"]:
        to.print(
            f"{result['seen_classes']} of these classes were seen in training: this "
            "does "
            "not measure the learning of new classes"
        )
    to.print(f"stored in {stored}")


command = DerivedCommand(
    "test",
    derive=test_flags,
    params=[
        click.Argument(["run"], metavar="RUN", type=RunFolder()),
        *test_options(1000),
        option(
            "--processes",
            "How many processes share the tasks, each with one thread: the number of "
            "cores is fastest. Measurements are the same for any number. What the "
            "clock measures, one process measures alone. [default: one process with "
            "all threads]",
            type=click.IntRange(1, 1024),
            metavar="N",
        ),
        option("--plot", "Draw predictions on a few tasks into FILE.", metavar="FILE"),
        option("--json", "Also write the results to FILE.", metavar="FILE"),
    ],
    callback=run,
    help="Measure a run on unseen tasks, and store the results in RUN/tests. "
    "`innerloop test RUN --help` also shows the options of its tasks.",
)
