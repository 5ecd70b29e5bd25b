"""`innerloop completion`."""

from __future__ import annotations

import click

from innerloop.cli.flags import SectionedCommand

SHELLS = ("bash", "zsh", "fish")


def run(shell: str) -> None:
    from click.shell_completion import get_completion_class

    from innerloop.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(cli, {}, "innerloop", "_INNERLOOP_COMPLETE").source())


command = SectionedCommand(
    "completion",
    params=[click.Argument(["shell"], type=click.Choice(SHELLS))],
    callback=run,
    help="Print a script that completes commands and flags in your shell: "
    'eval "$(innerloop completion bash)".',
)
