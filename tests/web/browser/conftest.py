"""The page in a browser, with a server in a process of its own."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from innerloop.cli import main

CHROMIUM = Path("/usr/bin/chromium")
SMALL = "--ways 3 --shots 2 --queries 2 --seed 1"
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
THEMES = {
    "food": "soup bread apple cheese rice pasta salad cake",
    "travel": "train ticket plane hotel map station airport bus",
    "sport": "ball goal match team race score run coach",
    "music": "song guitar drum piano singer band tune concert",
    "animals": "dog cat horse bird fish cow sheep lion",
    "weather": "rain snow wind sun cloud storm ice fog",
}


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Args:
        address: that it printed.
        projects: the folder of its projects.
    """

    address: str
    projects: Path

    @property
    def origin(self) -> str:
        return self.address.partition("/#")[0]


@pytest.fixture(scope="session")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 classes of 6 noisy copies of a picture of colored squares."""
    root = tmp_path_factory.mktemp("signs")
    rng = np.random.default_rng(0)
    for c in range(12):
        (root / f"sign {c}").mkdir()
        base = rng.integers(0, 255, (5, 4, 3)).repeat(16, 0).repeat(16, 1)
        for i in range(6):
            noisy = base + rng.integers(-25, 25, base.shape)
            pixels = np.clip(noisy, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"sign {c}" / f"{c}-{i}.png")
    return root


@pytest.fixture(scope="session")
def themes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of texts of six themes."""
    file = tmp_path_factory.mktemp("texts") / "themes.csv"
    draw = random.Random(0)
    rows = [
        f"{' '.join(draw.sample(words.split(), 4))},{name}"
        for name, words in THEMES.items()
        for _ in range(12)
    ]
    file.write_text("\n".join(["text,label", *rows]))
    return file


@pytest.fixture(scope="session")
def runs(
    tmp_path_factory: pytest.TempPathFactory, signs: Path, themes: Path
) -> list[Path]:
    """Runs that read drawings, pictures and texts: "run:1" to "run:3"."""
    root = tmp_path_factory.mktemp("runs")
    lines = {
        "characters": "strokes --encoder conv4 --steps 20",
        "signs": f"folder --encoder conv4 --steps 20 --size 16 --root {signs}"
        " --channels 3",
        "themes": f"text --encoder words --steps 4 --file {themes}",
    }
    for name, line in lines.items():
        out = ["--out", str(root / name)]
        assert main(["train", "protonet", *line.split(), *SMALL.split(), *out]) == 0
    return [root / name for name in lines]


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, runs: list[Path]
) -> Iterator[Server]:
    """`innerloop serve RUN...` at a free port."""
    projects = tmp_path_factory.mktemp("projects")
    command = [sys.executable, "-u", "-m", "innerloop", "serve", *map(str, runs)]
    options = ["--port", "0", "--projects", str(projects)]
    process = subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found, "the server printed no address"
    yield Server(found[0], projects)
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser with a camera that shows a test picture."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    playwright = pytest.importorskip("playwright.sync_api")
    playwright.expect.set_options(timeout=30_000)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", *FAKE_CAMERA]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Open a page in a context of its own, with a session of its own. At the end of the
    test, fails for requests that leave the machine, errors in the console and
    exceptions.
    """
    contexts: list[Any] = []
    wrong: list[str] = []

    def only_here(route: Any) -> None:
        url = route.request.url
        if url.startswith((server.origin + "/", "blob:", "data:")):
            route.continue_()
        else:
            wrong.append(f"request to {url}")
            route.abort()

    def note(message: Any) -> None:
        if message.type == "error" or "Content Security Policy" in message.text:
            wrong.append(message.text)

    def open_page(path: str = "/", **options: Any) -> Any:
        usual = {
            "viewport": {"width": 1280, "height": 900},
            "locale": "en-US",
            "permissions": ["camera"],
        }
        context = chromium.new_context(**{**usual, **options})
        contexts.append(context)
        context.set_default_timeout(30_000)
        context.route("**/*", only_here)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(server.origin + path + "#" + server.address.partition("#")[2])
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong
