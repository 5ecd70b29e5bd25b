"""What the live pictures of the last chapters compute."""

import base64
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import validate
from torch import nn

pytest.importorskip("starlette")

from starlette.testclient import TestClient

from innerloop.web.app import Settings, create_app
from innerloop.web.tour import PIECES, evolution, optimizer
from innerloop.web.tour.piece import READY, ready

RUNS = ("memory", "optimizer", "imagine")
SCHEMAS = {piece.name: piece.result for piece in PIECES}
TEXTS = Path(evolution.__file__).parents[1] / "static" / "text"
BITS = ["10110", "01001", "11010", "00111", "10001", "01110"]
RATES = {"adam": 0.5, "sgd": 0.05}
LINE = [[[0.2, 0.2], [0.8, 0.8]]]
RING = [[[0.5 + 0.3 * math.cos(a / 4), 0.5 + 0.3 * math.sin(a / 4)] for a in range(26)]]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("projects")
    settings = Settings(token="", projects=folder, rate=1e6)
    with TestClient(create_app(settings), f"http://127.0.0.1:{settings.port}") as it:
        yield it


def ask(client: TestClient, name: str, **body: Any) -> Any:
    response = client.post(f"/api/tour/{name}", json=body)
    assert response.status_code == 200, response.text
    validate(response.json(), SCHEMAS[name])
    return response.json()


def events(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    response = client.post("/api/tour/evolution", json=body)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    found = [json.loads(line[6:]) for line in response.text.splitlines() if line]
    for each in found:
        validate(each, SCHEMAS["evolution"])
    return found


def vectors(texts: list[str]) -> list[list[int]]:
    return [[int(bit) for bit in text] for text in texts]


@pytest.mark.parametrize("texts", [BITS[:1], BITS, BITS + BITS[:3]])
def test_memory_copies_sequences_also_longer_than_in_training(
    client: TestClient, texts: list[str]
) -> None:
    bits = vectors(texts)
    found = ask(client, "memory", bits=bits)
    copied = [[int(p > 0.5) for p in vector] for vector in found["answer"]]
    assert copied == bits
    assert found["correct"] == found["of"] == 5 * len(bits)


def test_memory_is_written_and_then_read_in_order(client: TestClient) -> None:
    n = len(BITS)
    found = ask(client, "memory", bits=vectors(BITS))

    def slots(weights: list[list[float]]) -> list[int]:
        return [max(range(len(row)), key=row.__getitem__) for row in weights]

    steps = (len(found[part]) for part in ("memory", "write", "read"))
    assert set(steps) == {2 * n + 1}
    for row in found["write"] + found["read"]:
        assert sum(row) == pytest.approx(1, abs=1e-2)
    written = slots(found["write"][:n])
    assert len(set(written)) == n
    assert slots(found["read"][n + 1 :])[:1] != slots(found["read"][n + 2 :])[:1]


def test_every_optimizer_lowers_the_loss_and_paths_start_where_one_clicked(
    client: TestClient,
) -> None:
    body = {"function": "quadratic", "seed": 1, "start": [-1.5, 1.4], "rates": RATES}
    found = ask(client, "optimizer", **body)
    assert [path["name"] for path in found["paths"]] == ["learned", "adam", "sgd"]
    for path in found["paths"]:
        assert path["points"][0] == pytest.approx([-1.5, 1.4])
        assert len(path["values"]) == optimizer.STEPS + 1
        assert path["values"][-1] < 0.05 * path["values"][0]
    assert sum(found["wins"].values()) == optimizer.GAMES
    assert found["wins"]["learned"] > 30


def test_heights_of_a_landscape_fit_its_paths(client: TestClient) -> None:
    corner = [-optimizer.REACH, optimizer.REACH]  # the first of the heights
    for function in ("quadratic", "rosenbrock"):
        body = {"function": function, "seed": 4, "start": corner, "rates": RATES}
        found = ask(client, "optimizer", **body)
        assert found["heights"][0] == pytest.approx(
            found["paths"][0]["values"][0], rel=1e-4
        )
        assert min(found["heights"]) >= 0


def test_gradient_descent_that_diverges_is_a_large_number(client: TestClient) -> None:
    rates = {"adam": 0.5, "sgd": 10}
    body = {"function": "rosenbrock", "seed": 0, "start": [2, 2], "rates": rates}
    found = ask(client, "optimizer", **body)
    assert max(found["paths"][2]["values"]) == 1e6


def test_a_program_fills_the_other_rows(client: TestClient) -> None:
    rows = [
        ("Ada Lovelace", "Lovelace, A."),
        ("Grace Hopper", "Hopper, G."),
        ("Alan Turing", ""),
        ("", ""),
    ]
    found = ask(client, "program", rows=[{"input": a, "output": b} for a, b in rows])
    texts = [row["parts"] and "".join(row["parts"]) for row in found["rows"]]
    assert texts == ["Lovelace, A.", "Hopper, G.", "Turing, A.", None]
    assert [len(row["parts"] or found["parts"]) for row in found["rows"]] == (
        [len(found["parts"])] * 4
    )
    assert found["rows"][2]["agreement"] > 0.5
    assert int(found["fits"]) > 1000


def test_disagreeing_programs_put_a_row_in_doubt(client: TestClient) -> None:
    rows = [
        ("Ada Lovelace", "Lovelace, A."),
        ("Alan Turing", "Turing, A."),
        ("Grace Hopper", ""),
    ]
    found = ask(client, "program", rows=[{"input": a, "output": b} for a, b in rows])
    assert found["rows"][0]["agreement"] == pytest.approx(1)
    assert found["rows"][2]["agreement"] < 0.5


@pytest.mark.parametrize(
    "rows", [[("a", "")], [("a", "b"), ("a", "c")]], ids=["none", "contradiction"]
)
def test_a_table_without_a_program_is_no_error(
    client: TestClient, rows: list[tuple[str, str]]
) -> None:
    found = ask(client, "program", rows=[{"input": a, "output": b} for a, b in rows])
    assert found["program"] is None
    assert [row["parts"] for row in found["rows"]] == [None] * len(rows)


def pixels(text: str) -> bytes:
    return base64.b64decode(text)


def test_variations_differ_and_follow_the_drawing_and_the_seed(
    client: TestClient,
) -> None:
    def images(drawing: list[list[list[float]]], seed: int) -> list[bytes]:
        found = ask(client, "imagine", drawings=[{"strokes": drawing}], seed=seed)
        assert [len(pixels(image)) for image in found["images"]] == [28 * 28] * 16
        assert len(found["read"]) == 1
        return [pixels(image) for image in found["images"]]

    line, again, other, ring = (
        images(*each) for each in ((LINE, 1), (LINE, 1), (LINE, 2), (RING, 1))
    )
    assert line == again
    assert line != other
    assert len(set(line)) == 16

    def mean(some: list[bytes], rows: range, columns: range) -> float:
        return sum(
            image[28 * i + j] for image in some for i in rows for j in columns
        ) / (len(some) * len(rows) * len(columns))

    corner, middle = range(3, 9), range(11, 17)
    # a falling line has ink at the upper left, not at the upper right
    assert mean(line, corner, corner) > 1.5 * mean(line, corner, range(19, 25))
    # a ring is empty in the middle, where the line is not
    assert mean(ring, middle, middle) < 0.8 * mean(line, middle, middle)


def test_exclusive_or_evolves(client: TestClient) -> None:
    found = events(client, seed=5, add=0.2, generations=evolution.GENERATIONS)
    assert [each["generation"] for each in found] == list(range(1, 61))
    first, last = found[0], found[-1]
    assert first["fitness"] < 0.7
    assert last["fitness"] > 0.9
    assert last["right"] == 4
    assert [round(p) for p in last["corners"]] == [0, 1, 1, 0]
    hidden = [node for node in last["nodes"] if node["kind"] == "hidden"]
    assert hidden
    known = {node["id"] for node in last["nodes"]}
    assert known >= {edge[end] for edge in last["edges"] for end in ("from", "to")}
    assert len(last["square"]) == evolution.CELLS**2


def test_evolution_follows_its_seed_and_needs_structure(client: TestClient) -> None:
    one, again, other = (
        events(client, seed=s, add=0, generations=8) for s in (1, 1, 2)
    )
    assert one == again
    assert one != other
    assert not any(n["kind"] == "hidden" for each in one for n in each["nodes"])
    assert one[-1]["right"] < 4


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("memory", {"bits": []}),
        ("memory", {"bits": [[1, 0]]}),
        ("memory", {"bits": [[2, 0, 0, 0, 0]]}),
        ("memory", {"bits": [[0] * 5] * 11}),
        ("optimizer", {"function": "x", "seed": 0, "start": [0, 0], "rates": RATES}),
        (
            "optimizer",
            {"function": "quadratic", "seed": 0, "start": [9, 0], "rates": RATES},
        ),
        ("program", {"rows": []}),
        ("program", {"rows": [{"input": "a" * 81, "output": "b"}]}),
        ("imagine", {"drawings": [], "seed": 0}),
        ("imagine", {"drawings": [{"strokes": [[]]}], "seed": 0}),
        ("imagine", {"drawings": [{"strokes": LINE}] * 4, "seed": 0}),
        ("evolution", {"seed": 0, "add": 0.2, "generations": 61}),
        ("evolution", {"seed": -1, "add": 0.2, "generations": 1}),
    ],
)
def test_what_does_not_fit_is_refused(
    client: TestClient, name: str, body: dict[str, Any]
) -> None:
    response = client.post(f"/api/tour/{name}", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "invalid"


@pytest.mark.parametrize("run", RUNS)
def test_ready_runs_are_small_and_know_no_machine(run: str) -> None:
    files = {file.name: file for file in (READY / run).iterdir()}
    assert set(files) == {"experiment.json", "weights.safetensors"}
    assert sum(file.stat().st_size for file in files.values()) < 400_000
    assert '"/' not in files["experiment.json"].read_text(encoding="utf-8")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_chapters_have_their_texts(language: str) -> None:
    words = json.loads((TEXTS / f"{language}.json").read_text(encoding="utf-8"))
    for name in ("memory", "optimizer", "program", "imagine", "evolution"):
        for key in ("title", "p1", "p2", "p3", "equation"):
            assert words["tour"][name][key].strip()


def test_nothing_is_recorded_while_the_page_computes(client: TestClient) -> None:
    """Threads that record gradients of the same weights can block each other."""
    recorded: list[bool] = []
    hooks = [
        module.register_forward_pre_hook(
            lambda *_: recorded.append(torch.is_grad_enabled())
        )
        for module in ready("memory").modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        ask(client, "memory", bits=vectors(BITS[:1]))
    finally:
        for hook in hooks:
            hook.remove()
    assert recorded
    assert not any(recorded)
