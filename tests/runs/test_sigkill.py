"""A process that is killed at any moment loses nothing: it resumes bit for bit."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from innerloop.registry import entries
from innerloop.runs import Run
from tests.cli.test_train import EVERY_META_GRADIENT
from tests.runs.killing import Command, Helper, Outcome, helper

TRAIN = (
    "train protonet arrays --ways 3 --shots 1 --queries 2 --seed 3 --steps 6 "
    "--lr 0.3 --no-decay"
)
TEST = "--tasks 10 --ways 3 --shots 1 --queries 2"
# steps 1, 2, 4 and 6 are validated; the weights of step 4 are kept
VALIDATED = {"innerloop.training.VALIDATIONS": 3}
# and all are saved
EVERY_STEP = {**VALIDATED, "innerloop.training.SAVE_EVERY": -1.0}


class Bench(NamedTuple):
    """A folder with data, and a helper process for whole runs and for killed ones."""

    folder: Path
    whole: Helper
    killed: Helper

    @property
    def train(self) -> list[str]:
        return [*TRAIN.split(), "--file", str(self.folder / "rows.csv")]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("killed")
    rng, lines = np.random.default_rng(0), ["a,b,c,d,y"]
    for label in range(40):
        center = rng.normal(size=4)
        for row in center + 0.7 * rng.normal(size=(8, 4)):
            lines.append(",".join(f"{value:.3f}" for value in row) + f",class {label}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    with helper(1) as whole, helper(2) as killed:
        bench = Bench(folder, whole, killed)
        for run in (whole, killed):  # what is imported when it is used is imported here
            words = ["--out", str(folder / f"{id(run)}")]
            finish(run(Command([*bench.train, *words], str(folder), fork=False)))
        yield bench


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one dict; tensors as type, shape and bytes."""
    if isinstance(value, torch.Tensor):
        content = value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return {name: (str(value.dtype), tuple(value.shape), content)}
    if isinstance(value, dict):
        value = {str(key): inner for key, inner in value.items()}
    elif isinstance(value, list | tuple):
        value = {str(index): inner for index, inner in enumerate(value)}
    else:
        return {name: value}
    return {
        key: found
        for part, inner in value.items()
        if part != "seconds"
        for key, found in flat(inner, f"{name}.{part}").items()
    }


def without_seconds(report: dict[str, Any]) -> dict[str, Any]:
    for table in report["tables"]:
        for row in table["rows"]:
            row["values"] = [v for v in row["values"] if v["name"] != "seconds"]
    return report


def contents(folder: Path) -> dict[str, Any]:
    """All that a run folder holds, except times."""
    run = Run(folder)
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {
        "files": sorted(str(f.relative_to(folder)) for f in files if f.name != ".lock"),
        "experiment": (folder / "experiment.json").read_bytes(),
        "weights": (folder / "weights.safetensors").read_bytes(),
        "log": [flat(line) for line in run.read_log()],
        "checkpoint": flat(run.load_checkpoint()) if run.has_checkpoint else None,
        "tests": {
            file.name: without_seconds(json.loads(file.read_text()))
            for file in (folder / "tests").glob("*.json")
        },
    }


def command(words: list[str], folder: Path, **options: Any) -> Command:
    """Training into a folder; a run that is there is resumed."""
    resume = ["--resume"] if Run(folder).exists else []
    words = [*words, *resume, "--out", str(folder)]
    return Command(words, str(folder), **options)


def finish(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.output
    return outcome


class Whole(NamedTuple):
    """A run that was never killed."""

    folder: Path
    events: list[str]
    seconds: float


def whole_run(bench: Bench, words: list[str], name: str, **options: Any) -> Whole:
    folder = bench.folder / name
    outcome = finish(bench.whole(command(words, folder, **options)))
    return Whole(folder, outcome.events, outcome.seconds)


def kill_and_resume(bench: Bench, folder: Path, at: int, **options: Any) -> None:
    """Train until just before a file event, and then to the end."""
    outcome = bench.killed(command(bench.train, folder, kill_at=at, **options))
    assert outcome.killed, (at, outcome.output)
    finish(bench.killed(command(bench.train, folder, **options)))


def kill_at_random(
    bench: Bench,
    words: list[str],
    folder: Path,
    whole: Whole,
    kills: int,
    chance: random.Random,
) -> int:
    """Kill a training from outside so many times, and finish it; returns how often a
    kill came before the training had ended.
    """
    count = 0
    for _ in range(kills):
        delay = chance.random() * whole.seconds
        outcome = bench.killed(command(words, folder, delay=delay))
        count += outcome.killed
        assert outcome.killed or outcome.code == 0, outcome.output
    finish(bench.killed(command(words, folder)))
    assert contents(folder) == contents(whole.folder)
    return count


def spread(count: int, points: int) -> list[int]:
    """So many of the numbers 1 to `count`, evenly spread, the last one included."""
    return sorted({round(count * (i + 1) / points) for i in range(points)})


@pytest.fixture(scope="module")
def whole(bench: Bench) -> Whole:
    return whole_run(bench, bench.train, "whole", settings=EVERY_STEP)


# ------------------------------------------------------------------ training


def test_the_training_below_writes_all_that_can_be_interrupted(whole: Whole) -> None:
    counts = Counter(whole.events)
    assert counts["os.rename"] >= 12
    assert counts["write"] >= 24
    assert counts["fsync"] >= 24
    assert counts["open"] >= 36
    log = Run(whole.folder).read_log()
    assert [line["step"] for line in log] == [1, 2, 4, 6]
    trained = Run(whole.folder).load_checkpoint()["learner"]
    kept = Run(whole.folder).load_weights()
    assert any(not torch.equal(kept[name], trained[name]) for name in kept)


def test_a_training_killed_before_some_file_events_resumes_bit_for_bit(
    bench: Bench, whole: Whole
) -> None:
    for at in spread(len(whole.events), 4):
        folder = bench.folder / f"some-{at}"
        kill_and_resume(bench, folder, at, settings=EVERY_STEP)
        assert contents(folder) == contents(whole.folder), f"killed at event {at}"


def test_a_writer_that_is_not_atomic_is_found(bench: Bench) -> None:
    """The tests here can fail: a file that is written in place is lost."""
    options: dict[str, Any] = {"settings": EVERY_STEP, "in_place": True}
    whole = whole_run(bench, bench.train, "in-place", **options)
    half = [at for at, name in enumerate(whole.events, 1) if name == "write"]
    folder = bench.folder / "in-place-killed"
    assert bench.killed(
        command(bench.train, folder, kill_at=half[-1], **options)
    ).killed
    outcome = bench.killed(command(bench.train, folder, **options))
    assert outcome.code == 2
    assert "is damaged" in outcome.output


@pytest.mark.slow
@pytest.mark.parametrize("settings", [EVERY_STEP, VALIDATED], ids=["all", "some"])
def test_a_training_killed_before_any_file_event_resumes_bit_for_bit(
    bench: Bench, settings: dict[str, Any]
) -> None:
    name = f"any-{len(settings)}"
    whole = whole_run(bench, bench.train, name, settings=settings)
    expected = contents(whole.folder)
    for at in range(1, len(whole.events) + 1):
        folder = bench.folder / f"{name}-{at}"
        kill_and_resume(bench, folder, at, settings=settings)
        assert contents(folder) == expected, f"killed at event {at}"
    print(f"{len(whole.events)} kills")


@pytest.mark.slow
def test_a_training_killed_again_while_it_resumes(bench: Bench, whole: Whole) -> None:
    """Before any file event of a resumed training."""
    expected = contents(whole.folder)
    first = len(whole.events) // 2
    for at in range(1, len(whole.events) + 1):
        folder = bench.folder / f"again-{at}"
        options: dict[str, Any] = {"settings": EVERY_STEP}
        assert bench.killed(
            command(bench.train, folder, kill_at=first, **options)
        ).killed
        outcome = bench.killed(command(bench.train, folder, kill_at=at, **options))
        if outcome.killed:
            finish(bench.killed(command(bench.train, folder, **options)))
        assert contents(folder) == expected, f"killed at event {at} of the second part"
        if not outcome.killed:
            break
    else:
        pytest.fail("the resumed training wrote more than a whole one")
    print(f"{at - 1} kills while resuming")


@pytest.mark.slow
def test_126_kills_at_random_moments(bench: Bench) -> None:
    whole = whole_run(bench, bench.train, "random")
    kills = runs = 0
    while kills < 126:
        chance = random.Random(runs)
        folder = bench.folder / f"random-{runs}"
        kills += kill_at_random(
            bench, bench.train, folder, whole, chance.randint(1, 3), chance
        )
        runs += 1
    print(f"{kills} kills in {runs} trainings")


@pytest.mark.slow
@pytest.mark.parametrize("name", entries("meta-gradient"))
def test_every_meta_gradient_resumes_bit_for_bit_after_kills(
    name: str, bench: Bench
) -> None:
    line = f"train {EVERY_META_GRADIENT[name]} --meta-gradient {name} --steps 6"
    whole = whole_run(bench, line.split(), name)
    kills = runs = 0
    while kills < 6:
        folder = bench.folder / f"{name}-{runs}"
        chance = random.Random(100 + runs)
        kills += kill_at_random(bench, line.split(), folder, whole, 3, chance)
        runs += 1
    for runs, at in enumerate(spread(len(whole.events), 4)):
        folder = bench.folder / f"{name}-event-{runs}"
        words = line.split()
        assert bench.killed(command(words, folder, kill_at=at)).killed
        finish(bench.killed(command(words, folder)))
        assert contents(folder) == contents(whole.folder), f"killed at event {at}"


# ------------------------------------------------------------------ results


def measure(bench: Bench, folder: Path, kill_at: int | None = None) -> Outcome:
    words = ["test", str(folder), *TEST.split()]
    return bench.killed(Command(words, str(folder), kill_at=kill_at))


def check_kills_of_a_test(
    bench: Bench, name: str, earlier: bool, points: int | None = None
) -> int:
    """Kill a test before every file event, or so many of them, and repeat it; `earlier`
    results of the same test are there, or not.
    """
    folder = whole_run(bench, bench.train, name).folder
    results = folder / "tests"

    def prepare() -> None:
        shutil.rmtree(results, ignore_errors=True)
        if earlier:
            finish(measure(bench, folder))

    prepare()
    events = finish(measure(bench, folder)).events
    expected = contents(folder)
    chosen = spread(len(events), points or len(events))
    for at in chosen:
        prepare()
        assert measure(bench, folder, at).killed
        left = [json.loads(file.read_text()) for file in results.glob("*.json")]
        assert len(left) <= 1
        assert left or not earlier
        finish(measure(bench, folder))
        assert contents(folder) == expected, f"killed at event {at}"
    return len(chosen)


def test_results_survive_some_kills(bench: Bench) -> None:
    check_kills_of_a_test(bench, "tested", earlier=True, points=2)


@pytest.mark.slow
@pytest.mark.parametrize("earlier", [False, True])
def test_results_survive_a_kill_before_any_file_event(
    bench: Bench, earlier: bool
) -> None:
    name = f"all-tested-{earlier}"
    print(check_kills_of_a_test(bench, name, earlier), "kills")
