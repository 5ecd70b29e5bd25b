"""Hundreds of hostile files: each is refused or read within seconds, nothing fails, and
the server is right afterwards.
"""

from __future__ import annotations

import base64
import io
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.web.hostile import (
    NAMES,
    Upload,
    archives,
    image,
    pictures,
    tables,
)
from tests.web.serving import Server, refusal, serving

pytestmark = pytest.mark.slow

COUNT = 400  # pictures
SECONDS = 5.0  # that an answer may take
CLASSES = {"class 0": [[0.1, 0.1], [0.9, 0.9]], "class 1": [[0.5, 0.1], [0.5, 0.9]]}


class Page:
    """What a page asks of a server, with how long each answer took.

    Args:
        server: where it is.
    """

    def __init__(self, server: Server):
        headers = {"x-token": server.token, "x-session": "h" * 20}
        self.client = httpx.Client(
            base_url=server.address, headers=headers, trust_env=False, timeout=60
        )
        self.statuses: Counter[int] = Counter()
        self.slowest = (0.0, "")

    def ask(self, what: str, method: str, path: str, **options: Any) -> httpx.Response:
        """An answer, which must not be a failure and not take long: the faster of two,
        because other programs may be running.
        """
        seconds = []
        while True:
            began = time.monotonic()
            answer = self.client.request(method, path, **options)
            seconds.append(time.monotonic() - began)
            if seconds[-1] < SECONDS or len(seconds) == 2:
                break
        self.statuses[answer.status_code] += 1
        self.slowest = max(self.slowest, (min(seconds), what))
        assert answer.status_code < 500, f"{what}: {answer.text}"
        assert min(seconds) < SECONDS, f"{what}: {seconds}"
        if answer.status_code >= 400:
            refusal(answer)
        return answer

    def right(self, *arguments: Any, **options: Any) -> Any:
        answer = self.ask("a right request", *arguments, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def project(self) -> tuple[str, str]:
        """A new project with two classes of two drawings, and its first class."""
        state = self.right("POST", "/api/projects", json={"model": "drawings"})
        id = state["id"]
        for n, (name, line) in enumerate(CLASSES.items()):
            path = f"/api/projects/{id}/classes"
            state = self.right("POST", path, json={"name": name})
            drawings = [{"strokes": [line]}] * 2
            place = f"{path}/{state['classes'][n]['id']}/examples"
            self.right("POST", place, json={"drawings": drawings})
        return id, state["classes"][0]["id"]

    def check(self) -> None:
        """It learns, and is right."""
        id, _ = self.project()
        for name, line in CLASSES.items():
            body = {"drawing": {"strokes": [line]}}
            found = self.right("POST", f"/api/projects/{id}/ask", json=body)["classes"]
            best = max(found, key=lambda entry: entry["probability"])
            assert best["name"] == name
            assert best["probability"] > 0.8
        self.right("DELETE", f"/api/projects/{id}")


def as_file(upload: Upload) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("file", (upload.name, upload.content, upload.kind))]


def files_below(folder: Path) -> set[str]:
    return {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}


def test_hostile_files(tmp_path: Path) -> None:
    with serving(tmp_path / "projects") as server:
        page = Page(server)
        page.check()
        id, group = page.project()
        whole = page.ask("the file", "GET", f"/api/projects/{id}/file").content
        sent = 0
        for n, upload in enumerate(pictures(COUNT)):
            paths = [f"classes/{group}/examples", "ask", "label"]
            # the first go everywhere, the others to one place each
            for path in paths if n < 60 else [paths[n % 3]]:
                what = f"{upload.what} to {path}"
                url = f"/api/projects/{id}/{path}"
                page.ask(what, "POST", url, files=as_file(upload))
                sent += 1
        for what, content in archives(whole):
            file = Upload(what, NAMES[sent % len(NAMES)], content, "application/zip")
            answer = page.ask(what, "POST", "/api/projects/open", files=as_file(file))
            if answer.status_code == 200:
                opened = answer.json()["id"]
                page.right("GET", f"/api/projects/{opened}/insight")
                page.right("DELETE", f"/api/projects/{opened}")
            sent += 1
        sent += disguised(page)
        page.check()
        seconds, what = page.slowest
        print(f"{sent} uploads: {dict(page.statuses)}; {seconds:.1f} s for {what}")
        assert sent >= 500
        assert page.statuses[200] > 20
        assert page.statuses[422] > 20
        names = files_below(tmp_path)
    assert all(name.startswith("projects/") for name in names)
    assert not Path("/tmp/pwned").exists()
    assert not Path("/tmp/out.txt").exists()


def disguised(page: Page) -> int:
    """Pictures inside JSON; returns how many were sent."""
    known = base64.b64encode(image("PNG")).decode()
    values = [
        "",
        "!",
        "A",
        known[:-7],
        known + "=" * 9,
        "data:image/png;base64," + known,
    ]
    values += [base64.b64encode(u.content).decode() for u in pictures(30)]
    values = [value for value in values if len(value) < 1_000_000]
    for value in values:
        support = [{"label": label, "picture": known} for label in "ab"]
        body = {"model": "drawings", "support": support, "query": [{"picture": value}]}
        page.ask(f"picture {value[:20]}", "POST", "/api/predict", json=body)
    return len(values)


def test_many_hostile_files_at_once(tmp_path: Path) -> None:
    """All in one request, beside an honest one."""
    with serving(tmp_path / "projects") as server:
        page = Page(server)
        id, group = page.project()
        # without a name it would be a field, not a file
        files = [file for u in pictures(200) if u.name for file in as_file(u)]
        path = f"/api/projects/{id}/classes/{group}/examples"
        answer = page.client.post(path, files=files)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert len(found["refused"]) > 50
        assert all(entry["message"] for entry in found["refused"])
        page.check()


def test_hostile_tables(tmp_path: Path) -> None:
    with serving(tmp_path / "projects") as server:
        page = Page(server)
        models = page.right("GET", "/api/models")["models"]
        if not next(m for m in models if m["name"] == "texts")["ready"]:
            pytest.skip("the encoder of texts is not installed")
        id = page.right("POST", "/api/projects", json={"model": "texts"})["id"]
        group = ""
        path = f"/api/projects/{id}/classes"
        for n, (name, text) in enumerate({"red": "a rose", "blue": "the sea"}.items()):
            state = page.right("POST", path, json={"name": name})
            group = state["classes"][n]["id"]
            page.right("POST", f"{path}/{group}/examples", json={"texts": [text]})
        for what, content in tables():
            for place in (f"classes/{group}/examples", "label"):
                file = Upload(what, "table.csv", content, "text/csv")
                url = f"/api/projects/{id}/{place}"
                page.ask(f"{what} to {place}", "POST", url, files=as_file(file))
        for upload in pictures(60):
            file = upload._replace(name="table.csv")
            url = f"/api/projects/{id}/label"
            page.ask(upload.what, "POST", url, files=as_file(file))
        page.check()


def test_a_right_picture_is_read(tmp_path: Path) -> None:
    """Beside all that is refused, each format is read."""
    with serving(tmp_path / "projects") as server:
        page = Page(server)
        id, group = page.project()
        kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
        files = [("file", (kind, image(kind), "")) for kind in kinds]
        path = f"/api/projects/{id}/classes/{group}/examples"
        answer = page.right("POST", path, files=files)
        assert answer["refused"] == []
        first = answer["state"]["classes"][0]["examples"][-1]["id"]
        path = f"/api/projects/{id}/examples/{first}/picture"
        shown = Image.open(io.BytesIO(page.client.get(path).content))
        assert shown.size == (96, 96)
