"""What the live pictures of the first chapters compute."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import validate
from numpy.typing import NDArray

pytest.importorskip("starlette")

from starlette.testclient import TestClient

from innerloop.tasks.gp_curves import LENGTH, NOISE
from innerloop.web import app
from innerloop.web.app import Settings, create_app
from innerloop.web.tour import PIECES, piece
from innerloop.web.tour.piece import READY

Ask = Callable[..., dict[str, Any]]
CHAPTERS = ("prototypes", "sinusoid", "process", "bandit")
RUNS = ("sinusoid", "process", "bandit-2", "bandit-5")
CORNERS = [
    {"x": x, "y": y, "label": label}
    for label, places in enumerate(
        [
            [(-1.0, 0.5), (-0.7, 0.7), (-0.9, 0.0)],
            [(0.7, 0.7), (1.1, 0.4)],
            [(0.0, -0.4), (0.3, -0.7), (0.1, -0.2)],
        ]
    )
    for x, y in places
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("projects")
    settings = Settings(token="", projects=folder, rate=1e6)
    with TestClient(create_app(settings), f"http://127.0.0.1:{settings.port}") as it:
        yield it


@pytest.fixture
def ask(client: TestClient) -> Ask:
    schemas = {piece.name: piece.result for piece in PIECES}

    def ask(name: str, **body: Any) -> dict[str, Any]:
        response = client.post(f"/api/tour/{name}", json=body)
        assert response.status_code == 200, response.text
        validate(response.json(), schemas[name])
        return response.json()

    return ask


def refused(client: TestClient, name: str, **body: Any) -> str:
    response = client.post(f"/api/tour/{name}", json=body)
    assert response.status_code == 422
    return response.json()["error"]["message"]


# ------------------------------------------------------------------ prototypes


def plane(answer: dict[str, Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The points of the grid (n, 2), and the class at each."""
    x = np.linspace(-1.5, 1.5, answer["columns"])
    y = np.linspace(-1, 1, answer["rows"])
    points = np.stack([part.ravel() for part in np.meshgrid(x, y)], 1)
    return points, np.array(answer["outputs"]).argmax(0)


def test_a_region_is_nearest_to_its_mean(ask: Ask):
    answer = ask("prototypes", points=CORNERS, head="mean")
    points, classes = plane(answer)
    means = [
        np.mean([[p["x"], p["y"]] for p in CORNERS if p["label"] == label], 0)
        for label in range(3)
    ]
    np.testing.assert_allclose(answer["means"], means, atol=1e-3)
    distances = np.square(points[:, None] - means).sum(-1)
    near, far = np.sort(distances)[:, :2].T
    clear = far - near > 1e-3
    np.testing.assert_array_equal(classes[clear], distances.argmin(1)[clear])
    assert clear.mean() > 0.95


@pytest.mark.parametrize("head", ["mean", "ridge", "mahalanobis"])
def test_every_classifier_fits_classes_that_lie_apart(ask: Ask, head: str):
    points, classes = plane(ask("prototypes", points=CORNERS, head=head))
    for point in CORNERS:
        place = np.square(points - [point["x"], point["y"]]).sum(1).argmin()
        assert classes[place] == point["label"]


def test_the_classifiers_differ(ask: Ask):
    found = [
        plane(ask("prototypes", points=CORNERS, head=head))[1]
        for head in ("mean", "ridge", "mahalanobis")
    ]
    assert all((found[0] != other).mean() > 0.01 for other in found[1:])


def test_a_region_moves_with_an_example(ask: Ask):
    before = plane(ask("prototypes", points=CORNERS, head="mean"))[1]
    moved = [{**CORNERS[0], "x": 1.4, "y": -0.9}, *CORNERS[1:]]
    after = plane(ask("prototypes", points=moved, head="mean"))[1]
    assert (before != after).mean() > 0.03


@pytest.mark.parametrize("head", ["mean", "ridge", "mahalanobis"])
def test_examples_in_one_place_are_no_failure(ask: Ask, head: str):
    same = [{"x": 0.0, "y": 0.0, "label": label} for label in (0, 1, 2)]
    answer = ask("prototypes", points=same, head=head)
    assert np.isfinite(answer["outputs"]).all()


def test_a_class_without_example_is_refused(client: TestClient):
    message = refused(client, "prototypes", points=CORNERS[:5], head="mean")
    assert "each of the 3 classes" in message


# ------------------------------------------------------------------ sinusoid


def test_maml_fits_sinusoids_that_a_network_from_scratch_does_not(ask: Ask):
    after, scratch, away, scratch_away = [], [], [], []
    for seed in range(12):
        answer = ask("sinusoid", points=[], draw=seed)
        after.append(answer["maml"]["errors"][5])
        scratch.append(answer["scratch"]["errors"][5])
        x, y = np.array([[p["x"], p["y"]] for p in answer["truth"]]).T
        for name, found in (("maml", away), ("scratch", scratch_away)):
            curve = np.interp(x, answer["x"], answer[name]["curves"][10])
            found.append(np.square(curve - y).mean())
    assert np.median(after) < 0.1 < 1 < np.median(scratch)
    assert np.mean(away) < np.mean(scratch_away) / 5


def test_the_errors_are_those_of_the_curves(ask: Ask):
    points = [{"x": x, "y": y} for x, y in ((-4.0, 1.0), (-1.0, -2.0), (2.5, 0.5))]
    answer = ask("sinusoid", points=points)
    x, y = np.array([[p["x"], p["y"]] for p in points]).T
    for name in ("maml", "scratch"):
        fitted = answer[name]
        assert len(fitted["curves"]) == len(fitted["errors"]) == 11
        for curve, error in zip(fitted["curves"], fitted["errors"], strict=True):
            at = np.interp(x, answer["x"], curve)
            assert error == pytest.approx(np.square(at - y).mean(), rel=0.05, abs=0.01)
    assert answer["maml"]["errors"][5] < answer["scratch"]["errors"][5]


def test_points_of_a_drawn_sinusoid_lie_on_it(ask: Ask):
    answer = ask("sinusoid", points=[], draw=3)
    x, y = np.array([[p["x"], p["y"]] for p in answer["truth"]]).T
    design = np.stack([np.sin(x), np.cos(x)], 1)
    weights, *_ = np.linalg.lstsq(design, y, rcond=None)
    for point in answer["points"]:
        wave = weights @ [np.sin(point["x"]), np.cos(point["x"])]
        assert point["y"] == pytest.approx(wave, abs=1e-3)


def test_without_points_there_is_only_the_initialization(ask: Ask):
    answer = ask("sinusoid", points=[])
    assert answer["points"] == answer["truth"] == answer["maml"]["errors"] == []
    drawn = ask("sinusoid", points=[], draw=1)
    assert answer["maml"]["curves"] == drawn["maml"]["curves"][:1]


@pytest.mark.parametrize("name", ["sinusoid", "process"])
def test_points_may_be_whole_numbers(ask: Ask, name: str):
    whole = ask(name, points=[{"x": 1, "y": 2}, {"x": -1, "y": 0}])
    real = ask(name, points=[{"x": 1.0, "y": 2.0}, {"x": -1.0, "y": 0.0}])
    assert whole == real


def test_too_many_points_are_refused(client: TestClient):
    refused(client, "sinusoid", points=[{"x": 0.0, "y": 0.0}] * 11)


# ------------------------------------------------------------------ process

SEEN = [(-1.5, 0.4), (-0.2, -1.0), (0.1, -0.6), (1.3, 1.2)]
PLACED = [{"x": x, "y": y} for x, y in SEEN]


def exact(
    x: NDArray[Any], seen: list[tuple[float, float]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The posterior of a Gaussian process with a squared exponential kernel."""
    a, y = np.array(seen).T

    def k(p: NDArray[Any], q: NDArray[Any]) -> NDArray[Any]:
        return np.exp(-np.square(p[:, None] - q) / (2 * LENGTH**2))

    inverse = np.linalg.inv(k(a, a) + NOISE**2 * np.eye(len(a)))
    across = k(x, a)
    variance = 1 + NOISE**2 - np.einsum("ij,jk,ik->i", across, inverse, across)
    return across @ inverse @ y, np.sqrt(variance)


def test_the_exact_band_is_that_of_the_textbook(ask: Ask):
    answer = ask("process", points=PLACED)
    mean, deviation = exact(np.array(answer["x"]), SEEN)
    np.testing.assert_allclose(answer["exact"]["mean"], mean, atol=2e-4)
    np.testing.assert_allclose(answer["exact"]["deviation"], deviation, atol=2e-4)


def test_without_points_the_posterior_is_the_prior(ask: Ask):
    answer = ask("process", points=[])
    assert answer["learned"] is answer["gap"] is None
    np.testing.assert_allclose(answer["exact"]["mean"], 0, atol=1e-6)
    deviation = np.sqrt(1 + NOISE**2)
    np.testing.assert_allclose(answer["exact"]["deviation"], deviation, atol=1e-3)


def test_the_neural_process_is_near_the_posterior(ask: Ask):
    gaps, prior = [], []
    for seed in range(20):
        answer = ask("process", points=[], draw=seed)
        (mean, sd), width = answer["exact"].values(), np.sqrt(1 + NOISE**2)
        mean, sd = np.array(mean), np.array(sd)
        learned = answer["learned"]
        m, s = np.array(learned["mean"]), np.array(learned["deviation"])

        def gap(
            m: Any, s: Any, mean: NDArray[Any] = mean, sd: NDArray[Any] = sd
        ) -> float:
            parts = np.log(s / sd) + (sd**2 + (mean - m) ** 2) / (2 * s**2) - 0.5
            return float(parts.mean())

        assert answer["gap"] == pytest.approx(gap(m, s), abs=1e-2)
        gaps.append(answer["gap"])
        prior.append(gap(0.0, width))
    assert np.mean(gaps) < 0.5 * np.mean(prior)


def test_the_neural_process_is_surer_at_points(ask: Ask):
    answer = ask("process", points=PLACED)
    x, deviation = np.array(answer["x"]), np.array(answer["learned"]["deviation"])
    at = np.interp([p["x"] for p in PLACED], x, deviation)
    assert at.mean() < 0.7 * deviation[np.abs(x - 0.7).argmin()]


# ------------------------------------------------------------------ bandit


@pytest.mark.parametrize("arms", [2, 5])
def test_nothing_is_known_of_the_arms_before_the_end(ask: Ask, arms: int):
    answer = ask("bandit", seed=4, arms=arms, actions=[0] * 19)
    assert answer["means"] is None
    assert all(player["actions"] is None for player in answer["players"])
    assert all(len(player["rewards"]) == 19 for player in answer["players"])
    over = ask("bandit", seed=4, arms=arms, actions=[0] * 20)
    assert len(over["means"]) == arms
    assert over["rewards"][:19] == answer["rewards"]


@pytest.mark.parametrize("arms", [2, 5])
def test_who_pulls_like_another_player_wins_the_same(ask: Ask, arms: int):
    over = ask("bandit", seed=11, arms=arms, actions=[0] * 20)
    for player in over["players"]:
        like = ask("bandit", seed=11, arms=arms, actions=player["actions"])
        assert like["rewards"] == player["rewards"]


def test_the_arms_pay_as_often_as_is_said(ask: Ask):
    said, paid = [], []
    for seed in range(25):
        for arm in (0, 1):
            over = ask("bandit", seed=seed, arms=2, actions=[arm] * 20)
            said.append(over["means"][arm])
            paid.append(np.mean(over["rewards"]))
    assert np.mean(paid) == pytest.approx(np.mean(said), abs=0.04)
    assert np.corrcoef(said, paid)[0, 1] > 0.9


@pytest.mark.parametrize("arms", [2, 5])
def test_the_players_are_better_than_chance(ask: Ask, arms: int):
    answer = ask("bandit", seed=0, arms=arms, actions=[])
    usual = {player["name"]: player["average"] for player in answer["players"]}
    assert answer["best"] == pytest.approx(20 * arms / (arms + 1), rel=0.03)
    assert all(11 < value < answer["best"] for value in usual.values())
    assert usual["gittins"] > usual["thompson"] - 0.1
    assert usual["rl2"] > 0.93 * usual["gittins"]


def test_an_arm_that_does_not_exist_is_refused(client: TestClient):
    assert "2 arms" in refused(client, "bandit", seed=0, arms=2, actions=[2])


# ------------------------------------------------------------------ what ships


@pytest.mark.parametrize("run", RUNS)
def test_a_ready_run_is_small_and_says_nothing_of_the_machine(run: str):
    files = {path.name: path for path in (READY / run).iterdir()}
    assert set(files) == {"experiment.json", "weights.safetensors"}
    assert files["weights.safetensors"].stat().st_size < 400_000
    text = files["experiment.json"].read_text("utf-8")
    assert not re.search(r'"[^"]*(?:[/\\])[^"]*"', text)
    assert f"web/ready/{run}" in (READY / "README.md").read_text("utf-8")


def test_a_missing_run_says_so_without_a_path(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(piece, "READY", tmp_path)
    piece.ready.cache_clear()
    message = refused(client, "process", points=PLACED)
    assert "install innerloop again" in message
    assert str(tmp_path) not in message


def flat(words: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(words, str):
        return {prefix: words}
    parts = (flat(value, f"{prefix}.{name}") for name, value in words.items())
    return {name: text for part in parts for name, text in part.items()}


def test_both_languages_have_all_texts():
    english, chinese = (
        flat(json.loads((app.STATIC / f"text/{name}.json").read_text("utf-8"))["tour"])
        for name in ("en", "zh")
    )
    assert set(english) == set(chinese)
    for name, text in english.items():
        if not name.endswith("equation"):
            named = [set(re.findall(r"\{\w+\}", t)) for t in (text, chinese[name])]
            assert named[0] == named[1], name
    for chapter in CHAPTERS:
        for part in ("title", "p1", "p2", "p3", "equation"):
            assert english[f".{chapter}.{part}"]


def test_every_text_that_a_picture_uses_exists():
    words = flat(json.loads((app.STATIC / "text/en.json").read_text("utf-8"))["tour"])
    folder: Path = app.STATIC / "js/tour"
    for name in (*CHAPTERS, "plot", "placed", "main"):
        code = (folder / f"{name}.js").read_text("utf-8")
        for key in re.findall(r'"tour(\.[\w.]+)"', code):
            assert key in words or any(w.startswith(f"{key}.") for w in words), key
