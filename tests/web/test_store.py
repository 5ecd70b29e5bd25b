"""Projects of sessions: separated, bounded, and written at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from innerloop import runs
from innerloop.web import store
from innerloop.web.http import Refused
from tests.web.conftest import SESSION, Hand, Page


def test_sessions_do_not_see_each_other(page: Page, hand: Hand) -> None:
    path, classes = page.project("drawings", "a")
    other = page.of("another-session-x")
    assert other.get("/api/projects").json() == {"projects": []}
    assert other.get(path).status_code == 404
    assert other.delete(path).status_code == 404
    body = {"drawings": [hand.circle()]}
    assert other.post(classes[0], json=body).status_code == 404
    folders = [folder.name for folder in page.folder.iterdir()]
    assert len(folders) == 1
    assert SESSION not in folders[0]


@pytest.mark.parametrize("id", ["..", "%2e%2e", "0" * 16, "..%2f..", "e1", "A" * 16])
def test_no_name_from_a_client_reaches_a_path(page: Page, id: str) -> None:
    page.project("drawings", "a")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/file")):
        response = page.client.request(method, f"/api/projects/{id}{path}")
        assert response.status_code in (404, 405, 422)
    assert len(list(page.folder.glob("*/*/project.json"))) == 1


def test_damaged_folders_are_refused_and_the_others_listed(
    serve: Callable[..., Page], hand: Hand
) -> None:
    old = serve()
    paths = [old.project("drawings", "a", "b")[0] for _ in range(6)]
    good, *bad = [Path(old.do("GET", path)["folder"]) for path in paths]
    (bad[0] / "project.json").write_text("{")
    (bad[1] / "project.json").write_text("[" * 100_000)
    (bad[2] / "project.json").unlink()
    data = json.loads((bad[3] / "project.json").read_text())
    example = {"id": "e9", "text": None, "row": None, "picture": 5}
    data["classes"][0]["examples"] = [example]
    data["next"] = 10
    (bad[3] / "project.json").write_text(json.dumps(data))  # its picture is missing
    data["classes"][0]["examples"][0]["id"] = "../e9"
    (bad[4] / "project.json").write_text(json.dumps(data))
    new = serve()
    listed = {p["id"] for p in new.do("GET", "/api/projects")["projects"]}
    assert good.name in listed
    assert listed <= {good.name, bad[3].name}
    for path in paths[1:]:
        answer = new.do("GET", path, 422)
        assert answer["error"]["code"] == "damaged"
        new.do("DELETE", path)
    assert len(new.do("GET", "/api/projects")["projects"]) == 1


def test_the_bytes_on_disk_are_bounded(page: Page, hand: Hand) -> None:
    path, classes = page.project("drawings", "a", "b")
    page.state.projects.disk.most = store.size_of(page.folder) + 6000
    for _ in range(30):
        response = page.client.post(classes[0], json={"drawings": [hand.circle()]})
        if response.status_code != 200:
            break
    assert response.status_code == 507
    assert response.json()["error"]["code"] == "full"
    held = page.do("GET", path)["examples"]
    assert held > 0
    folder = Path(page.do("GET", path)["folder"])
    assert len(list((folder / "examples").iterdir())) == held
    page.post("/api/projects", {"model": "drawings"}, 507)
    page.do("DELETE", path)
    page.post("/api/projects", {"model": "drawings"})


def test_what_was_removed_is_not_counted(page: Page, hand: Hand) -> None:
    page.project("drawings", "a")
    disk = page.state.projects.disk
    disk.charge(0)
    before = disk._used
    path, classes = page.project("drawings", "a", "b")
    for adding in classes:
        page.post(adding, {"drawings": [hand.circle()]})
    assert page.client.get(f"{path}/file").status_code == 200
    page.do("DELETE", path)
    assert disk._used == before


def test_the_oldest_projects_leave_the_memory_and_come_back(
    page: Page, hand: Hand
) -> None:
    projects = page.state.projects
    projects.most_open = 2
    made = [page.project("drawings", "a", "b") for _ in range(4)]
    assert len(projects._open) == 2
    path, classes = made[0]
    for adding, draw in zip(classes, (hand.circle, hand.cross), strict=True):
        page.post(adding, {"drawings": [draw()]})
    for other, _ in made[1:]:
        page.do("GET", other)
    assert (SESSION, path.rsplit("/", 1)[1]) not in projects._open
    assert len(page.post(f"{path}/ask", {"drawing": hand.cross()})["classes"]) == 2


def test_a_change_that_cannot_be_written_does_not_happen(
    serve: Callable[..., Page], hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = serve()
    path, classes = page.project("drawings", "a", "b")
    page.post(classes[0], {"drawings": [hand.circle()]})
    before = page.do("GET", path)
    real = runs.DISK.write

    def fails(file: Path, content: bytes) -> None:
        if "project.json" in file.name:
            raise OSError(28, "No space left on device")
        real(file, content)

    monkeypatch.setattr(runs.DISK, "write", fails)
    error = page.post(classes[1], {"drawings": [hand.cross()]}, 422)["error"]
    assert "No space left" in error["message"]
    page.post(f"{path}/undo", status=422)
    monkeypatch.setattr(runs.DISK, "write", real)
    assert page.do("GET", path) == before
    again = serve()
    assert again.do("GET", path)["examples"] == 1
    page.post(classes[1], {"drawings": [hand.cross()]})


def test_changes_from_many_threads_are_all_kept(page: Page, hand: Hand) -> None:
    path, _ = page.project("drawings")
    project = page.state.projects.get(SESSION, path.rsplit("/", 1)[1])
    refused = []

    def add(place: int) -> None:
        try:
            for i in range(5):
                project.add_group(f"{place} {i}")
        except Refused as error:
            refused.append(error)

    threads = [threading.Thread(target=add, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not refused
    state = page.do("GET", path)
    assert len({c["id"] for c in state["classes"]}) == 40
    assert state["version"] == 41


def test_projects_of_a_session_are_counted(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_PROJECTS", 2)
    for status in (200, 200, 507):
        page.post("/api/projects", {"model": "drawings"}, status)
