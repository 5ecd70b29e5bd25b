"""A client of the page's server, whose model for drawings is a small run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("multipart")
pytest.importorskip("jsonschema")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from innerloop.cli import main
from innerloop.web import models
from innerloop.web.app import Settings, State, create_app

TOKEN, SESSION = "a-token-of-the-tests", "session-of-tests"
TRAIN = (
    "train protonet strokes --ways 5 --shots 1 --queries 4 --encoder conv4 --seed 1 "
    "--steps 12"
)


@pytest.fixture(scope="session")
def drawings_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ready model for drawings; where there is none, a run of ProtoNet that was
    trained for a few seconds.
    """
    if models.READY.is_dir():
        return models.READY
    folder = tmp_path_factory.mktemp("web") / "drawings"
    assert main([*TRAIN.split(), "--out", str(folder)]) == 0
    return folder


class Page:
    """A client, and what its server keeps."""

    def __init__(self, folder: Path, runs: tuple[Path, ...] = ()):
        self.folder = folder
        self.app = create_app(Settings(token=TOKEN, projects=folder, runs=runs))
        self.state: State = self.app.app.state.innerloop  # pyright: ignore[reportAttributeAccessIssue]
        self.client = self.of(SESSION)

    def of(self, session: str) -> TestClient:
        """A client of another session."""
        headers = {"x-token": TOKEN, "x-session": session}
        return TestClient(self.app, "http://127.0.0.1:8765", headers=headers)

    def do(self, method: str, path: str, status: int = 200, **sent: Any) -> Any:
        """What the server answers, which must have that status."""
        response = self.client.request(method, path, **sent)
        assert response.status_code == status, response.text
        return response.json()

    def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        return self.do("POST", path, status, **({} if body is None else {"json": body}))

    def project(self, model: str, *names: str) -> tuple[str, list[str]]:
        """A new project with classes: its path, and theirs."""
        path = f"/api/projects/{self.post('/api/projects', {'model': model})['id']}"
        for name in names:
            state = self.post(f"{path}/classes", {"name": name})
        classes = state["classes"] if names else []
        return path, [f"{path}/classes/{c['id']}/examples" for c in classes]


@pytest.fixture
def serve(
    tmp_path: Path, drawings_run: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Page]]:
    """Starts servers, of the same folder unless another is named."""
    monkeypatch.setattr(models, "READY", drawings_run)
    pages = []

    def start(*runs: Path, folder: Path = tmp_path / "projects") -> Page:
        pages.append(Page(folder, runs))
        return pages[-1]

    yield start
    for page in pages:
        page.state.projects.close()


@pytest.fixture
def page(serve: Callable[..., Page]) -> Page:
    return serve()


class Hand:
    """Draws circles and crosses, each a little different."""

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)

    def _drawing(self, *strokes: Any) -> dict[str, Any]:
        shift = self.rng.normal(0, 0.03, 2)
        moved = [np.stack(s, 1) + shift for s in strokes]
        noisy = [s + self.rng.normal(0, 0.006, s.shape) for s in moved]
        return {"strokes": [s.clip(0, 1).round(4).tolist() for s in noisy]}

    def circle(self) -> dict[str, Any]:
        t = np.linspace(0, 2 * np.pi, 40)
        width, height = self.rng.uniform(0.2, 0.3, 2)
        return self._drawing((0.5 + width * np.cos(t), 0.5 + height * np.sin(t)))

    def cross(self) -> dict[str, Any]:
        t = np.linspace(0.2, 0.8, 20)
        return self._drawing((t, t), (t, 1 - t))


@pytest.fixture
def hand() -> Hand:
    return Hand()
