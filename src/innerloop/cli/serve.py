"""`innerloop serve`."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import click

from innerloop.cli.flags import RunFolder, SectionedCommand, option
from innerloop.engine.errors import InnerloopError, MissingPackageError

HELP = (
    "Open a page on this machine where classes are taught from a few drawings, "
    "pictures, texts or rows. RUN: learners of your own to teach there. Nothing leaves "
    "the machine."
)


def run(**arguments: Any) -> None:
    try:
        import python_multipart  # noqa: F401  # starlette imports it with the first file
        import uvicorn

        from innerloop.web.app import Settings, create_app
    except ImportError as error:
        raise MissingPackageError(
            f"the page needs the package {error.name}: pip install 'innerloop[web]'"
        ) from error

    given = {n: arguments[n] for n in ("host", "port", "projects") if arguments[n]}
    training = Path(arguments["training"]) if arguments["allow_training"] else None
    runs = tuple(Path(folder) for folder in arguments["runs"])
    listener = listening(arguments["host"], arguments["port"])
    given |= {"port": listener.getsockname()[1], "host": arguments["host"].strip("[]")}
    settings = Settings(**given, runs=runs, training=training)
    click.echo(f"innerloop is at {settings.address}\nstop it with Ctrl-C")
    config = uvicorn.Config(
        create_app(settings),
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=2**16,
    )
    if arguments["open"]:
        click.launch(settings.address)
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        uvicorn.Server(config).run([listener])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises InnerloopError where that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    if os.name == "posix":  # elsewhere it would share a port that is in use
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise InnerloopError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; choose "
            "another --port (0: any that is free)"
        ) from error
    return listener


command = SectionedCommand(
    "serve",
    params=[
        click.Argument(["runs"], metavar="[RUN]...", nargs=-1, type=RunFolder()),
        option("--host", "Address to listen at.", default="127.0.0.1"),
        option(
            "--port", "0: any free one.", type=click.IntRange(0, 65535), default=8765
        ),
        option("--projects", "Folder of the projects.", type=Path, metavar="DIR"),
        option(
            "--allow-training", "Trainings can be started from the page.", is_flag=True
        ),
        option("--training", "Folder of their runs.", default="runs", metavar="DIR"),
        option("--open", "Open the page in a browser.", is_flag=True),
    ],
    callback=run,
    help=HELP,
)
