"""`innerloop train`."""

from __future__ import annotations

from typing import Any

import click

from innerloop.cli.flags import Flag, SectionedCommand, flags, values_of, words_of
from innerloop.engine.errors import InnerloopError

SWITCHES = {"--resume", "--help", "-h", "--decay", "--supervised"}
RUN = "Run"


class Train(SectionedCommand):
    """The command, with the options of the learner, tasks and meta-gradient named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = words_of(args, SWITCHES)
        if words:
            try:
                self.params = [*PARAMS, *_flags(words, args)]
            except InnerloopError as error:
                raise click.UsageError(str(error), ctx) from error
        return super().parse_args(ctx, args)


def _flags(words: list[str], arguments: list[str]) -> list[Flag]:
    """The flags of what is named on the command line."""
    from innerloop.engine.options import options
    from innerloop.experiment import SIZES, MetaTrainConfig
    from innerloop.registry import find

    learner = find("learner", words[0])
    tasks = find("tasks", words[1]) if len(words) > 1 else None
    taken = {name for param in PARAMS for name in param.opts}
    training = {
        name: option
        for name, option in options(MetaTrainConfig).items()
        if name not in (*SIZES, "meta_gradient")
    }
    found = flags(training, "Meta-training", "training__", taken, "training")
    if tasks is not None:
        found += flags(tasks.options, f"Tasks: {tasks.name}", "tasks__", taken, "tasks")
    section = f"Learner: {learner.name}"
    found += flags(learner.options, section, "learner__", taken, "learner")
    name = _value(arguments, "--meta-gradient")
    preset = learner.preset.meta_gradient if learner.preset else None
    how = find(
        "meta-gradient", name or preset or learner.factory.defaults.meta_gradient
    )
    section = f"Meta-gradient: {how.name}"
    return found + flags(how.options, section, "how__", taken, "meta-gradient")


def _value(arguments: list[str], flag: str) -> str | None:
    for place, word in enumerate(arguments):
        if word.startswith(flag + "="):
            return word.split("=", 1)[1]
        if word == flag and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def run(**arguments: Any) -> None:
    from innerloop.cli.progress import follow
    from innerloop.experiment import Choice, Experiment

    resume, out = arguments["resume"], arguments["out"]
    how = arguments["meta_gradient"]
    changed = values_of(arguments, "how__")
    if changed and how is None:
        from innerloop.registry import find

        entry = find("learner", arguments["learner"])
        preset = entry.preset.meta_gradient if entry.preset else None
        how = preset or entry.factory.defaults.meta_gradient
    names = ("steps", "minutes", "seed", "precision", "device", "init_from")
    experiment = Experiment(
        learner=Choice(arguments["learner"], values_of(arguments, "learner__")),
        tasks=Choice(arguments["tasks"], values_of(arguments, "tasks__")),
        meta_gradient=Choice(how, changed) if how is not None else None,
        training=values_of(arguments, "training__"),
        **{name: arguments[name] for name in names if arguments[name] is not None},
    )
    follow(experiment.train_events(out, resume=resume), out)


PARAMS: list[click.Parameter] = [
    click.Argument(["learner"], metavar="LEARNER"),
    click.Argument(["tasks"], metavar="TASKS"),
    Flag(["--out"], required=True, metavar="RUN", section=RUN, help="The run folder."),
    Flag(["--resume"], is_flag=True, section=RUN, help="Continue the run in RUN."),
    Flag(
        ["--init-from"],
        metavar="RUN",
        section=RUN,
        help="Start from the networks of another run.",
    ),
    Flag(["--steps"], type=click.IntRange(1), section=RUN, help="Meta-steps to train."),
    Flag(
        ["--minutes"],
        type=click.FloatRange(0, 1e6, min_open=True),
        section=RUN,
        help="Minutes to train, over which the learning rate decays.  [default: 10]",
    ),
    Flag(
        ["--meta-gradient"],
        metavar="NAME",
        section=RUN,
        help="How the meta-parameters move (`innerloop list meta-gradients`).",
    ),
    Flag(
        ["--precision"],
        type=click.Choice(["auto", "float32", "bf16"]),
        section=RUN,
        help="Arithmetic; auto is bf16 where it is fast and safe.  [default: auto]",
    ),
    Flag(["--device"], section=RUN, help="Where to compute.  [default: cpu]"),
    Flag(["--seed"], type=int, section=RUN, help="Random seed.  [default: 0]"),
]

command = Train(
    "train",
    params=PARAMS,
    callback=run,
    help="Meta-train LEARNER on TASKS into a run folder. `innerloop list` shows both; "
    "`innerloop train LEARNER TASKS --help` shows the options of the two you name. "
    "FILE.py:NAME takes a class or function from a file of your own.",
)
