"""A recorded gradient is the gradient, whatever has changed since it was recorded."""

import gc
import random
import threading
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Bernoulli
from innerloop.core.task import Task, TaskSpec
from innerloop.engine import graph_cache
from innerloop.engine.errors import InnerloopError
from innerloop.engine.norm_stats import use_batch
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.learners.optimization.imaml import IMAML
from innerloop.learners.optimization.maml import MAML
from innerloop.metagrad.backprop import loss_and_gradient
from innerloop.metagrad.implicit import implicit
from innerloop.nets import BatchNorm
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (4,), 3)


def tasks(seed: int, n: int = 3) -> Task:
    return Blobs(SPEC).sample(n, torch.Generator().manual_seed(seed))


def expected(learner: Learner, some: Task) -> list[Tensor]:
    loss, metrics = learner(some)
    return [
        loss.detach(),
        metrics["accuracy"],
        *torch.autograd.grad(
            loss, [p for p in learner.parameters() if p.requires_grad]
        ),
    ]


def found(learner: Learner, some: Task) -> list[Tensor | None]:
    loss, metrics, grads = loss_and_gradient(learner, some)
    return [loss, metrics["accuracy"], *grads]


def recorded(learner: Learner) -> int:
    situations = graph_cache._situations.get(learner, {})
    return sum(s.recording is not None for s in situations.values())


def frozen(learner: Learner) -> None:
    next(learner.parameters()).requires_grad_(False)


def moved(learner: Learner) -> None:
    with torch.no_grad():
        for p in learner.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)


CHANGES: dict[str, Callable[[Learner], object]] = {
    "nothing": lambda learner: None,
    "weights": moved,
    "a setting": lambda learner: setattr(learner, "inner_lr", 0.9),
    "the order of derivatives": lambda learner: setattr(learner, "first_order", True),
    "a frozen weight": frozen,
    "the mode": lambda learner: learner.train(),
    "a module's setting": lambda learner: setattr(
        learner.net[1], "negative_slope", 0.7
    ),
    "a module": lambda learner: setattr(
        learner,
        "net",
        nn.Sequential(
            nn.Linear(4, 40), nn.Tanh(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3)
        ),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_after_the_recording_counts(change: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 40), nn.LeakyReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3)
    )
    learner = MAML.build(SPEC, net=net, inner_lr=0.1)
    for seed in range(4):
        assert all(
            torch.equal(f, e)
            for f, e in zip(
                found(learner, tasks(seed)), expected(learner, tasks(seed)), strict=True
            )
        )
    assert recorded(learner) == 1
    CHANGES[change](learner)
    for seed in range(4, 9):
        torch.testing.assert_close(
            found(learner, tasks(seed)), expected(learner, tasks(seed)), rtol=0, atol=0
        )
    assert recorded(learner) == (1 if change in ("nothing", "weights") else 2)


def test_a_tensor_that_is_no_buffer_counts_too() -> None:
    class Scaled(nn.Module):
        recordable = True

        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.ones(())

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    scaled = Scaled()
    learner = ProtoNet.build(SPEC, encoder=nn.Sequential(scaled, nn.Linear(4, 4)))
    for seed in range(12):
        if seed == 5:
            scaled.factor = torch.tensor(2.0)
        if seed == 9:
            scaled.factor.mul_(2)
        torch.testing.assert_close(
            found(learner, tasks(seed)), expected(learner, tasks(seed)), rtol=0, atol=0
        )
    assert recorded(learner) == 0  # its values are not among what a recording is given


def test_another_number_of_tasks_is_another_situation() -> None:
    learner = ProtoNet.build(SPEC)
    for n in (3, 3, 3, 3, 5, 5, 5, 5, 3):
        torch.testing.assert_close(
            found(learner, tasks(n, n)), expected(learner, tasks(n, n)), rtol=0, atol=0
        )
    assert recorded(learner) == 2


def test_what_is_drawn_at_random_is_not_recorded() -> None:
    learner = MAML.build(
        SPEC, net=nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3))
    ).train()
    losses = {float(loss_and_gradient(learner, tasks(0))[0]) for _ in range(8)}
    assert len(losses) == 8
    assert recorded(learner) == 0


def test_what_reads_values_is_not_recorded() -> None:
    class Peeking(nn.Module):
        recordable = True

        def forward(self, x: Tensor) -> Tensor:
            return x * float(x.sum().item() > 0)

    learner = ProtoNet.build(SPEC, encoder=nn.Sequential(Peeking(), nn.Linear(4, 4)))
    for seed in range(6):
        torch.testing.assert_close(
            found(learner, tasks(seed, 1)),
            expected(learner, tasks(seed, 1)),
            rtol=0,
            atol=0,
        )
    assert recorded(learner) == 0


def test_hooks_are_called_every_time() -> None:
    learner, calls = MAML.build(SPEC), []
    learner.net.register_forward_hook(lambda module, args, output: calls.append(1))
    for n in range(1, 7):
        calls.clear()
        loss_and_gradient(learner, tasks(n))
        assert calls


def test_a_recording_goes_with_its_learner() -> None:
    learner = MAML.build(SPEC)
    for _ in range(4):
        loss_and_gradient(learner, tasks(0))
    count = len(graph_cache._situations)
    del learner
    gc.collect()
    assert len(graph_cache._situations) == count - 1


class Odd(nn.Module):
    """A layer with settings in odd places."""

    recordable = True

    def __init__(self) -> None:
        super().__init__()
        self._factor = 1.0
        self.table = {"factor": [1.0]}
        self.holder = Bernoulli()
        object.__setattr__(self.holder, "temperature", 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return x * self._factor * self.table["factor"][0] * self.holder.temperature  # pyright: ignore[reportAttributeAccessIssue]


ODD: dict[str, Callable[[Odd], object]] = {
    "a private attribute": lambda odd: setattr(odd, "_factor", 2.0),
    "an entry of a table": lambda odd: odd.table["factor"].__setitem__(0, 2.0),
    "an attribute of an object": lambda odd: object.__setattr__(
        odd.holder, "temperature", 2.0
    ),
}


@pytest.mark.parametrize("change", ODD)
def test_settings_in_odd_places_count(change: str) -> None:
    odd = Odd()
    learner = ProtoNet.build(SPEC, encoder=nn.Sequential(nn.Linear(4, 4), odd))
    for seed in range(12):
        if seed == 7:
            assert recorded(learner) == 1
            ODD[change](odd)
        torch.testing.assert_close(
            found(learner, tasks(seed)), expected(learner, tasks(seed)), rtol=0, atol=0
        )
    assert recorded(learner) == 2


def test_settings_that_cannot_be_compared_are_not_recorded() -> None:
    learner = ProtoNet.build(SPEC)
    learner.encoder.table = np.ones(3)  # pyright: ignore[reportArgumentType]
    for seed in range(6):
        found(learner, tasks(seed))
    assert not recorded(learner)


def listed(x: Tensor) -> Tensor:
    return x * (1.0 if x[0].tolist()[0] > 0 else 2.0)


def through_numpy(x: Tensor) -> Tensor:
    return x * torch.from_numpy(np.sign(x.detach().numpy()))


def chance(x: Tensor) -> Tensor:
    return x * (1.0 if random.random() < 0.9 else 2.0)


@pytest.mark.parametrize("peek", [listed, through_numpy, chance])
def test_what_values_or_chance_decide_is_not_recorded(
    peek: Callable[[Tensor], Tensor],
) -> None:
    class Peeking(nn.Module):
        recordable = True

        def forward(self, x: Tensor) -> Tensor:
            return peek(x)

    learner = ProtoNet.build(SPEC, encoder=nn.Sequential(Peeking(), nn.Linear(4, 4)))
    for seed in range(8):
        random.seed(seed)
        result = found(learner, tasks(seed, 1))
        random.seed(seed)
        torch.testing.assert_close(
            result, expected(learner, tasks(seed, 1)), rtol=0, atol=0
        )
    assert recorded(learner) == 0


def test_what_is_written_is_written_once() -> None:
    learner = ProtoNet.build(
        SPEC, encoder=nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    ).train()
    for seed in range(8):
        found(learner, tasks(seed, 1))
    assert learner.encoder[1].num_batches_tracked == 8  # pyright: ignore[reportIndexIssue]
    assert recorded(learner) == 0


def test_hooks_of_parameters_and_gradients_count() -> None:
    learner = ProtoNet.build(SPEC)
    for seed in range(6):
        found(learner, tasks(seed))
    assert recorded(learner) == 1
    handle = next(learner.parameters()).register_hook(torch.zeros_like)
    assert not any(
        float(g.abs().sum()) for g in found(learner, tasks(0))[2:3] if g is not None
    )
    handle.remove()


def test_statistics_that_are_wanted_are_handed_out() -> None:
    learner = ProtoNet.build(
        TaskSpec("classes", (4,), 3),
        encoder=nn.Sequential(nn.Linear(4, 8), BatchNorm(8)),
    )
    for seed in range(6):
        found(learner, tasks(seed))
    assert recorded(learner) == 1
    for _ in range(8):
        with use_batch(learner) as notes:
            found(learner, tasks(0, 1))
        assert notes.moments()
    inside = expected(learner, tasks(0))
    for _ in range(6):
        with use_batch():
            measuring = found(learner, tasks(0))
    assert float(measuring[0]) != float(inside[0])  # pyright: ignore[reportArgumentType]


def test_recordings_are_few_however_many_the_situations() -> None:
    learner = ProtoNet.build(SPEC)
    for n in range(1, 13):
        for _ in range(4):
            loss_and_gradient(learner, tasks(n, n))
    assert recorded(learner) == graph_cache.MAX_RECORDINGS


def test_what_takes_very_many_operations_is_not_recorded() -> None:
    learner = MAML.build(SPEC, inner_steps=30)
    for seed in range(4):
        torch.testing.assert_close(
            found(learner, tasks(seed)), expected(learner, tasks(seed)), rtol=0, atol=0
        )
    assert recorded(learner) == 0


def test_a_recording_that_the_next_call_contradicts_is_dropped() -> None:
    elsewhere = [1.0]

    class Reading(nn.Module):
        recordable = True

        def forward(self, x: Tensor) -> Tensor:
            return x * elsewhere[0]

    learner = ProtoNet.build(SPEC, encoder=nn.Sequential(Reading(), nn.Linear(4, 4)))
    for seed in range(8):
        elsewhere[0] = 1.0 if seed < 3 else 2.0
        torch.testing.assert_close(
            found(learner, tasks(seed)), expected(learner, tasks(seed)), rtol=0, atol=0
        )
    assert recorded(learner) == 0


class Factor(nn.Module):
    """A layer that depends on a value outside of it and says that it does not."""

    recordable = True
    value: ClassVar[list[float]] = [1.0]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.value[0]


def test_a_recording_that_goes_out_of_date_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Factor, "value", [1.0])
    learner = ProtoNet.build(SPEC, encoder=nn.Sequential(nn.Linear(4, 4), Factor()))
    for seed in range(40):
        found(learner, tasks(seed))
    assert recorded(learner) == 1
    Factor.value[0] = 100.0

    def train_on() -> None:
        for seed in range(100):
            found(learner, tasks(seed))

    with pytest.raises(InnerloopError, match="ProtoNet depends on more than its"):
        train_on()
    assert recorded(learner) == 0
    torch.testing.assert_close(
        found(learner, tasks(0)), expected(learner, tasks(0)), rtol=0, atol=0
    )


def test_recordings_with_other_options_are_apart() -> None:
    learner = IMAML.build(SPEC, inner_steps=2)
    batch = tasks(0)
    found = {
        damping: [implicit(learner, batch, damping=damping)[0] for _ in range(9)][-1]
        for damping in (2.0, 20.0)
    }
    assert recorded(learner) > 2
    for damping, grads in found.items():
        again = IMAML.build(SPEC, inner_steps=2)
        again.load_state_dict(learner.state_dict())
        expected, _ = implicit(again, batch, damping=damping)
        torch.testing.assert_close(grads, expected)
    assert not torch.equal(
        found[2.0]["net.head.weight"], found[20.0]["net.head.weight"]
    )


def test_rechecks_come_at_growing_intervals() -> None:
    learner, calls = ProtoNet.build(SPEC), []
    theta = dict(learner.named_parameters())

    def function(theta: dict[str, Tensor], some: Task) -> Tensor:
        calls.append(1)
        return (some.query.x.sum() * theta["log_scale"]).detach()

    for step in range(70):
        calls.clear()
        graph_cache.graph_cached(learner, function, theta, tasks(step))
        replays = step - graph_cache.AFTER  # three calls, and one more comparison
        assert bool(calls) == (replays in (-3, -2, -1, 0, 4, 8, 16, 32, 64))


class Own(ProtoNet):
    """A user's learner: its code is not known."""


class OwnLayer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print("called")
        return x


def doubled(x: Tensor) -> Tensor:
    return 2 * x


def build_own_function() -> ProtoNet:
    learner = ProtoNet.build(SPEC)
    learner.encoder.activation = doubled  # pyright: ignore[reportArgumentType]
    return learner


UNKNOWN: dict[str, Callable[[], Learner]] = {
    "a learner": lambda: Own.build(SPEC),
    "a layer": lambda: ProtoNet.build(SPEC, encoder=OwnLayer()),
    "a function": build_own_function,
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_unknown_code_is_not_recorded(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    learner = UNKNOWN[what]()
    for seed in range(8):
        found(learner, tasks(seed))
        assert bool(capsys.readouterr().out) == (what == "a layer")
    assert recorded(learner) == 0


def test_recordable_is_not_inherited() -> None:
    class Declared(Own):
        recordable = True

    class Inherits(Declared):
        pass

    assert ProtoNet.recordable
    assert not Own.recordable
    assert Declared.recordable
    assert not Inherits.recordable


rng = np.random.default_rng(0)


def test_a_generator_that_no_attribute_holds_is_not_recorded() -> None:
    class Dropping(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0 if rng.random() < 0.2 else x

    for _ in range(5):
        learner = ProtoNet.build(
            SPEC, encoder=nn.Sequential(nn.Linear(4, 4), Dropping())
        )
        losses = {float(loss_and_gradient(learner, tasks(0))[0]) for _ in range(40)}
        assert len(losses) > 1


def test_recordings_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERLOOP_GRAPH_CACHE", "0")
    learner = ProtoNet.build(SPEC)
    for seed in range(8):
        found(learner, tasks(seed))
    assert recorded(learner) == 0


def test_threads_share_a_recording() -> None:
    learner = MAML.build(SPEC)
    wanted = [expected(learner, tasks(seed)) for seed in range(4)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(12):
            results = found(learner, tasks(seed))
            if not all(map(torch.equal, results, wanted[seed])):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert recorded(learner) == 1
