"""The outer loop: its length, its rates, how it resumes and how it ends."""

import copy
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.evaluation.few_shot import meta_test
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.learners.optimization.maml import MAML
from innerloop.learners.transfer.scratch import Scratch
from innerloop.metagrad import CMAES, Gradient, MetaGradient, Move, backprop, meta_train
from innerloop.metagrad.base import Draw, Grads
from innerloop.metagrad.meta_train import (
    CALIBRATION_SEED,
    Step,
    apply_update,
    build_optimizer,
    calibrate,
    scheduled,
    warmup_cosine,
)
from innerloop.nets import BatchNorm
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (4,), 3)
TASKS = Blobs(SPEC)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def protonet() -> ProtoNet:
    torch.manual_seed(0)
    return ProtoNet(
        nn.Sequential(nn.Linear(4, 6), BatchNorm(6), nn.ReLU(), nn.Linear(6, 3))
    )


def maml() -> MAML:
    torch.manual_seed(0)
    return MAML.build(SPEC, inner_lr=0.05)


def drain(steps: Iterator[Step]) -> list[Step]:
    return list(steps)


def same(a: Learner, b: Learner) -> bool:
    return all(
        torch.equal(value, b.state_dict()[name])
        for name, value in a.state_dict().items()
    )


class Turning(TaskDistribution):
    """Blobs that turn into NaN after some batches."""

    def __init__(self, good: int):
        self.spec, self.good = SPEC, good

    def sample(self, n: int, generator: torch.Generator) -> Task:
        self.good -= 1
        tasks = TASKS.sample(n, generator)
        if self.good < 0:
            tasks.query.x.fill_(math.nan)
        return tasks


def test_steps_are_counted_and_progress_reaches_one() -> None:
    steps = drain(meta_train(protonet(), TASKS, steps=5, batch=2))
    assert [step.number for step in steps] == [0, 1, 2, 3, 4]
    assert [step.progress for step in steps] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all({"loss", "accuracy"} <= set(step.metrics) for step in steps)


def fake_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10**6))
    monkeypatch.setattr(
        sys.modules["innerloop.metagrad.meta_train"],
        "time",
        SimpleNamespace(monotonic=lambda: float(next(ticks))),
    )


@pytest.mark.parametrize(
    ("elapsed", "wanted"), [(0.0, 9), (6.0, 3), (10.0, 0), (50.0, 0)]
)
def test_seconds_end_the_training(
    monkeypatch: pytest.MonkeyPatch, elapsed: float, wanted: int
) -> None:
    fake_clock(monkeypatch)
    steps = drain(
        meta_train(protonet(), TASKS, seconds=10.0, batch=1, start=7, elapsed=elapsed)
    )
    assert [step.number for step in steps] == list(range(7, 7 + wanted))
    assert all(0 < step.progress < 1 for step in steps)
    assert [step.progress for step in steps] == sorted(step.progress for step in steps)


def test_real_seconds_pass() -> None:
    steps = drain(meta_train(protonet(), TASKS, seconds=0.2, batch=1))
    assert len(steps) > 1


@pytest.mark.parametrize("length", [{}, {"steps": 3, "seconds": 1.0}])
def test_a_missing_or_double_length_is_refused(length: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="exactly one of steps and seconds"):
        drain(meta_train(protonet(), TASKS, **length))


def test_no_steps_are_no_training() -> None:
    assert drain(meta_train(protonet(), TASKS, steps=0)) == []


def test_one_step_is_one_step_of_the_optimizer_on_the_mean_gradient() -> None:
    learner = maml()
    twin = copy.deepcopy(learner).train()
    grads, _ = backprop(twin, TASKS.sample(3, seeded(4)))
    drain(
        meta_train(
            learner,
            TASKS,
            steps=1,
            batch=3,
            optimizer=torch.optim.SGD(learner.parameters(), lr=0.1),
            generator=seeded(4),
        )
    )
    for name, p in twin.named_parameters():
        grad = grads[name]
        assert grad is not None
        torch.testing.assert_close(
            dict(learner.named_parameters())[name].detach(), p.detach() - 0.1 * grad
        )


def test_default_is_adam_at_a_thousandth_with_seed_zero() -> None:
    plain, spelt = protonet(), protonet()
    drain(meta_train(plain, TASKS, steps=3, batch=2))
    drain(
        meta_train(
            spelt,
            TASKS,
            steps=3,
            batch=2,
            optimizer=torch.optim.Adam(spelt.parameters(), lr=1e-3),
            generator=seeded(0),
        )
    )
    assert same(plain, spelt)


def test_meta_gradient_and_batch_are_used() -> None:
    seen = []

    def spy(learner: Learner, tasks: Task) -> tuple[Grads, Metrics]:
        seen.append((learner.training, len(tasks.query.x)))
        return backprop(learner, tasks)

    drain(meta_train(protonet(), TASKS, steps=2, batch=3, meta_gradient=spy))
    assert seen == [(True, 3)] * 2


@pytest.mark.parametrize("learner", [protonet, maml])
def test_training_lowers_the_loss(learner: Callable[[], Learner]) -> None:
    student = learner()
    losses = [
        float(step.metrics["loss"])
        for step in meta_train(
            student,
            TASKS,
            steps=60,
            batch=4,
            optimizer=torch.optim.Adam(student.parameters(), lr=1e-2),
        )
    ]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_schedule_is_a_factor_of_every_groups_rate() -> None:
    learner, seen, calls = protonet(), [], []
    optimizer = torch.optim.SGD(
        [
            {"params": learner.encoder.parameters(), "lr": 0.1},
            {"params": [learner.log_scale], "lr": 0.02},
        ]
    )

    def schedule(step: int, progress: float) -> float:
        calls.append((step, progress))
        return 1 / (step + 1)

    for _ in meta_train(
        learner, TASKS, steps=4, batch=1, optimizer=optimizer, schedule=schedule
    ):
        seen.append([group["lr"] for group in optimizer.param_groups])
    assert list(dict.fromkeys(calls)) == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75)]
    assert seen == [pytest.approx([0.1 / k, 0.02 / k]) for k in (1, 2, 3, 4)]


def test_schedule_follows_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_clock(monkeypatch)
    calls = []
    drain(
        meta_train(
            protonet(),
            TASKS,
            seconds=5.0,
            batch=1,
            schedule=lambda step, progress: calls.append(progress) or 1.0,
        )
    )
    assert calls == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_warmup_cosine_rises_and_falls() -> None:
    factor = warmup_cosine(0.1, decay=False)
    progress = [0.0, 0.05, 0.1, 0.5, 1.0]
    rates = [factor(0, p) for p in progress]
    assert 0 < rates[0] < 0.02, "the first step moves, but hardly"
    assert rates[1] == pytest.approx(0.5, abs=0.01)
    assert rates[2:] == [1.0, 1.0, 1.0]
    decaying = warmup_cosine(0.0)
    assert [decaying(100, p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(
        [1.0, 0.5 + math.sqrt(0.125), 0.5, 0.0], abs=1e-12
    )
    assert warmup_cosine(0.0, decay=False)(100, 0.9) == 1.0


def test_steps_fall_to_a_tenth_three_times() -> None:
    factor = scheduled(MetaTrainConfig(schedule="steps", warmup=0.1))
    progress = [0.05, 0.1, 0.49, 0.51, 0.66, 0.67, 0.83, 0.84, 1.0]
    expected = [0.5, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert [factor(0, p) for p in progress] == pytest.approx(expected, rel=0.02)
    level = scheduled(MetaTrainConfig(schedule="steps", warmup=0.0, decay=False))
    assert level(0, 0.9) == 1.0
    assert scheduled(MetaTrainConfig(warmup=0.0))(0, 0.5) == pytest.approx(0.5)


def test_momentum_is_passed_to_optimizers_that_have_it() -> None:
    config = MetaTrainConfig(optimizer="SGD", momentum=0.9, weight_decay=5e-4)
    (group,) = build_optimizer(protonet(), config).param_groups
    assert (group["momentum"], group["weight_decay"]) == (0.9, 5e-4)
    with pytest.raises(InnerloopError, match="AdamW has no option momentum"):
        build_optimizer(protonet(), MetaTrainConfig(momentum=0.9))


@pytest.mark.parametrize("steps", [3, 100, 10**6])
def test_warmup_ends_at_its_share_of_training_at_any_speed(steps: int) -> None:
    factor = warmup_cosine(0.25, decay=False)
    rates = [
        factor(step, step / steps) for step in range(0, steps, max(1, steps // 100))
    ]
    share = [i / len(rates) for i in range(len(rates))]
    assert all(
        (rate == 1.0) == (p >= 0.25) for rate, p in zip(rates, share, strict=True)
    )
    assert rates == sorted(rates)


def test_clip_bounds_the_norm_and_keeps_the_direction() -> None:
    moves = []
    for clip in (None, 0.01, 1e6):
        learner = maml()
        before = nn.utils.parameters_to_vector(learner.parameters()).detach()
        drain(
            meta_train(
                learner,
                TASKS,
                steps=1,
                batch=2,
                optimizer=torch.optim.SGD(learner.parameters(), lr=1.0),
                clip=clip,
            )
        )
        moves.append(
            nn.utils.parameters_to_vector(learner.parameters()).detach() - before
        )
    free, clipped, loose = moves
    assert float(free.norm()) > 0.05
    assert float(clipped.norm()) == pytest.approx(0.01, rel=1e-2)
    assert float(torch.cosine_similarity(free, clipped, dim=0)) > 0.999
    assert torch.equal(free, loose)


@pytest.mark.parametrize("learner", [protonet, maml])
def test_bf16_computes_in_bfloat16_and_keeps_weights_in_float32(
    learner: Callable[[], Learner],
) -> None:
    seen, trained = [], []
    for precision in ("float32", "bf16"):
        student = learner()

        def spy(one: Learner, tasks: Task) -> tuple[Grads, Metrics]:
            seen.append(nn.functional.linear(tasks.query.x[0], torch.ones(1, 4)).dtype)
            return backprop(one, tasks)

        steps = drain(
            meta_train(
                student,
                TASKS,
                steps=5,
                batch=2,
                precision=precision,
                meta_gradient=spy,
                clip=1.0,
            )
        )
        assert all(math.isfinite(float(step.metrics["loss"])) for step in steps)
        assert {p.dtype for p in student.parameters()} == {torch.float32}
        trained.append(nn.utils.parameters_to_vector(student.parameters()))
    assert seen == [torch.float32] * 5 + [torch.bfloat16] * 5
    assert not torch.equal(*trained)
    torch.testing.assert_close(trained[0], trained[1], atol=0.02, rtol=0.05)


@pytest.mark.parametrize("learner", [protonet, maml])
@pytest.mark.parametrize("cut", [1, 4])
def test_a_resumed_training_ends_at_the_same_bits(
    learner: Callable[[], Learner], cut: int
) -> None:
    def optimizer_of(student: Learner) -> torch.optim.Optimizer:
        return build_optimizer(
            student, MetaTrainConfig(optimizer="AdamW", lr=1e-2, weight_decay=0.01)
        )

    whole, schedule = learner(), warmup_cosine(0.3)
    drain(
        meta_train(
            whole,
            TASKS,
            steps=6,
            batch=2,
            optimizer=optimizer_of(whole),
            schedule=schedule,
            clip=1.0,
            generator=seeded(3),
        )
    )

    student, generator = learner(), seeded(3)
    optimizer = optimizer_of(student)
    for step in meta_train(
        student,
        TASKS,
        steps=6,
        batch=2,
        optimizer=optimizer,
        schedule=schedule,
        clip=1.0,
        generator=generator,
    ):
        if step.number == cut - 1:
            break
    resumed, second = learner(), seeded(99)
    resumed.load_state_dict(copy.deepcopy(student.state_dict()))
    second.set_state(generator.get_state())
    restored = optimizer_of(resumed)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    rest = drain(
        meta_train(
            resumed,
            TASKS,
            steps=6,
            batch=2,
            optimizer=restored,
            schedule=schedule,
            clip=1.0,
            generator=second,
            start=cut,
            elapsed=5.0,
        )
    )
    assert [step.number for step in rest] == list(range(cut, 6))
    assert same(whole, resumed)
    assert not same(whole, student)


def test_a_loss_that_is_no_number_stops_before_it_does_harm() -> None:
    learner = protonet()
    loop = meta_train(learner, Turning(2), steps=5, batch=2)
    assert [next(loop).number, next(loop).number] == [0, 1]
    with pytest.raises(
        FloatingPointError,
        match=r"diverged at step 2: the loss is nan, .*; lower the learning rate",
    ):
        next(loop)
    assert all(bool(torch.isfinite(p).all()) for p in learner.parameters())
    ends_quietly(learner)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_no_number_stops_before_it_does_harm(
    clip: float | None,
) -> None:
    def broken(learner: Learner, tasks: Task) -> tuple[Grads, Metrics]:
        grads, metrics = backprop(learner, tasks)
        return {
            name: None if g is None else g * math.inf for name, g in grads.items()
        }, metrics

    learner = protonet()
    before = [p.detach().clone() for p in learner.parameters()]
    with pytest.raises(
        FloatingPointError, match=r"norm of the meta-gradient (nan|inf)"
    ):
        next(
            meta_train(
                learner, TASKS, steps=5, batch=2, meta_gradient=broken, clip=clip
            )
        )
    assert all(
        torch.equal(p, b) for p, b in zip(learner.parameters(), before, strict=True)
    )


def ends_quietly(learner: Learner) -> None:
    assert not any(module.training for module in learner.modules())
    assert all(p.grad is None for p in learner.parameters())


def test_tasks_that_fail_leave_evaluation_mode() -> None:
    class Failing(Blobs):
        def sample(self, n: int, generator: torch.Generator) -> Task:
            raise OSError("the disk is gone")

    learner = protonet()
    with pytest.raises(OSError, match="the disk is gone"):
        drain(meta_train(learner, Failing(SPEC), steps=2))
    ends_quietly(learner)


def test_the_learner_is_in_training_mode_while_it_trains() -> None:
    learner = protonet()
    for _ in meta_train(learner, TASKS, steps=2, batch=1):
        assert learner.training
        learner.eval()


@pytest.mark.parametrize("learner", [protonet, maml])
@pytest.mark.parametrize("stop", [0, 2, 9])
def test_leaving_the_loop_leaves_evaluation_mode_and_no_gradients(
    learner: Callable[[], Learner], stop: int
) -> None:
    student = learner()
    for step in meta_train(student, TASKS, steps=4, batch=2):
        if step.number == stop:
            break
    ends_quietly(student)


def test_an_error_inside_the_loop_leaves_evaluation_mode_and_no_gradients() -> None:
    learner = protonet()
    loop = meta_train(learner, TASKS, steps=4, batch=2)
    next(loop)
    with pytest.raises(KeyboardInterrupt):
        loop.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    ends_quietly(learner)


def test_an_optimizer_of_some_parameters_leaves_no_gradients_on_the_others() -> None:
    learner = protonet()
    drain(
        meta_train(
            learner,
            TASKS,
            steps=2,
            batch=2,
            optimizer=torch.optim.SGD([learner.log_scale], lr=0.1),
        )
    )
    ends_quietly(learner)


def test_statistics_are_settled_on_training_tasks() -> None:
    learner = protonet()
    before = copy.deepcopy(learner.encoder[1].state_dict())
    drain(meta_train(learner, TASKS, steps=3, batch=2))
    sample = TASKS.sample(8, seeded(CALIBRATION_SEED))
    parts = [
        learner.encoder[0](torch.cat([task.support.x, task.query.x])).detach()
        for task in sample.unbind()
    ]
    means, variances = (
        torch.stack([z.mean(0) for z in parts]),
        torch.stack([z.var(0, correction=0) for z in parts]),
    )
    torch.testing.assert_close(learner.encoder[1].mean, means.mean(0))
    torch.testing.assert_close(
        learner.encoder[1].var, variances.mean(0) + means.var(0, correction=0)
    )
    assert not torch.equal(learner.encoder[1].mean, before["mean"])
    again = learner.encoder[1].mean.clone()
    calibrate(learner, TASKS)
    assert torch.equal(learner.encoder[1].mean, again)


def test_build_optimizer_follows_the_recipe() -> None:
    learner = protonet()
    learner.log_scale.requires_grad_(False)
    optimizer = build_optimizer(
        learner, MetaTrainConfig(optimizer="SGD", lr=0.3, weight_decay=0.2)
    )
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.2)
    assert {id(p) for p in group["params"]} == {
        id(p) for p in learner.encoder.parameters()
    }


def test_build_optimizer_refuses_what_it_cannot_build() -> None:
    with pytest.raises(ValueError, match="Scratch has no parameters to meta-train"):
        build_optimizer(Scratch.build(SPEC), MetaTrainConfig())
    for name in ("Addam", "Tensor", "lr_scheduler"):
        with pytest.raises(
            ValueError, match=f"such as Adam, AdamW or SGD; got '{name}'"
        ):
            build_optimizer(protonet(), MetaTrainConfig(optimizer=name))


def test_tasks_are_drawn_from_the_generator() -> None:
    drawn: list[Tensor] = []

    def spy(learner: Learner, tasks: Task) -> tuple[Grads, Metrics]:
        drawn.append(tasks.query.x)
        return backprop(learner, tasks)

    for seed in (1, 1, 2):
        drain(
            meta_train(
                protonet(),
                TASKS,
                steps=2,
                batch=1,
                meta_gradient=spy,
                generator=seeded(seed),
            )
        )
    assert torch.equal(torch.stack(drawn[:2]), torch.stack(drawn[2:4]))
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[4])


class Slow(TaskDistribution):
    """Blobs that take their time, and remember who drew them."""

    def __init__(self, wait: float, ahead: bool = True):
        self.spec, self.wait, self.threads = SPEC, wait, list[int]()
        self.prefetch = ahead  # pyright: ignore[reportIncompatibleVariableOverride]

    def sample(self, n: int, generator: torch.Generator) -> Task:
        time.sleep(self.wait)
        self.threads.append(threading.get_ident())
        return TASKS.sample(n, generator)


def test_batches_that_take_long_are_drawn_ahead_and_are_the_same() -> None:
    learners, states, threads = [], [], []
    for wait in (0.0, 0.05):
        tasks, learner, generator = Slow(wait), maml(), seeded(3)
        states.append([])
        for step in meta_train(learner, tasks, steps=12, batch=2, generator=generator):
            if step.number >= 8:
                torch.rand(1, generator=generator)  # the caller draws from it too
            states[-1].append(generator.get_state())
        learners.append(learner)
        threads.append(tasks.threads)
    assert same(*learners)
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    assert len(set(threads[1])) == 2
    assert threading.active_count() < 20


def test_what_does_not_say_so_is_never_drawn_in_a_thread() -> None:
    tasks = Slow(0.02, ahead=False)
    drain(meta_train(maml(), tasks, steps=9, batch=2))
    assert set(tasks.threads) == {threading.get_ident()}
    assert not TaskDistribution.prefetch


def test_a_gradient_that_two_parameters_share_is_clipped_once() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.delta = (
                nn.Parameter(torch.randn(4, 4)),
                nn.Parameter(torch.zeros(4, 4)),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ (self.base + self.delta)

    learner = ProtoNet.build(SPEC, encoder=Shared())
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    before = [p.detach().clone() for p in learner.parameters()]
    drain(meta_train(learner, TASKS, steps=1, batch=2, optimizer=optimizer, clip=1e-3))
    moved = torch.stack(
        [(p - b).norm() for p, b in zip(learner.parameters(), before, strict=True)]
    ).norm()
    assert float(moved) == pytest.approx(1e-3, rel=1e-3)


def test_a_learner_gets_the_progress_of_training() -> None:
    learner, seen = protonet(), []
    learner.on_progress = seen.append  # pyright: ignore[reportAttributeAccessIssue]
    drain(meta_train(learner, TASKS, steps=4, batch=2))
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    "setting",
    [
        {"clip": -1.0},
        {"clip": 0.0},
        {"warmup": -1.0},
        {"warmup": 100.0},
        {"lr": math.nan},
        {"lr": math.inf},
        {"lr": 0.0},
        {"weight_decay": -0.1},
        {"weight_decay": math.inf},
        {"weight_decay": 1e30},
        {"batch": 0},
        {"ways": 0},
        {"shots": -1},
        {"groups": -1},
    ],
)
def test_a_setting_out_of_range_is_an_error(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(InnerloopError, match=f"{name} of MetaTrainConfig must be"):
        MetaTrainConfig(**setting)


@pytest.mark.parametrize("clip", [-1.0, 0.0, math.nan])
def test_a_clip_out_of_range_is_an_error(clip: float) -> None:
    with pytest.raises(InnerloopError, match="clip must be greater than 0"):
        drain(meta_train(protonet(), TASKS, steps=1, clip=clip))


def test_the_norm_counts_what_the_optimizer_holds() -> None:
    learner = protonet()
    parameters = dict(learner.named_parameters())
    grads: Grads = {name: torch.ones_like(p) for name, p in parameters.items()}
    before = learner.log_scale.detach().clone()
    optimizer = torch.optim.SGD([learner.log_scale], lr=1.0)
    norm = apply_update(Gradient(grads, {}), parameters, optimizer, clip=0.5)
    assert norm == pytest.approx(1.0), "one number, with a gradient of 1"
    assert float((before - learner.log_scale).detach()) == pytest.approx(0.5, rel=1e-4)


class Shift(MetaGradient):
    """Moves every parameter to one, without an optimizer."""

    uses_optimizer = False

    def __call__(self, learner: Learner, draw: Draw) -> Move:
        theta = {n: torch.ones_like(p) for n, p in learner.named_parameters()}
        return Move(theta, {"loss": torch.zeros(())})


def test_a_move_goes_around_the_default_optimizer_and_clipping() -> None:
    learner = protonet()
    drain(meta_train(learner, TASKS, steps=2, meta_gradient=Shift(), clip=1e-6))
    assert all(bool((p == 1).all()) for p in learner.parameters())


def test_evolution_lowers_the_loss_with_the_default_optimizer() -> None:
    torch.manual_seed(0)
    learner = ProtoNet(nn.Linear(4, 2))
    fixed = TASKS.sample(4, seeded(0))
    before = float(learner(fixed)[0].detach())
    drain(meta_train(learner, TASKS, steps=20, batch=4, meta_gradient=CMAES()))
    assert float(learner(fixed)[0].detach()) < before


def test_a_frozen_encoder_stays_in_evaluation_mode() -> None:
    encoder = nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Flatten()
    )
    encoder.eval().requires_grad_(False)
    before = copy.deepcopy(encoder.state_dict())
    learner = ProtoNet(nn.Sequential(encoder, nn.Dropout(0.1), nn.Linear(12, 3)))
    modes = []

    def spy(learner: Learner, tasks: Task) -> tuple[Grads, Metrics]:
        assert isinstance(learner, ProtoNet)
        modes.append([m.training for m in learner.encoder.modules()])
        return backprop(learner, tasks)

    drain(meta_train(learner, TASKS, steps=3, batch=2, meta_gradient=spy))
    assert modes[-1] == [True, *[False] * 5, True, True]
    assert all(torch.equal(v, before[n]) for n, v in encoder.state_dict().items())


def test_statistics_of_frozen_layers_stay() -> None:
    learner = protonet()
    learner.encoder[:2].requires_grad_(False)
    learner.encoder[1].mean.fill_(0.5)
    drain(meta_train(learner, TASKS, steps=3, batch=2))
    assert bool((learner.encoder[1].mean == 0.5).all())


class Wrong(TaskDistribution):
    """Tasks that a function spoils."""

    def __init__(self, spoil: Callable[[Task], Task]):
        self.spec, self.spoil = SPEC, spoil

    def sample(self, n: int, generator: torch.Generator) -> Task:
        return self.spoil(TASKS.sample(n, generator))


def each(change: Callable[[Tensor], Tensor], field: str) -> Callable[[Task], Task]:
    return lambda task: Task(
        *(e._replace(**{field: change(getattr(e, field))}) for e in task)
    )


WRONG: dict[str, tuple[Callable[[Task], Task], str]] = {
    "integer labels": (
        each(lambda y: y.argmax(-1), "y"),
        r"support.y of shape \(2, 6\)",
    ),
    "integers": (each(Tensor.long, "y"), r"support.y of torch.int64.*one-hot"),
    "float64": (each(Tensor.double, "x"), r"support.x of torch.float64.*float32"),
    "no batch axis": (lambda task: task.unbind()[0], r"support.x of shape \(6, 4\)"),
    "inputs": (each(lambda x: x[..., :3], "x"), r"shape \(2, 6, 3\); expected .*, 4\)"),
    "targets": (each(lambda y: y[..., :2], "y"), r"support.y of shape \(2, 6, 2\)"),
    "one task": (lambda task: task.split(0)[0], r"with 2 tasks"),
}


@pytest.mark.parametrize("learner", [protonet, maml])
@pytest.mark.parametrize("name", WRONG)
def test_tasks_that_do_not_fit_their_spec_are_an_error(
    name: str, learner: Callable[[], Learner]
) -> None:
    spoil, message = WRONG[name]
    with pytest.raises(InnerloopError, match=message) as error:
        drain(meta_train(learner(), Wrong(spoil), steps=1, batch=2))
    assert len(str(error.value)) < 300
    assert "sample(2, generator)" in str(error.value)
    with pytest.raises(InnerloopError, match=message):
        meta_test(learner(), Wrong(spoil), n=2)


def test_tasks_may_have_the_precision_of_the_learner() -> None:
    learner = protonet().double()
    spoil = each(Tensor.double, "x")
    tasks = Wrong(lambda task: each(Tensor.double, "y")(spoil(task)))
    assert len(drain(meta_train(learner, tasks, steps=1, batch=2))) == 1
