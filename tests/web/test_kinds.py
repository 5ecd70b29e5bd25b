"""Texts, photographs, rows and runs of all kinds."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from innerloop import FewShotClassifier
from innerloop.cli import main
from innerloop.engine.errors import MissingPackageError
from innerloop.readers.encoded import encoded_reader
from innerloop.web import models
from tests.web.conftest import Hand, Page
from tests.web.test_teach import chosen, files_of

SPORT = ["the striker scored a goal", "our team won the match", "a tennis final"]
FOOD = ["bake the bread slowly", "a soup of carrots", "boil the pasta in water"]


@pytest.fixture
def few_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quickest encoders."""
    quick = {"text": "words", "image": "efficientnet"}
    monkeypatch.setattr(
        models, "usual_reader", lambda kind: encoded_reader(quick[kind])
    )
    pytest.importorskip("wordllama")


def test_texts_are_taught_by_hand_and_by_a_table(
    few_encoders: None, page: Page, tmp_path: Path
) -> None:
    path, classes = page.project("texts", "sport", "food")
    page.post(classes[0], {"texts": SPORT[:2]})
    page.post(classes[0], {"drawings": [{"strokes": [[[0, 0]]]}]}, 422)
    page.post(classes[0], {"texts": [" \n "]}, 422)
    rows = [["Text", "label"], *(["=" + text, "food"] for text in FOOD[:2])]
    rows += [["it rains, and snows", "weather"], ["", "food"], ["no label", ""]]
    memory = io.StringIO()
    csv.writer(memory).writerows(rows[:4] + rows[4:5])
    sent = files_of(("t.csv", memory.getvalue().encode()), ("a.png", b"\x89PNG"))
    found = page.do("POST", classes[0], files=sent)
    names = [(c["name"], len(c["examples"])) for c in found["state"]["classes"]]
    assert names == [("sport", 2), ("food", 2), ("weather", 1)]
    assert [r["name"] for r in found["refused"]] == ["line 5", "a.png"]
    answer = page.post(f"{path}/ask", {"text": FOOD[2]})
    assert chosen(answer)[0] == "food"
    queries = f"text\n{SPORT[2]}\n{FOOD[2]}\n".encode()
    labeled = page.do("POST", f"{path}/label", files=files_of(("q.csv", queries)))
    assert [r["label"] for r in labeled["rows"]] == ["sport", "food"]
    lines = files_of(("q.txt", f"{SPORT[2]}\n\n{FOOD[2]}".encode()))
    assert page.do("POST", f"{path}/label", files=lines)["rows"] == labeled["rows"]
    page.do("POST", f"{path}/label?format=zip", 422, files=lines)
    assert page.client.get(f"{path}/file").status_code == 200
    folder = Path(page.do("GET", path)["folder"])
    classifier = FewShotClassifier.load(folder)
    assert classifier.predict([SPORT[2], FOOD[2]]).tolist() == ["sport", "food"]
    (tmp_path / "q.csv").write_bytes(queries)
    line = ["adapt", "--support", str(folder / "examples.csv"), "--encoder", "words"]
    line += ["--query", str(tmp_path / "q.csv"), "--out", str(tmp_path / "l.csv")]
    assert main(line) == 0
    with (tmp_path / "l.csv").open() as opened:
        assert [row["label"] for row in csv.DictReader(opened)] == ["sport", "food"]


def test_archives_in_place_of_tables_are_refused(
    few_encoders: None, page: Page
) -> None:
    path, classes = page.project("texts", "sport", "food")
    for i, texts in enumerate((SPORT, FOOD)):
        page.post(classes[i], {"texts": texts})
    for content in (b"PK\x03\x04" + bytes(99), b"\x1f\x8b" + bytes(99), b"", b"PAR1"):
        sent = files_of(("t.csv", content))
        assert page.do("POST", classes[0], files=sent)["refused"]
        page.do("POST", f"{path}/label", 422, files=sent)
    long = [text * 400 for text in SPORT] * 20
    page.post(classes[0], {"texts": long}, 413)
    wide = ",".join(map(str, range(50_000))).encode() + b"\n1\n"
    page.do("POST", f"{path}/label", 422, files=files_of(("t.csv", wide)))
    many = b"text\n" + b"a text\n" * 2001
    page.do("POST", f"{path}/label", 422, files=files_of(("t.csv", many)))


def test_what_is_not_installed_is_named(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(what: str) -> None:
        raise MissingPackageError("install it")

    monkeypatch.setattr(models, "usual_reader", missing)
    found = {m["name"]: m for m in page.do("GET", "/api/models")["models"]}
    assert found["photographs"]["missing"] == "innerloop[photos]"
    assert found["texts"]["missing"] == "innerloop[texts]"
    assert "missing" not in found["drawings"]


@pytest.fixture(scope="module")
def more_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small runs on a user's table and images."""
    root = tmp_path_factory.mktemp("more")
    rng = np.random.default_rng(0)
    with (root / "table.csv").open("w") as opened:
        writer = csv.writer(opened)
        writer.writerow(["width", "height", "y"])
        for i in range(120):
            row = rng.normal([i % 12, -(i % 12)], 0.1)
            writer.writerow([*row.round(3), f"kind {i % 12}"])
    for c in range(12):
        (root / "images" / f"sign {c}").mkdir(parents=True)
        base = rng.integers(0, 255, (12, 12, 3))
        for i in range(4):
            pixels = (base + rng.integers(-9, 9, base.shape)).clip(0, 255)
            image = Image.fromarray(pixels.astype(np.uint8)).resize((24, 24))
            image.save(root / "images" / f"sign {c}" / f"{i}.png")
    small = "--ways 2 --shots 1 --queries 1 --seed 1 --steps 2"
    lines = {
        "rows": f"train protonet arrays {small} --file {root}/table.csv",
        "images": f"train maml folder {small} --root {root}/images --size 24",
    }
    for name, line in lines.items():
        assert main([*line.split(), "--out", str(root / name)]) == 0
    return {name: root / name for name in lines}


def test_runs_of_rows_and_of_learners_with_fixed_ways(
    more_runs: dict[str, Path], serve: Callable[..., Page], hand: Hand, tmp_path: Path
) -> None:
    page = serve(more_runs["rows"], more_runs["images"])
    found = {m["name"]: m for m in page.do("GET", "/api/models")["models"]}
    assert found["run:1"]["kind"] == "row"
    assert found["run:1"]["columns"] == ["width", "height"]
    assert found["run:2"]["kind"] == "image"

    path, classes = page.project("run:1", "low", "high")
    page.post(classes[0], {"rows": [[0.1, 0], [0, 0.1]]})
    page.post(classes[1], {"rows": [[9, -9], [9.1, -9]]})
    page.post(classes[1], {"rows": [[9, -9, 1]]}, 422)
    answer = page.post(f"{path}/ask", {"row": [9, -9.2]})
    assert chosen(answer)[0] == "high"
    assert page.client.get(f"{path}/file").status_code == 200
    folder = Path(page.do("GET", path)["folder"])
    assert FewShotClassifier.load(folder).predict([[9, -9.0]]).tolist() == ["high"]
    (tmp_path / "q.csv").write_text("width,height\n9,-9\n0,0\n")
    line = ["adapt", str(more_runs["rows"]), "--query", str(tmp_path / "q.csv")]
    line += [
        "--support",
        str(folder / "examples.csv"),
        "--out",
        str(tmp_path / "l.csv"),
    ]
    assert main(line) == 0
    assert "high" in (tmp_path / "l.csv").read_text().splitlines()[1]

    images, adding = page.project("run:2", "a", "b", "c")
    for i, color in enumerate(("red", "blue")):
        picture = io.BytesIO()
        Image.new("RGB", (30, 30), color).save(picture, "PNG")
        page.do("POST", adding[i], files=files_of(("a.png", picture.getvalue())))
    answer = page.post(f"{images}/ask", {"drawing": hand.circle()})
    assert len(answer["classes"]) == 3
    assert answer["classes"][2]["probability"] == 0
    page.do("POST", adding[2], files=files_of(("a.png", picture.getvalue())))
    error = page.post(f"{images}/ask", {"drawing": hand.circle()}, 422)["error"]
    assert "2 classes" in error["message"]


def test_a_project_finds_its_run_under_another_name(
    more_runs: dict[str, Path], serve: Callable[..., Page]
) -> None:
    page = serve(more_runs["rows"], more_runs["images"])
    path, classes = page.project("run:1", "low", "high")
    page.post(classes[0], {"rows": [[0.1, 0], [0, 0.1]]})
    turned = serve(more_runs["images"], more_runs["rows"])
    assert turned.do("GET", path)["model"] == "run:2"
    without = serve(more_runs["images"])
    assert without.do("GET", path, 409)["error"]["code"] == "model"


def test_photographs_are_told_apart(few_encoders: None, page: Page) -> None:
    try:
        encoded_reader("efficientnet")
    except MissingPackageError as error:
        pytest.skip(str(error))
    path, classes = page.project("photographs", "red", "blue")
    rng = np.random.default_rng(0)

    def photo(color: tuple[int, int, int]) -> bytes:
        pixels = (rng.normal(color, 20, (300, 200, 3))).clip(0, 255)
        memory = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(memory, "JPEG")
        return memory.getvalue()

    for adding, color in zip(classes, ((200, 30, 30), (30, 30, 200)), strict=True):
        sent = files_of(*((f"{i}.jpg", photo(color)) for i in range(2)))
        assert page.do("POST", adding, files=sent)["refused"] == []
    query = {"file": ("q.jpg", photo((30, 30, 200)))}
    assert chosen(page.do("POST", f"{path}/ask", files=query))[0] == "blue"
