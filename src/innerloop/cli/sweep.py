"""`innerloop sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from innerloop.cli.derived import DerivedCommand, training_flags
from innerloop.cli.flags import option, ray_option
from innerloop.cli.train import SHARED, experiment_of
from innerloop.engine.errors import InnerloopError
from innerloop.engine.ray_cluster import LOCAL


def run(
    over: tuple[str, ...],
    trials: int | None,
    search: str | None,
    stopping: bool,
    out: str,
    resume: bool,
    jobs: int | None,
    ray: str,
    **arguments: Any,
) -> None:
    from innerloop.cli.output import console, print_report
    from innerloop.measurements import Report, Table
    from innerloop.sweep import Axis, SweepPlan, Trial, sweep
    from innerloop.sweep.plan import FILE

    to = console()
    experiment = experiment_of(arguments)
    plan = SweepPlan(
        experiment,
        tuple(Axis.parse(text, experiment) for text in over),
        trials,
        search,  # pyright: ignore[reportArgumentType]
        stopping,
        seed=arguments["seed"] or 0,
    )
    to.print(f"{plan.count} trainings into {out}")

    def watch(trial: Trial) -> None:
        score = trial.score or "not validated yet"
        to.print(f"{_labels(trial)}: step {trial.steps}, {score}, {trial.state}")

    where = Path(out)
    try:
        found = sweep(plan, where, address=ray, jobs=jobs, resume=resume, watch=watch)
    except KeyboardInterrupt:
        if (where / FILE).is_file():
            to.print(f"stopped; the sweep is saved in {out}: add --resume to continue")
        raise
    table = Table("trials, the best first", tuple(_row(trial) for trial in found))
    print_report(Report((table,)), to)
    for trial in found:
        if trial.state == "failed":
            to.print(f"{_labels(trial)}: {trial.text}")
    if all(trial.state == "failed" for trial in found):
        raise InnerloopError("every training failed")
    to.print(f"test the best with: innerloop test {found[0].run}")


def _labels(trial: Any) -> str:
    return ", ".join(f"{n}={v}" for n, v in trial.labels.items())


def _row(trial: Any) -> Any:
    from innerloop.measurements import Row

    labels = trial.labels | {
        "steps": trial.steps,
        "state": trial.state,
        "run": trial.run.name,
    }
    return Row(labels, (trial.score,) if trial.score else ())


command = DerivedCommand(
    "sweep",
    derive=training_flags,
    params=[
        click.Argument(["learner"], metavar="LEARNER"),
        click.Argument(["tasks"], metavar="TASKS"),
        option("--out", "Folder of the sweep.", required=True, metavar="FOLDER"),
        option(
            "--over",
            "An option to vary, PLACE=A,B,... for a list of values, PLACE=A..B for a "
            "range, PLACE=A..B:log for a range on a logarithmic scale. PLACE is "
            "learner.NAME, tasks.NAME, meta_gradient.NAME, training.NAME, seed or "
            "steps. Several times for several options.",
            multiple=True,
            required=True,
            metavar="PLACE=VALUES",
        ),
        option(
            "--trials",
            "Number of trainings. Default: every combination of the values.",
            type=click.IntRange(1, 10**6),
        ),
        option(
            "--search",
            "How values are chosen: all combinations, at random, or by a "
            "tree-structured Parzen estimator. Default: grid, or random where --trials "
            "is another number.",
            type=click.Choice(["grid", "random", "tpe"]),
        ),
        option(
            "--stopping/--no-stopping",
            "End trainings early that are behind others (ASHA). Default: yes.",
            default=True,
        ),
        option("--resume", "Continue the sweep in FOLDER.", is_flag=True),
        option(
            "--jobs",
            "Trainings at once on this machine. Default: one for each core.",
            type=click.IntRange(1, 1000),
        ),
        ray_option("Train on Ray, whose machines must all see FOLDER.", default=LOCAL),
        *SHARED,
    ],
    callback=run,
    help="Meta-train LEARNER on TASKS with other values of some options, and compare "
    "the trainings on validation classes. Further options are those of `train`.",
)
