"""Advice on small data, with encoders that need no package."""

from __future__ import annotations

import csv
import hashlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from innerloop.advice import Advisor, LabeledData, Plan, advise, read_labeled
from innerloop.advice.answer import Advice, Record, best_of, simplest, verdicts
from innerloop.advice.candidates import Candidate, trained_candidates
from innerloop.advice.data import word_weights
from innerloop.advice.diagnosis import diagnose, forecast, probabilities
from innerloop.advice.scoring import (
    Block,
    Draws,
    NearestNeighbor,
    Scores,
    fewer_shots,
    joined,
    measure,
    split,
)
from innerloop.advice.sources import distance, known_sources
from innerloop.cli import main
from innerloop.core.learner import Learner
from innerloop.core.task import Examples
from innerloop.encoders import ENCODERS, PretrainedEncoder
from innerloop.engine.errors import InnerloopError
from innerloop.evaluation.few_shot import meta_test
from innerloop.learners.transfer.probe import Probe
from innerloop.measurements import Estimate, Report
from innerloop.tasks.episodes import ClassBank, Episodes


class FakeTexts(PretrainedEncoder):
    """The sum of random vectors of the words."""

    what = "text"
    features = 24
    package = "pytest"
    extra = "none"
    files = ("pytest/__init__.py",)
    license = ""

    def embed(self, items: Any) -> Tensor:
        return torch.stack([sum(map(self._word, t.split())) for t in items])  # pyright: ignore[reportArgumentType, reportCallIssue]

    def _word(self, word: str) -> Tensor:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self.features, generator=generator)

    def network(self) -> nn.Module:
        return nn.Identity()


class FakeImages(FakeTexts):
    """Small images as vectors."""

    what = "image"
    features = 48

    def embed(self, items: Any) -> Tensor:
        small = nn.functional.interpolate(items.float() / 255, (4, 4), mode="area")
        return small.flatten(1) + 0.01


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tasks and steps, so that all is done long before the time is over."""
    for name, value in {"BLOCKS": 2, "MORE": 3, "STEPS": 30, "TIMED": 1}.items():
        monkeypatch.setattr(f"innerloop.advice.advisor.{name}", value)


@pytest.fixture(autouse=True)
def encoders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(ENCODERS):
        monkeypatch.delitem(ENCODERS, name)
    monkeypatch.setitem(ENCODERS, "fake-texts", FakeTexts)
    monkeypatch.setitem(ENCODERS, "fake-images", FakeImages)
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("INNERLOOP_DATA", str(tmp_path / "no data"))


def vectors(classes: int, count: int, spread: float = 0.5, seed: int = 0) -> ClassBank:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(classes, 1, 12, generator=generator)
    noise = torch.randn(classes, count, 12, generator=generator)
    values = (means + spread * noise).flatten(0, 1)
    names = [f"class {i}" for i in range(classes)]
    return ClassBank.of(values, [count] * classes, names)


def texts(file: Path, classes: int, count: int) -> Path:
    """Texts of three words, of which one or two say the class."""
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label"])
        for c in range(classes):
            for i in range(count):
                words = [f"topic{c}", f"word{(7 * c + i) % 11}", f"other{i}"]
                writer.writerow([" ".join(words), f"intent {c}"])
    return file


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["advise", *map(str, words)])
    found = capsys.readouterr()
    return code, found.out, found.err


# ---------------------------------------------------------------------- scoring


def test_a_measurement_is_that_of_meta_test_on_the_same_tasks() -> None:
    bank = vectors(6, 8)
    data = LabeledData.of(bank)
    learner = Probe.build(bank.spec(4))
    draws = Draws(Episodes(data.index(), 4, 2, 3), 5)
    blocks = {(-1, i): measure(learner, bank.values, draws.block(i)) for i in range(2)}
    generator = torch.Generator().manual_seed(5)
    result = meta_test(learner, Episodes(bank, 4, 2, 3), n=50, generator=generator)
    mean = Scores(blocks).estimate().mean
    assert mean == pytest.approx(result.metrics["accuracy"].mean)
    assert 0.5 < mean < 1


def test_tasks_in_small_parts_are_the_same_tasks() -> None:
    bank = vectors(6, 8)
    drawn = Draws(Episodes(LabeledData.of(bank).index(), 4, 2, 3), 0).block(0)
    learner = NearestNeighbor()
    whole = measure(learner, bank.values, drawn)
    parts = joined([measure(learner, bank.values, t) for t in split(drawn, 10)])
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_fewer_shots_are_the_first_examples_of_each_class() -> None:
    drawn = Draws(Episodes(vectors(5, 9), 3, 4, 2), 0).block(0)
    fewer = fewer_shots(drawn, 2)
    assert fewer.support.y.sum(1).eq(2).all()
    assert torch.equal(fewer.query.x, drawn.query.x)
    first = drawn.support.y[0, :, 1].nonzero()[:2, 0]
    kept = fewer.support.y[0, :, 1].nonzero()[:, 0]
    assert torch.equal(drawn.support.x[0, first], fewer.support.x[0, kept])


def test_nearest_neighbor_predicts_the_class_of_the_nearest() -> None:
    x = torch.tensor([[0.0], [1.0], [5.0]])
    y = torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    learner = NearestNeighbor()
    outputs = learner.predict(learner.adapt(Examples(x, y)), torch.tensor([[4.0], [1]]))
    assert outputs.argmax(1).tolist() == [0, 1]


def test_an_interval_covers_other_items_not_only_other_tasks() -> None:
    """Many tasks from four items say little about other items."""
    right = Block(
        torch.ones(1000).double(), torch.full((4,), 250.0), torch.full((4,), 250.0)
    )
    interval = Scores({(0, 0): right}).estimate().interval
    assert interval is not None
    assert interval > 0.2


def record(name: str, accuracies: list[float], items: int = 200) -> Record:
    """A candidate with these accuracies on single tasks, items alike."""
    found = Record(Candidate(name, "probe"))
    for i, accuracy in enumerate(accuracies):
        right = (torch.arange(items) < accuracy * items).float()
        value = torch.tensor([accuracy], dtype=torch.float64)
        found.add(1, (-1, i), Block(value, right, torch.ones(items)))
    return found


def test_the_simplest_candidate_that_is_tied_is_recommended() -> None:
    noise = torch.rand(100, generator=torch.Generator().manual_seed(0)) * 0.2
    better = (0.7 + noise).tolist()
    records = {
        "bad": record("bad", (0.4 + noise).tolist()),
        "simple": record("simple", (0.698 + noise.flip(0)).tolist()),
        "best": record("best", better),
    }
    assert verdicts(records, 1) == {"bad": "worse", "simple": "tied", "best": "best"}
    found = simplest(records, 1)
    assert found is not None
    assert found.candidate.name == "simple"


def test_few_tasks_do_not_make_the_best() -> None:
    records = {
        "known": record("known", [0.7, 0.9] * 100),
        "lucky": record("lucky", [1.0, 0.8, 1.0]),
    }
    best = best_of(records, 1)
    assert best is not None
    assert best.candidate.name == "known"


@pytest.mark.parametrize(("gain", "expected"), [(0.1, "protonet"), (0.0, "probe")])
def test_training_is_recommended_only_where_it_helps(
    gain: float, expected: str
) -> None:
    noise = torch.rand(100, generator=torch.Generator().manual_seed(0)) * 0.1
    probe = record("probe", (0.7 + noise).tolist())
    trained = record("protonet", (0.7 + gain + noise).tolist())
    trained.candidate = Candidate("protonet", "protonet", trained=True)
    data = LabeledData.of(vectors(12, 4))
    held_out = {"probe": probe, "protonet": trained}
    nothing = Record(probe.candidate)
    advice = Advice(data, 5, {"probe": probe}, held_out, nothing, None, (), ())
    assert advice.recommended(1).name == expected
    assert f"Use {expected}." in str(advice.report())


# ---------------------------------------------------------------------- diagnosis


def test_leave_one_out_probabilities_do_not_see_the_item() -> None:
    bank = vectors(3, 5, 1.5)
    labels = torch.arange(3).repeat_interleave(5)
    z = bank.values.double()
    p = probabilities(z, labels, 3)
    other = z.clone()
    shuffled = labels.clone()
    shuffled[7] = 2  # its own label must not matter for its prediction
    assert p.shape == (15, 3)
    q = probabilities(other, shuffled, 3)
    # with another label it is still predicted to be of its true class
    assert int(q[7].argmax()) == int(p[7].argmax())


def test_a_wrong_label_and_a_copy_are_found_and_named() -> None:
    bank = vectors(4, 12, 0.3)
    values = bank.values.clone()
    values[3] = bank.values[20] + 0.2  # in class 0, like class 1
    values[40] = values[30]  # in class 3, a copy of one in class 2
    data = LabeledData.of(ClassBank.of(values, [12] * 4, list(bank.names)))
    found = diagnose(data)
    doubts = {(d.item, d.other) for d in found.doubts}
    assert (3, 1) in doubts
    assert doubts <= {(3, 1), (40, 2), (30, 3)}
    assert [(c.first, c.second) for c in found.copies] == [(30, 40)]
    assert (found.confusions[0].first, found.confusions[0].second) in {(0, 1), (2, 3)}


def test_a_power_law_is_extrapolated() -> None:
    curve = {k: Estimate(1 - 0.4 * k**-0.5, 0.01) for k in (1, 2, 5, 10)}
    found = forecast(curve, Estimate(0.05, 0.01), 10)
    assert found is not None
    assert found.gain
    assert found.slope == pytest.approx(0.5)
    assert found.doubled == pytest.approx(0.4 * 20**-0.5)


def test_words_that_all_texts_have_weigh_less() -> None:
    rows = word_weights(["the cat", "the dog", "the cat runs"])
    assert rows @ rows.T == pytest.approx((rows @ rows.T).T)
    assert float(rows[0] @ rows[2]) > float(rows[0] @ rows[1])


# ---------------------------------------------------------------------- sources


def test_the_distance_is_smaller_to_data_that_are_more_alike() -> None:
    near, far = vectors(8, 10, seed=0), vectors(8, 10, seed=1)
    again = ClassBank.of(
        near.values + 0.1 * torch.randn(80, 12), [10] * 8, list(near.names)
    )
    assert distance(near, again) < 0.7 * distance(near, far)
    assert distance(near, far) == pytest.approx(distance(far, near), rel=1e-3)


def test_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("downloads")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    data = read_labeled(texts(tmp_path / "a.csv", 3, 4))
    found = list(known_sources(data.bank.reader, 0))
    assert found
    assert all(isinstance(source, str) for source in found)


# ---------------------------------------------------------------------- advice


def test_advice_on_texts_answers_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = texts(tmp_path / "mails.csv", 6, 8)
    page, out = tmp_path / "page.html", tmp_path / "advice.json"
    words = ("--minutes", 30, "--ways", 3, "--shots", 1, 2, "--report", page)
    code, text, error = run(capsys, "--data", file, *words, "--json", out)
    assert (code, error) == (0, "")
    for expected in ("learning curve", "Use ", "innerloop adapt", "nearest neighbor"):
        assert expected in text
    report = Report.from_dict(json.loads(out.read_text()))
    names = [row.labels["candidate"] for row in report.tables[0].rows]
    assert {"probe", "probe, head mean", "nearest neighbor on words"} <= set(names)
    assert report.context["classes"] == 6
    assert report.context["encoder"] == "fake-texts"
    assert "<table>" in page.read_text()


def test_the_commands_that_are_recommended_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = texts(tmp_path / "my mails.csv", 4, 6)
    monkeypatch.chdir(tmp_path)
    data = read_labeled(file)
    for options in ({}, {"head": "ridge"}):
        candidate = Candidate("a", "probe", {"encoder": "fake-texts", **options})
        (tmp_path / "labels.csv").unlink(missing_ok=True)
        for command in candidate.commands(data):
            words = [str(file) if w == "NEW" else w for w in shlex.split(command)]
            assert words[0] == "innerloop"
            assert main(words[1:]) == 0
        assert (tmp_path / "labels.csv").is_file()


def test_trained_candidates_are_tested_on_classes_they_did_not_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bank = vectors(12, 10, 0.8)
    advisor = Advisor(LabeledData.of(bank), Plan(minutes=30, ways=3, shots=(1,)))
    trained_on: dict[str, list[set[str]]] = {}

    def instead(
        candidate: Candidate, classes: ClassBank, seconds: float, seed: int
    ) -> Iterator[Learner]:
        trained_on.setdefault(candidate.name, []).append(set(classes.names))
        yield Probe.build(bank.spec(2))

    monkeypatch.setattr(advisor, "_trained", instead)
    assert len(list(advisor._train())) > 0
    assert len(trained_on) == 2
    for name, parts in trained_on.items():
        blocks = advisor.held_out[name].blocks[1]
        assert blocks.keys() <= advisor.held_out["probe"].blocks[1].keys()  # paired
        tested: set[str] = set()
        for (fold, _), block in blocks.items():
            places = (block.seen.view(12, 10).sum(1) > 0).nonzero()[:, 0].tolist()
            names = {bank.names[i] for i in places}
            assert names.isdisjoint(parts[fold])
            tested |= names
        assert tested == set(bank.names)  # each class is held out once


def test_a_training_has_the_steps_that_there_is_time_for() -> None:
    bank = vectors(12, 10, 0.8)
    advisor = Advisor(LabeledData.of(bank), Plan(minutes=30, ways=3, shots=(1,)))
    candidate = trained_candidates(advisor.data)[0]
    *steps, learner = advisor._trained(candidate, bank, 1e6, 0)
    assert len(steps) == 30
    assert isinstance(learner, Learner)
    assert list(advisor._trained(candidate, bank, 1e-6, 0)) == [None]


def test_equal_seeds_have_equal_answers() -> None:
    bank = vectors(5, 6, 1.0)
    plan = Plan(minutes=0.5, ways=3, shots=(1,), seed=3)
    found = []
    for _ in range(2):
        advisor = Advisor(LabeledData.of(bank), plan)
        for _ in zip(range(12), advisor.run(), strict=False):
            pass
        found.append(advisor.advice().report())
    assert found[0] == found[1]


def test_an_interrupted_advice_answers_with_what_is_known() -> None:
    advisor = Advisor(LabeledData.of(vectors(5, 6)), Plan(ways=3, shots=(1,)))
    assert "guess" in str(advisor.advice().report())
    events = advisor.run()
    next(events)
    assert "Use probe" in str(advisor.advice().report())


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([2, 2], "2 ways instead of 5"),
        ([1, 1, 1], "cannot be measured"),
        ([1, 30], "cannot be measured"),
        ([2, 40, 3], "2 to 40 examples"),
    ],
)
def test_few_data_have_an_honest_answer(sizes: list[int], expected: str) -> None:
    values = torch.randn(sum(sizes), 12, generator=torch.Generator().manual_seed(0))
    bank = ClassBank.of(values, sizes, [f"c{i}" for i in range(len(sizes))])
    text = str(advise(bank, minutes=30).report())
    assert expected in text
    assert "Use probe" in text


def test_one_class_is_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, "--data", texts(tmp_path / "a.csv", 1, 5))
    assert code == 2
    assert len(error.splitlines()) == 1
    assert "two classes" in error


@pytest.mark.parametrize(
    "words",
    [("--ways", 1), ("--shots", 0), ("--minutes", 0), ("--encoder", "nothing")],
)
def test_bad_options_are_errors_in_one_line(
    words: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = texts(tmp_path / "a.csv", 3, 5)
    code, _, error = run(capsys, "--data", file, *words)
    assert code == 2
    assert len(error.splitlines()) == 1


def test_images_without_vectors_are_refused() -> None:
    bank = ClassBank.of(torch.zeros(4, 3, 8, 8), [2, 2], ["a", "b"])
    with pytest.raises(InnerloopError, match="vectors"):
        LabeledData.of(bank)


def test_advice_on_images_shows_pictures(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for c in range(3):
        folder = tmp_path / "signs" / f"sign {c}"
        folder.mkdir(parents=True)
        base = torch.randint(40, 215, (12, 12, 3), generator=generator)
        for i in range(5):
            noise = torch.randint(-40, 40, (12, 12, 3), generator=generator)
            pixels = (base * (i > 0) + noise).clamp(0, 255).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    data = read_labeled(tmp_path / "signs")
    assert data.raw is not None
    assert data.raw.values.shape == (15, 3, 32, 32)
    advice = advise(data, minutes=30, shots=[1])
    assert "nearest neighbor on pixels" in str(advice.report())
    if advice.diagnosis is not None and advice.diagnosis.confusions:
        assert "data:image/jpeg" in advice.page()


def test_advice_on_rows_has_no_encoder(tmp_path: Path) -> None:
    file = tmp_path / "flowers.csv"
    bank = vectors(4, 8)
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow([*(f"x{i}" for i in range(12)), "class"])
        for row, c in zip(bank.values.tolist(), range(32), strict=True):
            writer.writerow([*row, f"kind {c // 8}"])
    data = read_labeled(file)
    assert data.encoder is None
    assert data.raw is None
    advice = advise(data, minutes=30, shots=[1])
    (command,) = Candidate("probe", "probe").commands(data)
    assert "--label-column class" in command
    assert "--encoder" not in command
    assert "nearest neighbor" in str(advice.report())
