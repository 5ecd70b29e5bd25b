"""The command reference: docs/commands.md, from the options of the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from markup import escaped

from innerloop.cli import COMMANDS, cli

PAGE = Path(__file__).resolve().parent / "commands.md"
HEAD = """\
# Commands

Every command prints its options with `--help`. `train`, `sweep` and `test` take further
ones: each option of the learner, the tasks, the meta-gradient and the
[training](reference/experiments.md#class-metatrainconfig) is a flag, which
`innerloop train LEARNER TASKS --help` lists. They are on the pages of
[learners](learners/index.md), [task sources](tasks.md) and
[meta-gradients](meta_gradients.md).

A command ends with 0 where it succeeded, 1 where some inputs could not be used, 2 for
bad input, 75 where other processes of a training have died, and 130 where it was
interrupted.
"""


def usages(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """A command, or the commands of a group, by full name."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command)
    for part in command.list_commands(context):
        found = command.get_command(context, part)
        assert found is not None
        yield from usages(found, f"{name} {part}")


def rows(command: click.Command, context: click.Context) -> Iterator[str]:
    # without the options of what another command line named
    for parameter in vars(command).get("own", command.params):
        if parameter.is_eager:
            continue
        record = (
            parameter.get_help_record(context)
            if isinstance(parameter, click.Option)
            else None
        )
        if record is not None:
            flag, text = record
            yield f"| {escaped(f'`{flag}`')} | {escaped(text)} |"


def section(name: str, command: click.Command) -> list[str]:
    context = click.Context(
        command, info_name=f"innerloop {name}", **cli.context_settings
    )
    usage = command.get_usage(context).removeprefix("Usage: ")
    lines = [f"## {name}", "", "```text", " ".join(usage.split()), "```", ""]
    for paragraph in (command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):
            lines += ["```text", *paragraph.splitlines()[1:], "```", ""]
        else:
            lines += [escaped(paragraph), ""]
    if options := list(rows(command, context)):
        lines += ["| option | meaning |", "| --- | --- |", *options, ""]
    return lines


def pages() -> dict[Path, str]:
    context = click.Context(cli)
    found = [
        (name, command)
        for top in COMMANDS
        for first in [cli.get_command(context, top)]
        if first is not None
        for name, command in usages(first, top)
    ]
    lines = [HEAD, "| command | what it does |", "| --- | --- |"]
    for top, text in COMMANDS.items():
        inner = [name for name, _ in found if name.split()[0] == top]
        links = ", ".join(f"[{n}](#{n.replace(' ', '-')})" for n in inner)
        lines.append(f"| {links} | {escaped(text)} |")
    lines.append("")
    for name, command in found:
        lines += section(name, command)
    return {PAGE: "\n".join(lines).rstrip() + "\n"}
