"""A replayed gradient is the gradient, whatever has changed since it was recorded."""

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from innerloop import MAML, Learner, ProtoNet, Task, TaskSpec
from innerloop.core.metagrad import loss_and_gradient
from innerloop.engine import replay
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (4,), 3)


def tasks(seed: int, n: int = 3) -> Task:
    return Blobs(SPEC).sample(n, torch.Generator().manual_seed(seed))


def expected(learner: Learner, some: Task) -> list[Tensor]:
    loss, metrics = learner(some)
    return [loss.detach(), metrics["accuracy"], *torch.autograd.grad(loss, [p for p in learner.parameters() if p.requires_grad])]


def found(learner: Learner, some: Task) -> list[Tensor | None]:
    loss, metrics, grads = loss_and_gradient(learner, some)
    return [loss, metrics["accuracy"], *grads]


def recorded(learner: Learner) -> int:
    return sum(graph is not None for graph in replay._recordings[learner].kept.values())


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
    "a module's setting": lambda learner: setattr(learner.net[1], "negative_slope", 0.7),
    "a module": lambda learner: setattr(learner, "net", nn.Sequential(nn.Linear(4, 40), nn.Tanh(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_after_the_recording_counts(change: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 40), nn.LeakyReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))
    learner = MAML.build(SPEC, net=net, inner_lr=0.1)
    for seed in range(4):
        assert all(torch.equal(f, e) for f, e in zip(found(learner, tasks(seed)), expected(learner, tasks(seed)), strict=True))
    assert recorded(learner) == 1
    CHANGES[change](learner)
    for seed in range(4, 9):
        torch.testing.assert_close(found(learner, tasks(seed)), expected(learner, tasks(seed)), rtol=0, atol=0)
    assert recorded(learner) == (1 if change in ("nothing", "weights") else 2)


def test_a_tensor_that_is_no_buffer_counts_too() -> None:
    class Scaled(nn.Module):
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
        torch.testing.assert_close(found(learner, tasks(seed)), expected(learner, tasks(seed)), rtol=0, atol=0)
    assert recorded(learner) > 0


def test_another_number_of_tasks_is_another_situation() -> None:
    learner = ProtoNet.build(SPEC)
    for n in (3, 3, 3, 3, 5, 5, 5, 5, 3):
        torch.testing.assert_close(found(learner, tasks(n, n)), expected(learner, tasks(n, n)), rtol=0, atol=0)
    assert recorded(learner) == 2


def test_what_is_drawn_at_random_is_not_recorded() -> None:
    learner = MAML.build(SPEC, net=nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3))).train()
    losses = {float(loss_and_gradient(learner, tasks(0))[0]) for _ in range(8)}
    assert len(losses) == 8
    assert recorded(learner) == 0


def test_what_reads_values_is_not_recorded() -> None:
    class Peeking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float(x.sum().item() > 0)

    learner = ProtoNet.build(SPEC, encoder=nn.Sequential(Peeking(), nn.Linear(4, 4)))
    for seed in range(6):
        torch.testing.assert_close(found(learner, tasks(seed, 1)), expected(learner, tasks(seed, 1)), rtol=0, atol=0)
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
    count = len(replay._recordings)
    del learner
    gc.collect()
    assert len(replay._recordings) == count - 1
