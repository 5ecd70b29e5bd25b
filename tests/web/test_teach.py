"""Teaching classes through the page's server, and asking."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from innerloop import FewShotClassifier
from innerloop.cli import main
from innerloop.web import models, project
from innerloop.web.drawings import picture
from innerloop.web.pictures import png
from tests.web.conftest import Hand, Page


def taught(page: Page, hand: Hand, shots: int = 2) -> tuple[str, list[str]]:
    """A project that was taught circles and crosses."""
    path, classes = page.project("drawings", "circle", "cross")
    for adding, draw in zip(classes, (hand.circle, hand.cross), strict=True):
        page.post(adding, {"drawings": [draw() for _ in range(shots)]})
    return path, classes


def chosen(answer: dict[str, Any]) -> tuple[str, float]:
    best = max(answer["classes"], key=lambda c: c["probability"])
    return best["name"], best["probability"]


def files_of(*contents: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", content) for content in contents]


def test_two_classes_of_two_drawings_are_told_apart(page: Page, hand: Hand) -> None:
    path, _ = taught(page, hand)
    for name, draw in (("circle", hand.circle), ("cross", hand.cross)):
        for _ in range(3):
            answer = page.post(f"{path}/ask", {"drawing": draw()})
            label, probability = chosen(answer)
            assert label == name
            assert probability > 0.8
    assert [c["name"] for c in answer["classes"]] == ["circle", "cross"]
    assert sum(c["probability"] for c in answer["classes"]) == pytest.approx(
        1, abs=1e-3
    )
    state = page.do("GET", path)
    crosses = {e["id"] for e in state["classes"][1]["examples"]}
    assert {n["example"] for n in answer["neighbors"][:2]} == crosses
    similar = [n["similarity"] for n in answer["neighbors"]]
    assert similar == sorted(similar, reverse=True)


def test_a_drawing_is_the_same_wherever_and_however_large_it_is_drawn(
    page: Page, hand: Hand
) -> None:
    path, _ = taught(page, hand)
    drawn = hand.circle()
    small = {"strokes": [[[x / 3, y / 3] for x, y in s] for s in drawn["strokes"]]}
    one, other = (page.post(f"{path}/ask", {"drawing": d}) for d in (drawn, small))
    assert one["point"] == pytest.approx(other["point"], abs=0.05)


def test_asking_needs_two_classes_with_examples(page: Page, hand: Hand) -> None:
    path, classes = page.project("drawings", "circle", "cross")
    page.post(classes[0], {"drawings": [hand.circle()]})
    answer = page.post(f"{path}/ask", {"drawing": hand.circle()}, 409)
    assert answer["error"]["code"] == "few"
    insight = page.do("GET", f"{path}/insight")
    assert insight["map"] == []
    assert insight["accuracy"] is None
    page.post(f"{path}/ask", {"text": "a circle"}, 409)


def test_what_is_like_the_examples_is_rarely_rejected(page: Page, hand: Hand) -> None:
    path, _ = taught(page, hand, shots=4)
    found = [
        page.post(f"{path}/ask", {"drawing": draw()})["none"]
        for draw in [hand.circle, hand.cross] * 4
    ]
    assert sum(found) <= 1


def test_insight_counts_held_out_examples_and_names_the_doubtful(
    page: Page, hand: Hand
) -> None:
    path, classes = taught(page, hand, 4)
    before = page.do("GET", f"{path}/insight")
    assert before["accuracy"] == {"correct": 8, "of": 8}
    assert before["doubtful"] == []
    ids = [e["id"] for c in page.do("GET", path)["classes"] for e in c["examples"]]
    assert [p["example"] for p in before["map"]] == ids
    assert max(abs(p[a]) for p in before["map"] for a in "xy") == 1
    state = page.post(classes[0], {"drawings": [hand.cross()]})["state"]
    wrong = state["classes"][0]["examples"][-1]["id"]
    after = page.do("GET", f"{path}/insight")
    cross = state["classes"][1]["id"]
    assert after["doubtful"] == [{"example": wrong, "looks_like": cross}]
    assert after["accuracy"] == {"correct": 8, "of": 9}
    assert after["version"] == state["version"]
    places = {p["example"]: (p["x"], p["y"]) for p in after["map"]}
    moved = [
        np.hypot(p["x"] - places[p["example"]][0], p["y"] - places[p["example"]][1])
        for p in before["map"]
    ]
    assert max(moved) < 0.7  # the map is neither mirrored nor turned


def test_every_change_can_be_undone(page: Page, hand: Hand) -> None:
    path, classes = taught(page, hand)
    states = [page.do("GET", path)]

    def remember(state: dict[str, Any]) -> None:
        states.append(state)

    first = states[0]["classes"][0]
    remember(page.do("DELETE", f"{path}/examples/{first['examples'][0]['id']}"))
    remember(page.do("PATCH", path, json={"name": "shapes"}))
    remember(page.do("PATCH", f"{path}/classes/{first['id']}", json={"name": "o"}))
    remember(page.post(classes[1], {"drawings": [hand.cross()]})["state"])
    remember(page.do("DELETE", f"{path}/classes/{first['id']}"))
    assert [c["name"] for c in states[-1]["classes"]] == ["cross"]
    for before in reversed(states[:-1]):
        now = page.post(f"{path}/undo")
        assert (now["name"], now["classes"]) == (before["name"], before["classes"])
        assert now["version"] > states[-1]["version"]
    example = first["examples"][0]["id"]
    assert page.client.get(f"{path}/examples/{example}/picture").status_code == 200
    for _ in range(20):
        response = page.client.post(f"{path}/undo")
    assert response.status_code == 409
    assert not page.do("GET", path)["can_undo"]


def test_pictures_that_cannot_come_back_leave_the_disk(
    page: Page, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "UNDO", 2)
    path, _ = taught(page, hand)
    folder = Path(page.do("GET", path)["folder"]) / "examples"
    example = page.do("GET", path)["classes"][0]["examples"][0]["id"]
    page.do("DELETE", f"{path}/examples/{example}")
    assert (folder / f"{example}.png").is_file()
    for name in ("a", "b", "c"):
        page.do("PATCH", path, json={"name": name})
    assert not (folder / f"{example}.png").exists()
    assert len(list(folder.iterdir())) == 3


def test_a_server_that_restarts_finds_all_again(
    serve: Callable[..., Page], hand: Hand
) -> None:
    old = serve()
    path, _ = taught(old, hand)
    question = {"drawing": hand.circle()}
    before, state = old.post(f"{path}/ask", question), old.do("GET", path)
    new = serve()
    listed = new.do("GET", "/api/projects")["projects"]
    assert listed == [
        {"id": state["id"], "name": "Project", "model": "drawings", "examples": 4}
    ]
    again = new.do("GET", path)
    assert again == {**state, "can_undo": False}
    after = new.post(f"{path}/ask", question)
    assert after["classes"] == before["classes"]
    state = new.post(f"{path}/classes", {"name": "third"})
    assert len({c["id"] for c in state["classes"]}) == 3


def test_a_project_is_what_the_library_loads_and_adapts(
    page: Page, hand: Hand, drawings_run: Path, tmp_path: Path
) -> None:
    path, _ = taught(page, hand)
    queries = [hand.circle(), hand.cross()]
    answers = [page.post(f"{path}/ask", {"drawing": q}) for q in queries]
    assert page.client.get(f"{path}/file").status_code == 200  # writes the estimator
    folder = Path(page.do("GET", path)["folder"])
    classifier = FewShotClassifier.load(folder)
    images = [picture(q["strokes"]) for q in queries]
    found = classifier.predict_proba(images)
    assert classifier.predict(images).tolist() == ["circle", "cross"]
    asked = [[c["probability"] for c in a["classes"]] for a in answers]
    assert found == pytest.approx(np.array(asked), abs=1e-3)
    (tmp_path / "query").mkdir()
    for i, image in enumerate(images):
        image.save(tmp_path / "query" / f"{i}.png")
    line = ["adapt", str(drawings_run), "--support", str(folder / "examples.csv")]
    line += ["--query", str(tmp_path / "query"), "--out", str(tmp_path / "labels.csv")]
    assert main(line) == 0
    with (tmp_path / "labels.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert [row["label"] for row in rows] == ["circle", "cross"]


def test_the_estimator_is_written_soon_and_never_old(page: Page, hand: Hand) -> None:
    path, classes = taught(page, hand)
    file = Path(page.do("GET", path)["folder"]) / "estimator.safetensors"
    page.state.projects.close()  # writes what is due
    assert file.is_file()
    page.post(classes[0], {"drawings": [hand.circle()]})
    assert not file.exists()


def test_a_project_file_is_opened_again(page: Page, hand: Hand) -> None:
    path, _ = taught(page, hand)
    content = page.client.get(f"{path}/file").content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
    assert names[:2] == ["project.json", "examples.csv"]
    assert names[-1] == "estimator.safetensors"
    other = page.of("another-session-x")
    response = other.post("/api/projects/open", files={"file": ("x.zip", content)})
    assert response.status_code == 200, response.text
    state = response.json()
    assert [len(c["examples"]) for c in state["classes"]] == [2, 2]
    question = {"drawing": hand.circle()}
    again = other.post(f"/api/projects/{state['id']}/ask", json=question).json()
    before = page.post(f"{path}/ask", question)
    names = [(c["name"], c["probability"]) for c in again["classes"]]
    assert names == [(c["name"], c["probability"]) for c in before["classes"]]


def changed(content: bytes, name: str, new: bytes) -> bytes:
    """An archive with another content of an entry."""
    memory = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for entry in old.namelist():
            archive.writestr(entry, new if entry == name else old.read(entry))
    return memory.getvalue()


def test_a_hostile_project_file_is_refused_and_leaves_nothing(
    page: Page, hand: Hand
) -> None:
    path, _ = taught(page, hand)
    good = page.client.get(f"{path}/file").content
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        data = json.loads(archive.read("project.json"))

    def with_data(change: Callable[[dict[str, Any]], Any]) -> bytes:
        other = json.loads(json.dumps(data))
        change(other)
        return changed(good, "project.json", json.dumps(other).encode())

    def first(other: dict[str, Any]) -> dict[str, Any]:
        return other["classes"][0]["examples"][0]

    example = data["classes"][0]["examples"][0]["id"]
    hostile = [
        b"no archive",
        good[:-30],
        changed(good, "project.json", b"["),
        changed(good, "project.json", b"[" * 100_000),
        changed(good, f"examples/{example}.png", b"no picture"),
        changed(good, f"examples/{example}.png", b"\0" * 10**8),  # a bomb
        with_data(lambda d: first(d).update(id="../../e1")),
        with_data(lambda d: first(d).update(id="e999")),
        with_data(lambda d: first(d).update(text="a text")),
        with_data(lambda d: d.update(model="../drawings")),
        with_data(lambda d: d.update(kind="text")),
        with_data(lambda d: d.update(extra=1)),
        with_data(lambda d: d["classes"].append(d["classes"][0])),
    ]
    for content in hostile:
        sent = {"file": ("x.zip", content)}
        response = page.client.post("/api/projects/open", files=sent)
        assert 400 <= response.status_code < 500, response.text
        error = response.json()["error"]
        assert "\n" not in error["message"]
    assert len(page.do("GET", "/api/projects")["projects"]) == 1
    assert len(list(page.folder.glob("*/*"))) == 1
    # code in place of the estimator is not read
    sent = {"file": ("x.zip", changed(good, "estimator.safetensors", b"pickle"))}
    assert page.client.post("/api/projects/open", files=sent).status_code == 200


def test_many_pictures_are_labeled_at_once(page: Page, hand: Hand) -> None:
    path, _ = taught(page, hand, 3)
    drawn = [hand.circle(), hand.cross(), hand.circle()]
    contents = [png(picture(d["strokes"])) for d in drawn]
    sent = files_of(
        ("a.png", contents[0]),
        ("../../b.png", contents[1]),
        ("x/a.png", contents[2]),
        ("bad.png", b"\x89PNG\r\n\x1a\n and no more"),
    )
    found = page.do("POST", f"{path}/label", files=sent)
    assert [r["label"] for r in found["rows"]] == ["circle", "cross", "circle"]
    assert [r["second"] for r in found["rows"]] == ["cross", "circle", "cross"]
    assert sorted(found["ask_next"]) == [0, 1, 2]
    assert [r["name"] for r in found["refused"]] == ["bad.png"]
    response = page.client.post(f"{path}/label?format=csv", files=sent)
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert (rows[0]["file"], rows[0]["label"]) == ("a.png", "circle")
    assert set(rows[0]) == {
        "file",
        "label",
        "probability",
        "second_label",
        "second_probability",
    }
    response = page.client.post(f"{path}/label?format=zip", files=sent)
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.namelist() == ["circle/a.png", "cross/b.png", "circle/a-2.png"]
        assert archive.read("cross/b.png") == contents[1]
    page.do("POST", f"{path}/label?format=exe", 422, files=sent)


def test_uncertain_pictures_are_the_ones_to_label_next(page: Page, hand: Hand) -> None:
    path, _ = taught(page, hand, 3)
    both = {"strokes": hand.circle()["strokes"] + hand.cross()["strokes"]}
    drawn = [hand.circle() for _ in range(4)] + [both]
    sent = files_of(
        *((f"{i}.png", png(picture(d["strokes"]))) for i, d in enumerate(drawn))
    )
    assert page.do("POST", f"{path}/label", files=sent)["ask_next"][0] == 4


def test_prediction_without_a_project(page: Page, hand: Hand) -> None:
    import base64

    support = [
        {"label": name, "drawing": draw()}
        for name, draw in (("o", hand.circle), ("x", hand.cross))
        for _ in range(2)
    ]
    photo = base64.b64encode(png(picture(hand.cross()["strokes"]))).decode()
    query = [{"drawing": hand.circle()}, {"picture": photo}]
    body = {"model": "drawings", "support": support, "query": query}
    found = page.post("/api/predict", body)
    assert found["labels"] == ["o", "x"]
    assert found["probabilities"][1]["x"] > 0.8
    assert found["none"] == [False, False]
    assert page.do("GET", "/api/projects")["projects"] == []
    page.post("/api/predict", {**body, "support": support[:2]}, 409)
    page.post("/api/predict", {**body, "query": [{"text": "o"}]}, 422)
    page.post("/api/predict", {**body, "query": [{"picture": "?"}]}, 422)


def test_a_missing_ready_model_is_named(
    serve: Callable[..., Page], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(models, "READY", tmp_path / "nowhere")
    page = serve()
    found = {m["name"]: m for m in page.do("GET", "/api/models")["models"]}
    assert not found["drawings"]["ready"]
    assert found["drawings"]["note"]
    page.post("/api/projects", {"model": "drawings"}, 409)
    page.post("/api/projects", {"model": "../x"}, 404)


def test_what_is_called_alike_is_refused(page: Page) -> None:
    path, _ = page.project("drawings", "a")
    page.post(f"{path}/classes", {"name": " a "}, 409)
    page.post(f"{path}/classes", {"name": "\u0000 "}, 422)
    half = json.dumps({"name": "\ud800"})  # of a surrogate pair
    head = {"content-type": "application/json"}
    page.do("POST", f"{path}/classes", 400, content=half, headers=head)
    state = page.post(f"{path}/classes", {"name": ' é,\n\u0007"=1+1'})
    assert state["classes"][1]["name"] == 'é, "=1+1'
    name = state["classes"][1]["name"]
    page.do("PATCH", f"{path}/classes/{state['classes'][1]['id']}", json={"name": name})
    page.do("PATCH", f"{path}/classes/c999", 404, json={"name": "b"})


def test_a_project_has_a_bounded_number_of_examples(
    page: Page, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "MOST_EXAMPLES", 5)
    path, classes = taught(page, hand)
    answer = page.post(classes[0], {"drawings": [hand.circle()] * 2}, 507)
    assert answer["error"]["code"] == "full"
    assert page.do("GET", path)["examples"] == 4
    page.post(classes[0], {"drawings": [hand.circle()]})


def test_an_image_of_any_kind_is_an_example(page: Page, hand: Hand) -> None:
    path, classes = page.project("drawings", "circle", "cross")
    rows = []
    for adding, draw in zip(classes, (hand.circle, hand.cross), strict=True):
        image = picture(draw()["strokes"]).resize((300, 300)).convert("RGB")
        memory = io.BytesIO()
        image.save(memory, "JPEG")
        sent = files_of(("photo.jpg", memory.getvalue()), ("a.svg", b"<svg></svg>"))
        found = page.do("POST", adding, files=sent)
        assert [r["name"] for r in found["refused"]] == ["a.svg"]
        rows = found["state"]["classes"]
    example = rows[0]["examples"][0]["id"]
    response = page.client.get(f"{path}/examples/{example}/picture")
    assert response.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(response.content)).size == (96, 96)
    query = {"file": ("q.png", png(picture(hand.cross()["strokes"])))}
    assert chosen(page.do("POST", f"{path}/ask", files=query))[0] == "cross"
