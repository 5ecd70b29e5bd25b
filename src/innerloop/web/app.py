"""The application: pages, and the operations of the HTTP interface."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from innerloop import __version__
from innerloop.engine.folders import projects_folder
from innerloop.web import teach, tour, train
from innerloop.web.guard import Guard
from innerloop.web.http import Operation, Refused, openapi
from innerloop.web.store import Projects
from innerloop.web.trainings import Trainings

STATIC = Path(__file__).parent / "static"
PAGES = {"/": "index.html", "/learn": "learn.html", "/train": "train.html"}
THREADS = 2  # that compute


@dataclass(frozen=True)
class Settings:
    """What the server is started with.

    Args:
        host, port: where it listens.
        token: what a request must know; "" asks for nothing.
        runs: run folders whose learners can be taught.
        projects: the folder of the projects.
        training: the folder of runs that are trained, or None where it is not allowed.
        rate: requests of one session in a second.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    runs: tuple[Path, ...] = ()
    projects: Path = field(default_factory=projects_folder)
    training: Path | None = None
    rate: float = 50.0

    @property
    def hosts(self) -> tuple[str, ...]:
        """What the Host header may say."""
        names = sorted({self.name, "127.0.0.1", "localhost", "[::1]"})
        usual = names if self.port == 80 else []  # browsers leave 80 out
        return (*(f"{name}:{self.port}" for name in names), *usual)

    @property
    def name(self) -> str:
        """The host as addresses have it."""
        return f"[{self.host}]" if ":" in self.host else self.host.lower()

    @property
    def address(self) -> str:
        """The address of the page, with the token."""
        return f"http://{self.name}:{self.port}/#{self.token}"


class State:
    """What the application keeps.

    Args:
        settings: what it was started with.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.threads = CapacityLimiter(THREADS)
        self.projects = Projects(settings.projects, settings.runs)
        self.trainings = Trainings(settings.training)


def operations() -> list[Operation]:
    """All operations of the interface."""
    return [*teach.OPERATIONS, *tour.OPERATIONS, *train.OPERATIONS]


def create_app(settings: Settings) -> Guard:
    """The guarded application."""
    known = operations()
    document = openapi(known, __version__)

    async def schema(request: Request) -> Response:
        return JSONResponse(document)

    routes: list[BaseRoute] = [
        *(_page(path, name) for path, name in PAGES.items()),
        Route("/api/openapi.json", schema),
        *(Route(o.path, o.__call__, methods=[o.method]) for o in known),
        Mount("/static", GZipMiddleware(StaticFiles(directory=STATIC))),
    ]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # the models are loaded while the browser opens the page; no daemon, because a
        # process that ends inside torch is aborted
        Thread(target=state.projects.models.states).start()
        yield
        await run_sync(state.trainings.close)

    state = State(settings)
    handlers: Any = {HTTPException: _missing, 500: _failed}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    app.state.innerloop = state
    return Guard(app, settings.token, settings.hosts, settings.rate)


def _page(path: str, name: str) -> Route:
    async def page(request: Request) -> Response:
        return FileResponse(STATIC / name)

    return Route(path, page)


async def _missing(request: Request, error: Any) -> Response:
    texts = {404: "there is nothing here", 405: "not by this method"}
    text = texts.get(error.status_code, "this request cannot be answered")
    response = Refused(error.status_code, "missing", text).response()
    if error.headers:
        response.headers.update(error.headers)
    return response


async def _failed(request: Request, error: Any) -> Response:
    return Refused(500, "failed", "something failed in the server").response()
