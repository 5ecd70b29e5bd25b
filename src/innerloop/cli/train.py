"""`innerloop train`."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from innerloop.cli.derived import DerivedCommand, training_flags
from innerloop.cli.flags import (
    SEED,
    Flag,
    Number,
    check_parent,
    ray_option,
    values_of,
)
from innerloop.engine import torchrun

AS_GIVEN = ("steps", "minutes", "seed", "precision", "device", "init_from")


def run(**arguments: Any) -> None:
    from innerloop.cli.launch import launch, launch_on_ray
    from innerloop.cli.progress import finish, follow, plotted, recorded
    from innerloop.engine.ray_cluster import connected
    from innerloop.runs import Run
    from innerloop.training import continued

    experiment, out = experiment_of(arguments), arguments["out"]
    processes, address = arguments["processes"], arguments["ray"]
    if processes > 1 and torchrun.job() is None:
        words = ["train", *click.get_current_context().meta["words"]]
        started = (
            launch(words, processes)
            if address is None
            else launch_on_ray(
                words,
                processes,
                address,
                continued(experiment, Run.of(out), arguments["resume"]).where,
            )
        )
        raise click.exceptions.Exit(started)
    ray = address if processes == 1 else None
    with contextlib.nullcontext() if ray is None else connected(ray):
        events = experiment.train_events(
            out, resume=arguments["resume"], ray=ray is not None
        )
        if torchrun.rank():
            finish(events)
            return
        events = recorded(events, check_parent(arguments["events"]))
        follow(plotted(events, arguments["tensorboard"]), out)


def experiment_of(arguments: dict[str, Any]) -> Any:
    """The experiment that the arguments of a command describe."""
    from innerloop.assembly import Choice, usual_meta_gradient
    from innerloop.experiment import Experiment
    from innerloop.registry import find

    how, changed = arguments["meta_gradient"], values_of(arguments, "how__")
    if changed and how is None:
        how = usual_meta_gradient(arguments["learner"])
    entry = find("learner", arguments["learner"])
    paper = entry.factory.paper() if arguments["paper"] else {}
    learner = {**paper.get("fields", {}), **values_of(arguments, "learner__")}
    training = {**paper.get("config", {}), **values_of(arguments, "training__")}
    return Experiment(
        learner=Choice(arguments["learner"], learner),
        tasks=Choice(arguments["tasks"], values_of(arguments, "tasks__")),
        meta_gradient=None if how is None else Choice(how, changed),
        training=training,
        **{name: arguments[name] for name in AS_GIVEN if arguments[name] is not None},
    )


def _flag(name: str, text: str, **kwargs: Any) -> Flag:
    return Flag([name], section="Run", help=text, **kwargs)


# options of every command that trains
SHARED = [
    _flag(
        "--paper",
        "Use the settings of the learner's paper where the defaults differ; other "
        "flags go before them.",
        is_flag=True,
    ),
    _flag("--init-from", "Start from the networks of a run.", metavar="RUN"),
    _flag("--steps", "Meta-steps to train for.", type=click.IntRange(1, 10**9)),
    _flag(
        "--minutes",
        "Minutes to train for; the learning rate decays over them.  [default: 10]",
        type=Number(0, 10**6, min_open=True),
    ),
    _flag(
        "--meta-gradient",
        "How the meta-parameters move (see `innerloop list meta-gradients`).",
        metavar="NAME",
    ),
    _flag(
        "--precision",
        "Arithmetic; auto is bf16 where it is fast and safe.  [default: auto]",
        type=click.Choice(["auto", "float32", "bf16"]),
    ),
    _flag(
        "--device",
        "Where to compute.  [default: cpu, or where the resumed run did]",
    ),
    _flag("--seed", "Random seed.  [default: 0]", type=SEED),
]

command = DerivedCommand(
    "train",
    derive=training_flags,
    params=[
        click.Argument(["learner"], metavar="LEARNER"),
        click.Argument(["tasks"], metavar="TASKS"),
        _flag("--out", "The run folder.", required=True, metavar="RUN"),
        _flag("--resume", "Continue the run in RUN.", is_flag=True),
        _flag(
            "--events",
            "Also append what happens to FILE, as JSON lines.",
            metavar="FILE",
        ),
        _flag(
            "--tensorboard",
            "Also write loss and validation into FOLDER for TensorBoard.",
            metavar="FOLDER",
        ),
        _flag(
            "--processes",
            "Processes that train together, on this machine or with --ray on a "
            "cluster.  [default: 1]",
            type=click.IntRange(1, 1024),
            default=1,
        ),
        ray_option(
            "Train on Ray, whose machines must all see RUN: --processes N processes "
            "that share the tasks; or, without --processes, tasks on all cores that "
            "evaluate the members of a population (es, cma-es, neat).",
            section="Run",
        ),
        *SHARED,
    ],
    callback=run,
    help="Meta-train LEARNER on TASKS into a run folder. `innerloop list` shows what "
    "there "
    "is; `innerloop train LEARNER TASKS --help` shows the options of the two you name. "
    "FILE.py:NAME takes a class or function from your own file.",
)
