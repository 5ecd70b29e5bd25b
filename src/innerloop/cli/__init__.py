"""The command line. `innerloop --help` imports nothing heavy; a command imports what it
needs when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from innerloop.cli.output import SafeStream
from innerloop.engine import torchrun
from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError
from innerloop.engine.memory import tune_allocator

# name: one line of help; `innerloop.cli.NAME` holds the command
COMMANDS = {
    "serve": "open a page to teach classes and to see how it works",
    "demo": "meta-train for two minutes and compare with training from scratch",
    "train": "meta-train a learner into a run folder",
    "sweep": "train with many settings, and find out which are best",
    "test": "measure a run on unseen tasks",
    "compare": "test runs on the same tasks, and say whether they differ",
    "report": "write a page about runs: curves, mistakes, calibration",
    "adapt": "learn new classes from examples and label other inputs",
    "export": "write a run as programs that run without innerloop",
    "advise": "find out what suits your own classes best",
    "select": "choose which images to label next",
    "generate": "generate new images of new classes",
    "find": "find every occurrence of a symbol on a page",
    "synthesize": "infer the program that fills a column of a table",
    "translate": "translate into a language of which a few pairs are given",
    "answer": "answer questions about a few facts",
    "summarize": "choose the sentence of a text that says most",
    "study": "run studies: published numbers by one command, and their tables",
    "list": "list learners, tasks and more, or describe one entry",
    "papers": "list the papers behind this library, in an order to read",
    "cite": "print the reference of a method, or of all, as BibTeX",
    "new": "write a template for your own learner",
    "completion": "print a script that completes commands in your shell",
}
MOST = 290  # characters of an error line
TOO_LARGE = "not enough memory: choose smaller sizes"
# what torch says where a tensor is too large for the machine, or for any
OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "Invalid buffer size",
    "Storage size calculation overflowed",
    "numel: integer multiplication overflow",
    "Overflow when unpacking long",
)


class Commands(click.Group):
    """The commands by name, imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = {"list": "list_entries"}.get(cmd_name, cmd_name)
        return import_module(f"innerloop.cli.{name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(
                f"there is no command {args[0]!r}{did_you_mean(args[0], COMMANDS)}"
            )
        return super().resolve_command(ctx, args)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from innerloop import __version__

        click.echo(f"innerloop {__version__}")
        ctx.exit()


cli = Commands(
    "innerloop",
    help="Learning to learn: meta-train on many small tasks, then learn a new one from "
    "a few examples.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
    no_args_is_help=True,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_version,
            help="Show the version and exit.",
        )
    ],
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0 where it succeeded, 1 where some inputs could not be
    used, 2 for bad input, 75 where other processes of a training have died, 130 where
    it was interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    tune_allocator()
    streams = sys.stdout, sys.stderr
    out, err = SafeStream(streams[0]), SafeStream(streams[1])
    sys.stdout, sys.stderr = out, err
    try:
        code = _run(arguments)
        out.flush()
        if out.problem:
            return _fail(f"cannot write to the standard output: {out.problem}")
        return code
    finally:
        err.flush()
        sys.stdout, sys.stderr = streams


def _run(arguments: list[str]) -> int:
    try:
        code = cli.main(arguments, prog_name="innerloop", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return 0
    except click.NoSuchOption as error:
        known = (
            [o for p in error.ctx.command.params for o in p.opts] if error.ctx else []
        )
        guess = did_you_mean(error.option_name, known, "")
        return _fail(f"there is no option {error.option_name}{guess}", error.ctx)
    except click.UsageError as error:
        return _fail(error.format_message(), error.ctx)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        if not torchrun.local_rank():
            print("innerloop: interrupted", file=sys.stderr)
        return 130
    except InnerloopError as error:
        _show(error)
        return error.exit_code
    except OSError as error:
        return _show(error)
    except MemoryError:
        return _fail(TOO_LARGE)
    except (RuntimeError, TypeError, OverflowError) as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        return _fail(TOO_LARGE)
    return code or 0


def _show(error: Exception) -> int:
    if os.environ.get("INNERLOOP_TRACEBACK"):
        raise error
    # the processes of one machine have the same errors
    return 2 if torchrun.local_rank() else _fail(str(error))


def _fail(message: str, ctx: click.Context | None = None) -> int:
    where = ctx.command_path if ctx is not None else "innerloop"
    text = " ".join(f"{where}: error: {message}".split())
    # file names may hold characters that steer terminals
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: MOST + 1])
    text = text if len(text) <= MOST else text[: MOST - 3] + "..."
    print(text, file=sys.stderr)
    return 2
