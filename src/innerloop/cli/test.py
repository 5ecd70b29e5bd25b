"""`innerloop test`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from innerloop.cli.flags import (
    SPLITS,
    Flag,
    RunFolder,
    SectionedCommand,
    check_parent,
    flags,
    values_of,
    words_of,
)
from innerloop.engine.errors import InnerloopError

SWITCHES = {"--help", "-h"}


class Test(SectionedCommand):
    """The command, with the options of the tasks and of the evaluation named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = words_of(args, SWITCHES | {w for w in args if w[:2] == "--"})
        folder = next(
            (w for w in [*words, *args] if Path(w, "experiment.json").is_file()), None
        )
        if folder is not None:
            try:
                self.params = [*PARAMS, *_flags(folder, args)]
            except InnerloopError as error:
                raise click.UsageError(str(error), ctx) from error
        return super().parse_args(ctx, args)


def _flags(folder: str, arguments: list[str]) -> list[Flag]:
    from innerloop.cli.train import _value
    from innerloop.experiment import Experiment
    from innerloop.registry import entries, find

    experiment = Experiment.load(folder)
    tasks = find("tasks", _value(arguments, "--on") or experiment.tasks.name)
    taken = {name for param in PARAMS for name in param.opts}
    evaluations = entries("evaluation")
    found = [
        Flag(
            [f"evaluation__{name.replace('-', '_')}", f"--{name}"],
            is_flag=True,
            section="Measure something else",
            help=entry.summary,
        )
        for name, entry in evaluations.items()
    ]
    taken |= {f"--{name}" for name in evaluations}
    found += flags(tasks.options, f"Tasks: {tasks.name}", "tasks__", taken, "tasks")
    for name, entry in evaluations.items():
        if f"--{name}" in arguments:
            section = f"Options of --{name}"
            found += flags(entry.options, section, "options__", taken, name)
    return found


def run(**arguments: Any) -> None:
    from innerloop.cli.output import console, print_report
    from innerloop.core.report import TestPlan
    from innerloop.experiment import Choice, Experiment, check_device, load
    from innerloop.runs import Run, write_atomically

    to, folder = console(), Run(arguments["run"])
    files = {name: check_parent(arguments[name]) for name in ("json", "plot")}
    experiment = Experiment.load(folder)
    learner = load(folder.folder).to(check_device(arguments["device"]))
    if arguments["steps"] is not None:
        learner.set_steps(arguments["steps"])
    chosen = [
        name.removeprefix("evaluation__").replace("_", "-")
        for name, on in arguments.items()
        if name.startswith("evaluation__") and on
    ]
    if len(chosen) > 1:
        raise InnerloopError(f"choose one of --{' and --'.join(chosen)}")
    evaluation = (
        Choice(chosen[0], values_of(arguments, "options__")) if chosen else None
    )
    plan = TestPlan(
        n=arguments["tasks"],
        seed=arguments["seed"],
        steps=arguments["steps"],
        precision=arguments["precision"],
    )
    where = {"tasks": arguments["on"], "split": arguments["split"]}
    options = values_of(arguments, "tasks__")
    settings = experiment.test_tasks(learner, **where, **options)
    if files["plot"] is not None:
        from innerloop.cli.figures import draw

        draw(learner, [tasks for _, tasks in settings], files["plot"], plan.seed)
    with to.status("testing"):
        report = experiment.test(
            learner, plan, evaluation=evaluation, **where, **options
        )
    seen = experiment.seen_classes(settings[0][1])
    data = {
        "run": str(folder.folder),
        "learner": experiment.learner.name,
        "tasks": arguments["on"] or experiment.tasks.name,
        "split": arguments["split"],
        "evaluation": chosen[0] if chosen else None,
        "options": options,
        "plan": {"tasks": plan.n, "seed": plan.seed, "steps": plan.steps},
        "seen_classes": seen,
        **report.as_dict(),
    }
    name = "-".join([data["tasks"].rsplit(":", 1)[-1], data["split"], *chosen])
    extra = [f"{key}{value}" for key, value in options.items() if "/" not in str(value)]
    stored = folder.save_report("-".join([name, *extra, f"seed{plan.seed}"]), data)
    if files["json"] is not None:
        write_atomically(files["json"], json.dumps(data, indent=2).encode() + b"\n")
    print_report(report, to)
    if seen:
        to.print(
            f"{seen} of these classes were seen in training: this does not measure "
            "learning of new classes"
        )
    to.print(f"stored in {stored}")


PARAMS: list[click.Parameter] = [
    click.Argument(["run"], metavar="RUN", type=RunFolder()),
    Flag(
        ["--tasks"],
        type=click.IntRange(1, 10**7),
        default=1000,
        show_default=True,
        help="Number of tasks.",
    ),
    Flag(["--on"], metavar="TASKS", help="Another task source than in training."),
    Flag(
        ["--split"],
        type=click.Choice(SPLITS),
        default="test",
        show_default=True,
        help="Which split of the data.",
    ),
    Flag(
        ["--steps"],
        type=click.IntRange(0, 10**6),
        help="Gradient steps, for learners that take steps; the score after each is shown.",
    ),
    Flag(
        ["--precision"],
        type=click.Choice(["float32", "bf16"]),
        default="float32",
        show_default=True,
        help="Arithmetic.",
    ),
    Flag(["--device"], default="cpu", show_default=True, help="Where to compute."),
    Flag(["--seed"], type=int, default=0, show_default=True, help="Seed of the tasks."),
    Flag(["--plot"], metavar="FILE", help="Draw predictions on a few tasks into FILE."),
    Flag(["--json"], metavar="FILE", help="Also write the results to FILE."),
]

command = Test(
    "test",
    params=PARAMS,
    callback=run,
    help="Measure a run on tasks that it never saw. `innerloop test RUN --help` also "
    "shows the options of its tasks. Results are stored in RUN/tests.",
)
