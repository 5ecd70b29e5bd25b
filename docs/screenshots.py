"""Pictures of every view of the page, as page-VIEW-WIDTH-THEME.png in a folder, by
default screenshots; those that the documentation shows are copied to docs.

    python docs/screenshots.py [FOLDER]

Starts `innerloop serve`, teaches it three classes of doodles, and opens the views in
Chromium: 1280 and 390 pixels wide, light and dark.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from tests.web.doodles import doodle  # noqa: E402

VIEWS = {"teach": "/", "learn": "/learn", "train": "/train"}
WIDTHS = {1280: 900, 390: 844}  # and heights
THEMES = ("light", "dark")
SHOWN = ("page-teach-1280-light.png", "page-learn-1280-light.png")
SESSION = "screenshots-0000"
CLASSES = {"Star": "star", "House": "house", "Smile": "smile"}
EXAMPLES = 4


def browser_path() -> str | None:
    """Chromium of the system; None for the one that Playwright installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def taught(address: str, token: str, rng: np.random.Generator) -> str:
    """A new project with drawings of three classes."""
    headers = {"x-token": token, "x-session": SESSION}

    def post(path: str, body: Any) -> Any:
        answer = client.post(f"/api/projects{path}", json=body)
        return answer.raise_for_status().json()

    with httpx.Client(base_url=address, headers=headers, trust_env=False) as client:
        id = post("", {"model": "drawings", "name": "Doodles"})["id"]
        for n, (name, shape) in enumerate(CLASSES.items()):
            group = post(f"/{id}/classes", {"name": name})["classes"][n]["id"]
            drawings = [{"strokes": doodle(shape, rng)} for _ in range(EXAMPLES)]
            post(f"/{id}/classes/{group}/examples", {"drawings": drawings})
        return id


def sketch(page: Page, rng: np.random.Generator) -> None:
    """Draw a smile in the canvas where one asks, and wait for the answer."""
    canvas = page.locator(".card.ask canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    for stroke in doodle("smile", rng):
        for n, (x, y) in enumerate(stroke):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            if n == 0:
                page.mouse.down()
        page.mouse.up()
    page.wait_for_timeout(1500)
    page.evaluate("window.scrollTo(0, 0)")


def take(browser: Browser, address: str, token: str, id: str, folder: Path) -> None:
    """All pictures."""
    kept = {
        "innerloop.session": SESSION,
        "innerloop.language": "en",
        "innerloop.projects": json.dumps({"drawings": id, "": "drawings"}),
    }
    for width, height in WIDTHS.items():
        for theme in THEMES:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=theme,  # pyright: ignore[reportArgumentType]
                device_scale_factor=1 if width > 1000 else 2,
                reduced_motion="reduce",
            )
            values = json.dumps({**kept, "innerloop.theme": theme})
            context.add_init_script(
                f"for (const [name, value] of Object.entries({values})) "
                "localStorage.setItem(name, value);"
            )
            for view, path in VIEWS.items():
                page = context.new_page()
                page.set_default_timeout(60_000)
                page.goto(f"{address}{path}#{token}")
                page.wait_for_load_state("networkidle")
                if view == "teach":
                    sketch(page, np.random.default_rng(5))
                page.wait_for_timeout(1500)
                file = folder / f"page-{view}-{width}-{theme}.png"
                page.screenshot(path=str(file), full_page=view != "learn")
                print(file, flush=True)
                page.close()
            context.close()


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        line = [sys.executable, "-m", "innerloop", "serve", "--port", "0"]
        line += ["--projects", f"{work}/projects"]
        server = subprocess.Popen(
            [*line, "--allow-training", "--training", f"{work}/runs"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            assert server.stdout is not None
            found = re.search(r"(http://\S+)/#(\S+)", server.stdout.readline())
            assert found is not None, "the server did not start"
            id = taught(found[1], found[2], np.random.default_rng(0))
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=browser_path(), args=["--no-sandbox"]
                )
                take(browser, found[1], found[2], id, folder)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
    for name in SHOWN:
        shutil.copy(folder / name, HERE)


if __name__ == "__main__":
    main()
