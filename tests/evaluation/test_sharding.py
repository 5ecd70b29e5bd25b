"""Tests whose tasks several processes share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from innerloop import (
    LSTM,
    MAML,
    Experiment,
    Learner,
    ProtoNet,
    Task,
    TaskSpec,
    processes,
    sharded,
)
from innerloop.engine import sharing
from innerloop.engine.progress import watched
from innerloop.engine.sharing import Exchange, shared
from innerloop.evaluation import chunks
from innerloop.evaluation.base import Evaluation
from innerloop.evaluation.calibration import Calibration
from innerloop.evaluation.class_incremental import ClassIncrementalTest
from innerloop.evaluation.clustering import Clustering
from innerloop.evaluation.few_shot import evaluate, meta_test
from innerloop.evaluation.head_start import HeadStart
from innerloop.evaluation.open_set import OpenSet
from innerloop.measurements import Report, TestPlan
from innerloop.processes import Job
from innerloop.rl import Bandits, Policy, PolicyGradient
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (4,), 3)
TASKS = Blobs(SPEC)


def in_each(folder: Path, count: int, program: Callable[[], Any]) -> list[Any]:
    """What a program returns in every one of `count` threads, which share parts as
    processes do.
    """
    found: list[Any] = [None] * count

    def run(number: int) -> None:
        with sharing.sharing(Exchange(folder, number)):
            found[number] = program()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_every_part_is_computed_once_and_every_process_has_all_results(
    tmp_path: Path,
) -> None:
    computed = []

    def square(part: int) -> dict[str, Any]:
        computed.append(part)
        return {"of": part, "values": (torch.tensor([part**2]), float(part))}

    def one(part: int) -> int:
        return 1

    def program() -> list[Any]:
        first = shared(range(9), square, one, 9)
        total = sum(found["of"] for found in first)
        return [first, shared([total, total + 1], square, one, 2)]

    results = in_each(tmp_path, 3, program)
    assert sorted(computed) == [*range(9), 36, 37]
    assert results == [program()] * 3


def test_what_a_process_that_ended_has_claimed_is_computed_again(
    tmp_path: Path,
) -> None:
    ended = set[int]()
    dead = Exchange(tmp_path, 1)
    dead.card.write_text("1")
    (tmp_path / "0").mkdir()
    assert dead._claim(tmp_path / "0" / "1.claim")
    seen = []

    def compute(part: int) -> int:
        ended.add(1)
        return 10 * part

    exchange = Exchange(tmp_path, 0, ended=lambda: ended)
    with sharing.sharing(exchange), watched(lambda *done: seen.append(done)):
        assert shared([1, 2, 5], compute, int, 8) == [10, 20, 50]
    assert seen == [(1, 8), (6, 8), (8, 8)]


def tables(report: Report) -> list[Any]:
    """What was measured, without the seconds that it took."""
    rows = [(table.title, row) for table in report.tables for row in table.rows]
    return [
        (title, row.labels, [v for v in row.values if v.unit != "s"])
        for title, row in rows
    ]


def classes() -> Episodes:
    """Tasks from twelve classes of ten vectors each."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(12, 4, generator=generator).repeat_interleave(10, 0)
    values = centers + 0.7 * torch.randn(120, 4, generator=generator)
    bank = ClassBank.of(values, [10] * 12, [f"class {c}" for c in range(12)])
    return Episodes(bank, 3, 2, 4)


class Drawing(ProtoNet):
    """Predictions with noise from torch's global generator."""

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        outputs = super().predict(state, x)
        return outputs + torch.randn_like(outputs)


def learner(kind: type[Learner] = ProtoNet) -> Learner:
    torch.manual_seed(0)
    return kind.build(SPEC)


PLAN = TestPlan(n=110)
Program = Callable[[], Report]


def few_shot() -> Program:
    return partial(evaluate, learner(), TASKS, PLAN)


def by_gradient_steps() -> Program:
    return partial(evaluate, learner(MAML), TASKS, TestPlan(n=30, steps=2))


def by(evaluation: Evaluation) -> Program:
    return partial(evaluation, learner(), classes(), PLAN)


def acting() -> Program:
    environment = Bandits(3, 4, split="test")
    torch.manual_seed(0)
    player = LSTM.build(environment.spec, likelihood=Policy(value=True), hidden=4)
    return partial(environment.evaluate, player, TestPlan(n=1200))


def acting_and_updating() -> Program:
    environment = Bandits(3, 4, split="test")
    torch.manual_seed(0)
    player = MAML.build(environment.spec, likelihood=PolicyGradient())
    return partial(environment.evaluate, player, TestPlan(n=60))


EVALUATIONS = (
    Calibration(),
    Clustering(tasks=30, restarts=2),
    OpenSet(),
    ClassIncrementalTest(groups=3, shots=2, queries=3, streams=4),
)
MEASURED: dict[str, Callable[[], Program]] = {
    **{f.__name__: f for f in (few_shot, by_gradient_steps, acting)},
    "acting_and_updating": acting_and_updating,
    **{repr(evaluation): partial(by, evaluation) for evaluation in EVALUATIONS},
}


@pytest.mark.parametrize("kind", MEASURED)
def test_measurements_are_the_same_in_one_process_and_in_several(
    kind: str, tmp_path: Path
) -> None:
    program = MEASURED[kind]()
    alone = tables(program())
    assert alone
    torch.manual_seed(7)  # what was drawn before does not matter
    assert in_each(tmp_path, 3, lambda: tables(program())) == [alone] * 3
    assert len(list(tmp_path.glob("*/*.pt"))) > 1  # they shared the work


def test_random_numbers_of_a_prediction_come_from_the_seed_of_the_test() -> None:
    drawing, results = learner(Drawing), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append(meta_test(drawing, TASKS, n=30).metrics)
    assert results[0] == results[1]


def test_what_the_clock_measures_is_not_shared(tmp_path: Path) -> None:
    def start(parts: int) -> None:
        raise AssertionError("no further process is needed")

    with sharing.sharing(Exchange(tmp_path, 0, start)):
        HeadStart(tasks=2, steps=2)(learner(), TASKS, PLAN)


def test_fewer_large_tasks_are_computed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []

    def size(batch: Task) -> int:
        sizes.append(len(batch.query.x))
        return sizes[-1]

    numbers = sum(examples.x[0].numel() for examples in TASKS.sample(1, seeded()))
    for most, expected in ((10 * numbers, [10, 10, 5, 3]), (1, [1] * 28)):
        monkeypatch.setattr(chunks, "CHUNK_NUMBERS", most)
        sizes.clear()
        assert chunks.measured(learner(), TASKS, size, n=28) == sizes == expected
    # the head start chooses its steps on 25 tasks together, however large they are
    assert HeadStart(tasks=2, steps=2)(learner(), TASKS, PLAN).tables


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return Experiment(
        {"name": "maml", "options": {"net": "mlp"}},
        {"name": "sinusoid", "options": {"shots": 3, "queries": 4}},
        steps=1,
    ).resolve()[0]


def test_a_test_in_two_processes_has_the_measurements_of_one(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    maml = experiment.build_learner()
    maml.set_steps(2)  # differs from the experiment
    started: list[Job] = []

    def launch(words: list[str], *args: Any) -> Job:
        job = processes.launch(words, *args)
        started.append(job)
        while not Path(words[1], "0", "0.pt").exists():  # until it has measured a part
            assert job.process.poll() is None, Path(words[1], "1.txt").read_text()
            time.sleep(0.1)
        return job

    monkeypatch.setattr(sharded, "launch", launch)
    plan, threads = TestPlan(n=60), torch.get_num_threads()
    one, two = (experiment.test(maml, plan, processes=n) for n in (1, 2))
    assert len(started) == 1
    assert tables(one) == tables(two)
    assert torch.get_num_threads() == threads
    assert started[0].process.poll() is not None


def test_a_process_that_is_killed_costs_nothing_but_time(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(*args: Any) -> Job:
        job = processes.launch(*args)
        job.process.kill()
        job.process.wait()
        return job

    monkeypatch.setattr(sharded, "launch", launch)
    maml, plan = experiment.build_learner(), TestPlan(n=60)
    with pytest.warns(RuntimeWarning, match="was killed by signal 9; its tasks were"):
        report = experiment.test(maml, plan, processes=2)
    assert tables(report) == tables(experiment.test(maml, plan, processes=1))
