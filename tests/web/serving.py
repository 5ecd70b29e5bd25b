"""The page's application, asked without and with a real server."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

import innerloop
from innerloop.web.app import Settings, create_app
from innerloop.web.guard import Guard

Result = TypeVar("Result")

TOKEN = "t" * 32
HOST = "127.0.0.1:8765"
ALLOWED = {"x-token": TOKEN}
ADDRESS = re.compile(r"innerloop is at (http://\S+)/#(\S+)")


def application(projects: Path, **settings: Any) -> Guard:
    """The application with a known token."""
    return create_app(Settings(token=TOKEN, projects=projects, **settings))


def completed(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine, in a thread of its own: a browser that is open keeps
    an event loop running in this one.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def ask(
    app: Any, method: str, path: str, *, host: str = HOST, **options: Any
) -> httpx.Response:
    """The answer of the application to one request; `options` as in httpx. An error
    that leaves the application is an answer with status 500.
    """

    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url=f"http://{host}"
        ) as client:
            return await client.request(method, path, **options)

    return completed(request())


def refusal(answer: httpx.Response) -> str:
    """The code of an error, which must be one JSON line with code and message."""
    assert answer.headers["content-type"] == "application/json"
    assert "\n" not in answer.text
    error = answer.json()["error"]
    assert set(error) == {"code", "message"}
    assert 0 < len(error["message"]) <= 300
    assert set(answer.json()) == {"error"}
    return error["code"]


@dataclass(frozen=True)
class Server:
    """A server in a process of its own.

    Args:
        process: the process.
        address: such as http://127.0.0.1:1234.
        token: the token that it printed.
        seconds: how long it took to answer.
    """

    process: subprocess.Popen[str]
    address: str
    token: str
    seconds: float

    def interrupt(self) -> tuple[int, str]:
        """End it as Ctrl-C does: its exit code, and what it said after its address."""
        self.process.send_signal(signal.SIGINT)
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "innerloop", "serve", *map(str, arguments)]


def environment(**further: str) -> dict[str, str]:
    """The environment of a server: this package, one thread."""
    source = str(Path(innerloop.__file__).parent.parent)
    ours = {"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **ours, **further}


@contextmanager
def serving(projects: Path, *arguments: str | Path) -> Iterator[Server]:
    """A server at a free port, until the block ends."""
    began = time.monotonic()
    line = command("--port", "0", "--projects", projects, *arguments)
    process = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        said = []
        while not (found := ADDRESS.search("".join(said))):
            text = process.stdout.readline()
            assert text, f"it ended: {''.join(said)}"
            said.append(text)
        httpx.get(found[1] + "/", trust_env=False, timeout=60).raise_for_status()
        yield Server(process, found[1], found[2], time.monotonic() - began)
    finally:
        process.kill()
        process.wait()
