"""Several processes compute the meta-gradient of one."""

from __future__ import annotations

import copy
import os
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from innerloop import MAML, R2D2
from innerloop.assembly import Choice
from innerloop.core.learner import Learner
from innerloop.core.likelihood import Gaussian, Likelihood
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine import workers as workers_module
from innerloop.engine.errors import DivergenceError, InnerloopError
from innerloop.engine.rows import drawing, rows_of
from innerloop.engine.workers import Share, Workers, joined
from innerloop.events import Started, Stepped
from innerloop.experiment import Experiment
from innerloop.metagrad import Backprop, MetaGradient, base, meta_train
from innerloop.metagrad.base import Gradient, Move, Update, normalized_together
from innerloop.metagrad.distributed import distributed
from innerloop.metagrad.meta_train import apply_update, training_mode
from innerloop.runs import Run, RunError, digest
from tests.metagrad.test_resume import CASES, PAIRS, RULES, Planes, built, seeded
from tests.metagrad.together import together

SIZE = 2
STEPS = 3
# of every meta-gradient a pair with labels and one with rewards, where it takes them
CHOSEN = list(
    {(name, PAIRS[pair][1].played): (name, pair) for name, pair in CASES}.values()
)


def tensors(update: Update) -> dict[str, Tensor | None]:
    return dict(update.grads if isinstance(update, Gradient) else update.theta)


def error(found: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> float:
    """The relative distance; infinite where other tensors are None."""
    assert {n for n, t in found.items() if t is not None} == {
        n for n, t in expected.items() if t is not None
    }
    pairs = [(t, expected[n]) for n, t in sorted(found.items()) if t is not None]
    a, b = (torch.cat([t.double().flatten() for t in side]) for side in zip(*pairs))  # noqa: B905
    return float((a - b).norm() / b.norm().clamp_min(1e-12))


def compared(
    learner: Learner,
    tasks: TaskDistribution,
    rules: tuple[MetaGradient, MetaGradient],
    batch: int,
) -> dict[str, float]:
    """The largest errors of the updates and of the metrics of several meta-steps, by
    processes together, from those of one process; both at the same parameters.
    """
    worst = {"update": 0.0, "metrics": 0.0}
    streams = []
    for rule in rules:
        generator = seeded(1)
        rule.prepare(learner, tasks, seeded(2))

        def draw(generator: torch.Generator = generator) -> Task:
            return tasks.sample(batch, generator)

        streams.append(draw)
    optimizer = torch.optim.SGD(learner.parameters(), 0.1)
    for step in range(STEPS):
        training_mode(learner)
        for rule in rules:
            rule.on_progress(step / STEPS)
        expected, found = (
            rule(learner, draw) for rule, draw in zip(rules, streams, strict=True)
        )
        assert type(found) is type(expected)
        worst["update"] = max(worst["update"], error(tensors(found), tensors(expected)))
        assert found.metrics.keys() == expected.metrics.keys()
        for name, value in expected.metrics.items():
            difference = float((found.metrics[name] - value).abs())
            worst["metrics"] = max(
                worst["metrics"], difference / max(1e-3, float(value.abs()))
            )
        apply_update(expected, dict(learner.named_parameters()), optimizer, 1.0)
    return worst


class Doubles(TaskDistribution):
    """Tasks in float64."""

    def __init__(self, tasks: TaskDistribution):
        self.tasks, self.spec = tasks, tasks.spec

    def sample(self, n: int, generator: torch.Generator) -> Task:
        drawn = self.tasks.sample(n, generator)
        return Task(*(Examples(*(t.double() for t in part)) for part in drawn))


class Pixels(TaskDistribution):
    """Small images with random labels."""

    spec = TaskSpec("classes", (1, 8, 8), 3)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        x = torch.randn(n, 12, 1, 8, 8, generator=generator)
        y = torch.eye(3).repeat(4, 1).expand(n, -1, -1)
        return Task(Examples(x[:, :3], y[:, :3]), Examples(x[:, 3:], y[:, 3:]))


class Odd(Learner):
    """Draws a random number in training, has an unused parameter, and shows a metric
    only after a while; its loss is not a number where a task says so.
    """

    weight: nn.Parameter
    unused: nn.Parameter
    likelihood: Likelihood = Gaussian()
    late = False
    kinds = ("reals",)

    def adapt(self, support: Examples) -> Tensor:
        return self.weight * torch.rand(())

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return x @ state

    def loss(self, task: Task) -> tuple[Tensor, dict[str, Tensor]]:
        noise = torch.rand(())
        late = {"late": noise} if self.late else {}
        broken = torch.where(task.query.x[0, 0] > 1e6, torch.nan, 1.0)
        loss = (self.weight.square().sum() + task.query.x.mean()) * broken
        return loss, {"noise": noise, **late}


def odd() -> Odd:
    return Odd(nn.Parameter(torch.ones(2, 1)), nn.Parameter(torch.ones(1)))


class Mean(MetaGradient):
    """A meta-gradient that returns new parameters: the mean of the inputs."""

    def __call__(self, learner: Learner, draw: Any) -> Move:
        mean = draw().query.x.mean((0, 1))[:, None]
        return Move({"weight": mean}, {"loss": mean.sum()})


# ------------------------------------------------------------------ in each process


def errors_of_all(workers: Workers) -> dict[str, dict[str, float]]:
    """By meta-gradient, tasks and kind of the comparison."""
    found = {}
    for name, pair in CHOSEN:
        learner, tasks, rule = built(name, pair)

        def rules(rule: MetaGradient = rule) -> tuple[MetaGradient, MetaGradient]:
            return copy.deepcopy(rule), distributed(copy.deepcopy(rule), workers)

        for batch in (5, 1):
            key = f"{name} {pair}: {batch} tasks"
            found[key] = compared(learner, tasks, rules(), batch)
        if not tasks.played:
            found[f"{name} {pair}: float64"] = compared(
                learner.double(), Doubles(tasks), rules(), 5
            )
    base.CHUNK_NUMBERS = 3 * 12 * 64  # three tasks are normalized together
    learner = R2D2.build(Pixels.spec, encoder="conv4")
    rules_of = (Backprop(), distributed(Backprop(), workers))
    found["normalized together: 7 tasks"] = compared(learner, Pixels(), rules_of, 7)
    return found


def primitives(workers: Workers) -> dict[str, Any]:
    rank, share = workers.rank, workers.share(5)
    rows = torch.arange(5.0)[:, None]

    def fail() -> None:
        raise InnerloopError(f"of process {rank}")

    with pytest.raises(InnerloopError, match="of process 0"):
        workers.once(fail)
    workers_module.SIGN_OF_LIFE = 0.01
    long = workers.once(lambda: time.sleep(0.1) or "done")
    with workers.own_noise():
        inside = float(torch.rand(()))
    return {
        "share": tuple(share),
        "gathered": workers.gather(share.of(rows), share).flatten().tolist(),
        "once": workers.once(lambda: rank),
        "long": long,
        "first": workers.of_first(rank + 7.0),
        "any": [workers.any(rank == 1), workers.any(False)],
        "inside": inside,
        "after": float(torch.rand(())),
    }


def odd_steps(workers: Workers) -> dict[str, Any]:
    """Metrics that appear later, unused parameters, moves, and a loss that is not a
    number in one process.
    """
    learner, tasks, generator = odd(), Planes(), seeded(0)
    rule = distributed(Backprop(), workers)
    rule.prepare(learner, tasks, seeded(1))

    def draw() -> Task:
        return tasks.sample(2, generator)

    first = rule(learner, draw)
    learner.late = True
    second = rule(learner, draw)
    own = odd()
    moved = distributed(Mean(), workers)(own, draw)
    assert isinstance(moved, Move)

    class Broken(Planes):
        def sample(self, n: int, generator: torch.Generator) -> Task:
            drawn = super().sample(n, generator)
            drawn.query.x[-1] = 1e9  # the last task, of the last process
            return drawn

    with pytest.raises(DivergenceError):
        list(meta_train(odd(), Broken(), steps=3, batch=4, meta_gradient=rule))
    alone = list(meta_train(odd(), tasks, steps=1, batch=4, meta_gradient=Mean()))
    return {
        "unused": tensors(first)["unused"],
        "metrics": [sorted(first.metrics), sorted(second.metrics)],
        "noise": float(first.metrics["noise"]),
        "moved": moved.theta["weight"].tolist(),
        "alone": len(alone),
    }


def by_the_clock(workers: Workers) -> int:
    """How many meta-steps a training of a third of a second has, where the clocks of
    the processes differ.
    """
    rule = distributed(Backprop(), workers)
    late = 0.2 * workers.rank
    steps = meta_train(
        odd(), Planes(), seconds=0.3, elapsed=late, batch=4, meta_gradient=rule
    )
    return len(list(steps))


def trainings(workers: Workers, folder: Path) -> dict[str, Any]:
    """Whole trainings: into a new folder and again, stopped by the last process, and
    started again by torchrun.
    """
    experiment = Experiment(Choice("maml"), Choice("sinusoid"), steps=4)
    events = list(experiment.train_events(folder / "whole"))
    with pytest.raises(RunError, match="holds a run already"):
        list(experiment.train_events(folder / "whole"))
    stopped, steps = experiment.train_events(folder / "stopped"), 0
    for event in stopped:
        steps = event.step if isinstance(event, Stepped) else steps
        if steps == 2 and workers.rank == SIZE - 1:
            stopped.close()  # pyright: ignore[reportAttributeAccessIssue]
            break
    list(experiment.train_events(folder / "stopped", resume=True))
    os.environ["TORCHELASTIC_RUN_ID"] = "job"
    first, *_ = experiment.train_events(folder / "job")
    again, *_ = experiment.train_events(folder / "job")
    del os.environ["TORCHELASTIC_RUN_ID"]
    return {
        "events": [type(event).__name__ for event in events],
        "stopped": steps,
        "begun": [e.step for e in (first, again) if isinstance(e, Started)],
    }


def all_checks(folder: Path) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    workers = joined()
    assert workers.size == SIZE
    return {
        "primitives": primitives(workers),
        "odd": odd_steps(workers),
        "clock": by_the_clock(workers),
        "trainings": trainings(workers, folder),
        "errors": errors_of_all(workers),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes train."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What every process found."""
    return together(all_checks, SIZE, folder)


# ------------------------------------------------------------------ tests


def test_every_meta_gradient_is_compared(found: list[dict[str, Any]]) -> None:
    assert {name for name, _ in CHOSEN} == set(RULES)


def test_the_meta_gradient_is_that_of_one_process(found: list[dict[str, Any]]) -> None:
    for errors in (process["errors"] for process in found):
        for name, worst in errors.items():
            update, metrics = (1e-13, 1e-12) if "float64" in name else (1e-6, 1e-5)
            assert worst["update"] < update, (name, worst)
            assert worst["metrics"] < metrics, (name, worst)


def test_processes_share_and_gather(found: list[dict[str, Any]]) -> None:
    first, second = (process["primitives"] for process in found)
    assert (first["share"], second["share"]) == ((0, 3, 5), (3, 5, 5))
    for process in (first, second):
        assert process["gathered"] == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert process["once"] == 0
        assert process["long"] == "done"
        assert process["first"] == [7.0]
        assert process["any"] == [True, False]


def test_processes_draw_their_own_noise_and_then_the_same(
    found: list[dict[str, Any]],
) -> None:
    first, second = (process["primitives"] for process in found)
    assert first["inside"] != second["inside"]
    assert first["after"] == second["after"]


def test_metrics_may_appear_later_and_unused_parameters_have_no_gradient(
    found: list[dict[str, Any]],
) -> None:
    first, second = (process["odd"] for process in found)
    assert first == second
    assert first["unused"] is None
    assert first["metrics"] == [["loss", "noise"], ["late", "loss", "noise"]]
    assert first["alone"] == 1


def test_the_clock_of_the_first_process_counts(found: list[dict[str, Any]]) -> None:
    assert found[0]["clock"] == found[1]["clock"] > 0


def test_a_training_in_two_processes_is_that_of_one(
    found: list[dict[str, Any]], folder: Path, tmp_path: Path
) -> None:
    experiment = Experiment(Choice("maml"), Choice("sinusoid"), steps=4)
    events = list(experiment.train_events(tmp_path))
    expected = [type(event).__name__ for event in events]
    assert [process["trainings"]["events"] for process in found] == [expected] * SIZE
    logs = [Run(run).read_log() for run in (tmp_path, folder / "whole")]
    for one, two in zip(*logs, strict=True):
        assert one["step"] == two["step"]
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)
        assert one["validation"] == pytest.approx(two["validation"], rel=1e-4)


def test_one_process_stops_all_and_they_resume_bit_for_bit(
    found: list[dict[str, Any]], folder: Path
) -> None:
    assert [process["trainings"]["stopped"] for process in found] == [2] * SIZE
    whole, stopped = Run(folder / "whole"), Run(folder / "stopped")
    assert digest(whole.load_weights()) == digest(stopped.load_weights())
    assert digest(whole.load_checkpoint()["learner"]) == digest(
        stopped.load_checkpoint()["learner"]
    )


def test_processes_that_are_started_again_continue_the_run(
    found: list[dict[str, Any]],
) -> None:
    assert [process["trainings"]["begun"] for process in found] == [[0, 4]] * SIZE


class Ranked(Workers):
    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size


@pytest.mark.parametrize(
    ("total", "together", "size"), [(16, 1, 2), (5, 1, 3), (2, 1, 4), (10, 4, 2)]
)
def test_shares_are_even_and_whole(total: int, together: int, size: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = [Ranked(r, size).share(total, together) for r in range(size)]
    rows = [row for share in shares for row in range(share.start, share.stop)]
    assert rows == list(range(total))
    assert all(share.start % together == 0 for share in shares if share.weight)
    counts = [-(-(share.stop - share.start) // together) for share in shares]
    assert max(counts) - min(counts) <= 1
    assert all(len(share.of(torch.zeros(total))) > 0 for share in shares)


def test_processes_without_work_are_told_once() -> None:
    workers = Ranked(0, 4)
    with pytest.warns(RuntimeWarning, match="only 2 of 4 processes have work"):
        workers.share(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        workers.share(2)


def test_some_rows_draw_what_they_draw_in_the_whole_batch() -> None:
    def draws(rows: int) -> list[Tensor]:
        generator = seeded(3)
        with drawing(generator, rows):
            return [
                torch.rand(rows, generator=generator),
                torch.randn(rows, 2, generator=generator),
                torch.randn((rows, 3), generator=generator),
                torch.randint(9, (rows,), generator=generator),
                torch.randint(9, (), generator=generator),
            ]

    whole, share = draws(18), Share(2, 5, 9)  # two rows for each row of the share
    with rows_of(share):
        part = draws(6)
        with (
            drawing(generator := seeded(0), 6),
            pytest.raises(InnerloopError, match="draws numbers for its 6 rows"),
        ):
            torch.rand(5, generator=generator)
        with (
            drawing(generator, 6),
            pytest.raises(InnerloopError, match="bernoulli cannot draw"),
        ):
            torch.bernoulli(torch.ones(6), generator=generator)
    for a, b in zip(part[:4], whole[:4], strict=True):
        assert torch.equal(a, b[4:10])
    assert torch.equal(part[4], whole[4])


def test_only_joint_normalization_keeps_tasks_together() -> None:
    tasks = Pixels().sample(4, seeded(0))
    learner = R2D2.build(Pixels.spec, encoder="conv4")
    assert normalized_together(learner, tasks) == 1  # in evaluation mode
    learner.train()
    assert normalized_together(learner, tasks) == 4
    assert normalized_together(MAML.build(Pixels.spec).train(), tasks) == 1
