"""Typed options as flags."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, replace
from pathlib import Path
from typing import Any

import click

from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Option, flag_names
from innerloop.engine.ray_cluster import LOCAL

SPLITS = ("train", "val", "test")
SEED = click.IntRange(0, 2**32 - 1)


class OptionType(click.ParamType):
    """One word of a command line as the value of an option, range included."""

    def __init__(self, option: Option):
        self.option = option
        names = {int: "integer", float: "number", str: "text"}
        self.name = names.get(option.type, "value")

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        try:
            return self.option.parse(value)
        except InnerloopError as error:
            self.fail(str(error))


class Flag(click.Option):
    """A flag that belongs to a section of the help."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any):
        self.section = section
        super().__init__(*args, **kwargs)


class SectionedCommand(click.Command):
    """A command whose help lists flags in sections."""

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and param.param_type_name == "option":
                name = vars(param).get("section", "Options")
                sections.setdefault(name, []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)


def option(name: str, text: str, dest: str | None = None, **kwargs: Any) -> Flag:
    """A flag of a command itself; its default is shown."""
    shown = kwargs.get("default") is not None and not kwargs.get("is_flag")
    names = [dest, name] if dest else [name]
    return Flag(names, help=text, show_default=shown, **kwargs)


def test_options(tasks: int) -> list[Flag]:
    """The flags that say on what and how runs are tested, by default on so many
    tasks.
    """
    number = click.IntRange(1, 10**7)
    return [
        option("--tasks", "Number of tasks.", type=number, default=tasks),
        option("--on", "Another task source than in training.", metavar="TASKS"),
        option(
            "--split", "Split of the data.", type=click.Choice(SPLITS), default="test"
        ),
        option(
            "--steps",
            "Number of gradient steps, for learners that adapt by gradient descent; "
            "reports the score after each step.",
            type=click.IntRange(0, 10**6),
        ),
        option(
            "--precision",
            "Arithmetic.",
            type=click.Choice(["float32", "bf16"]),
            default="float32",
        ),
        option("--device", "Where to compute.", default="cpu"),
        option("--seed", "Seed of the tasks.", type=SEED, default=0),
    ]


def flag(
    option: Option,
    section: str,
    name: str | None = None,
    dest: str = "",
    usual: Any = None,
) -> Flag:
    """An option as a flag that is None where it is not set.

    Args:
        name: the flag, where it differs from the option's.
        dest: what precedes the option's name in the command's arguments.
        usual: the default to show, where it differs from the option's.
    """
    option = option if usual is None else replace(option, default=usual)
    spelled = name or option.flag
    words = [option.help] if option.help else []
    shown = _facts(option)
    if shown:
        words.append(f"[{'; '.join(shown)}]")
    common: dict[str, Any] = {"help": " ".join(words), "section": section}
    target = f"{dest}{option.name}"
    if option.type is bool:
        negative = "--no-" + spelled.removeprefix("--")
        return Flag([target, f"{spelled}/{negative}"], default=None, **common)
    if option.choices:
        common["metavar"] = f"[{'|'.join(map(str, option.choices))}]"
    if option.repeated:
        common |= {"multiple": True, "callback": _joined}
    return Flag([target, spelled], type=OptionType(option), default=None, **common)


def _joined(ctx: click.Context, param: click.Parameter, value: Any) -> str | None:
    """The texts of a flag that can be repeated, as one."""
    return " ".join(value) or None


def _facts(option: Option) -> list[str]:
    found = []
    if option.range is not None and str(option.range) != "a finite number":
        found.append(str(option.range))
    if option.default not in (MISSING, None, ""):
        default = option.default
        if option.type is bool:
            default = "yes" if default else "no"
        found.append(f"default: {default}")
    elif option.default is MISSING:
        found.append("required")
    if option.repeated:
        found.append("can be repeated")
    return found


def flags(
    options: Mapping[str, Option],
    section: str,
    dest: str,
    taken: set[str],
    prefix: str,
    usual: Mapping[str, Any] | None = None,
) -> list[Flag]:
    """A flag for every option; one whose name is taken is preceded by `prefix`.

    Args:
        usual: defaults to show where they differ from the options'.
    """
    usual = usual or {}
    return [
        flag(options[name], section, spelled, dest, usual.get(name))
        for name, spelled in flag_names(options, taken, prefix).items()
    ]


def values_of(arguments: Mapping[str, Any], dest: str) -> dict[str, Any]:
    """The options that were set, from a command's arguments."""
    return {
        name.removeprefix(dest): value
        for name, value in arguments.items()
        if name.startswith(dest) and value is not None
    }


def ray_option(text: str, **kwargs: Any) -> Flag:
    """`--ray [ADDRESS]`; without an address, Ray is started on this machine."""
    words = (
        f"{text} ADDRESS is that of a cluster; without it, Ray starts on this machine."
    )
    local: dict[str, Any] = {"is_flag": False, "flag_value": LOCAL}
    return Flag(["--ray"], help=words, metavar="[ADDRESS]", **local, **kwargs)


class Number(click.FloatRange):
    """A range of numbers; NaN and infinity are in none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class RunFolder(click.ParamType):
    """An existing run folder; checked before anything heavy is imported."""

    name = "run"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        path = Path(value)
        if not path.is_dir():
            self.fail(f"there is no run folder {value}")
        if not (path / "experiment.json").is_file():
            self.fail(f"{value} is no run folder: it has no experiment.json")
        return path


def reader_of(learner: Any, run: Path) -> Any:
    """The reader of a run. Raises InnerloopError where its tasks are not read from
    files.
    """
    if learner.reader is None:
        raise InnerloopError(
            f"{run} was trained on tasks that are not read from files: train on a "
            "folder of images, texts or rows"
        )
    return learner.reader


def check_parent(file: str | Path | None) -> Path | None:
    """A file to write to. Raises InnerloopError where its folder is missing."""
    if file is None:
        return None
    path = Path(file)
    if not path.absolute().parent.is_dir():
        raise InnerloopError(
            f"there is no folder {path.parent} to write {path.name} to"
        )
    if path.is_dir():
        raise InnerloopError(f"{path} is a folder: name a file to write to")
    return path
