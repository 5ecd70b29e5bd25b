"""The flags of `train` and `test` that depend on what the command line names."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from innerloop.cli.flags import Flag, SectionedCommand, flags
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import options
from innerloop.engine.training_config import MetaTrainConfig


class DerivedCommand(SectionedCommand):
    """A command with further flags, made from its words before they are parsed."""

    def __init__(
        self, *args: object, derive: Callable[..., list[Flag]], **kwargs: object
    ):
        super().__init__(*args, **kwargs)  # pyright: ignore[reportArgumentType]
        self.derive, self.own = derive, list(self.params)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["words"] = list(args)
        taken = {name for param in self.own for name in param.opts}
        switches, optional = set(self.get_help_option_names(ctx)), set()
        for param in self.own:
            facts = param.to_info_dict()
            if facts.get("is_flag"):
                switches.update(param.opts)
            elif facts.get("flag_value") is not None:
                optional.update(param.opts)
        with_values = [
            word
            for word, after in pairwise([*args, "-"])
            if word not in switches and not (word in optional and after[:1] == "-")
        ]
        try:
            self.params = [*self.own, *self.derive(with_values, taken)]
        except InnerloopError as error:
            raise click.UsageError(str(error), ctx) from error
        return super().parse_args(ctx, args)


def words_of(arguments: list[str]) -> list[str]:
    """The words of a command line that are no flags and no values of flags. Flags
    without a value are those of the training configuration, and those that start with
    --no-.
    """
    found, skip = [], False
    training = options(MetaTrainConfig).values()
    switches = {option.flag for option in training if option.type is bool}
    for word in arguments:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = "=" not in word and word not in switches and word[:5] != "--no-"
        else:
            found.append(word)
    return found


def value_of(arguments: list[str], flag: str) -> str | None:
    """The value of a flag on a command line, or None."""
    for place, word in enumerate(arguments):
        if word.startswith(flag + "="):
            return word.split("=", 1)[1]
        if word == flag and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def training_flags(arguments: list[str], taken: set[str]) -> list[Flag]:
    """The options of the learner, tasks and meta-gradient, and of training."""
    words = words_of(arguments)
    if not words:
        return []
    from innerloop.assembly import training_sections

    tasks = words[1] if len(words) > 1 else None
    how = value_of(arguments, "--meta-gradient")
    return [
        flag
        for section in training_sections(words[0], tasks, how)
        for flag in flags(
            section.options,
            section.title,
            section.dest,
            taken,
            section.prefix,
            section.usual,
        )
    ]


def task_flags(arguments: list[str], taken: set[str]) -> list[Flag]:
    """The options of the tasks that the first run on the command line is tested on."""
    tasks = _tested_on(arguments)
    if tasks is None:
        return []
    return flags(tasks.options, f"Tasks: {tasks.name}", "tasks__", taken, "tasks")


def _tested_on(arguments: list[str]) -> Any:
    """The task source that a test uses, or None where no run is named."""
    folder = next((w for w in arguments if Path(w, "experiment.json").is_file()), None)
    if folder is None:
        return None
    from innerloop.experiment import Experiment
    from innerloop.registry import find

    experiment = Experiment.load(folder)
    return find("tasks", value_of(arguments, "--on") or experiment.tasks.name)


def test_flags(arguments: list[str], taken: set[str]) -> list[Flag]:
    """A switch for every evaluation, the options of those that are chosen, and the
    options of the tasks.
    """
    if _tested_on(arguments) is None:
        return []
    from innerloop.registry import entries

    evaluations = entries("evaluation")
    found = [
        Flag(
            [f"evaluation__{name.replace('-', '_')}", f"--{name}"],
            is_flag=True,
            section="Evaluations",
            help=entry.summary,
        )
        for name, entry in evaluations.items()
    ]
    taken |= {f"--{name}" for name in evaluations}
    found += task_flags(arguments, taken)
    for name, entry in evaluations.items():
        if f"--{name}" in arguments:
            section = f"Options of --{name}"
            found += flags(entry.options, section, "options__", taken, name)
    return found
