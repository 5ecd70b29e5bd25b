"""What meta-gradients ask for, give back and leave alone; their values are in
learners/test_references.py.
"""

import gc
import sys
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from innerloop.core.descent import Descent
from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine import population
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.learners import LEARNERS
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.learners.optimization.imaml import IMAML
from innerloop.learners.optimization.maml import MAML
from innerloop.learners.optimization.meta_sgd import MetaSGD
from innerloop.metagrad import (
    META_GRADIENTS,
    Gradient,
    Implicit,
    MetaGradient,
    Reptile,
    backprop,
    es,
    implicit,
    reptile,
)
from innerloop.metagrad.base import GradientFunction, Grads
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (4,), 3)


def tasks(n: int = 2) -> Task:
    return Blobs(SPEC).sample(n, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("how", [Reptile(), Implicit()])
def test_a_learner_without_weights_is_refused(how: MetaGradient) -> None:
    message = f"{type(how).__name__} cannot train ProtoNet: it needs a Descent"
    with pytest.raises(InnerloopTypeError, match=message):
        how.prepare(ProtoNet.build(SPEC), Blobs(SPEC), torch.Generator())
    with pytest.raises(InnerloopTypeError, match="ProtoNet"):
        how(ProtoNet.build(SPEC), tasks)


@pytest.mark.parametrize("learner", [MAML.build(SPEC), MetaSGD.build(SPEC)])
def test_implicit_refuses_a_learner_without_proximal_term(learner: Learner) -> None:
    message = f"proximal term, such as IMAML; {type(learner).__name__} has none"
    with pytest.raises(InnerloopTypeError, match=message):
        implicit(learner, tasks())
    with pytest.raises(InnerloopTypeError, match=message):
        Implicit().check(learner, Blobs(SPEC))


@pytest.mark.parametrize(
    ("name", "learner"),
    [
        ("backprop", "MAML"),
        ("reptile", "MAML"),
        ("implicit", "IMAML"),
        ("es", "ProtoNet"),
    ],
)
def test_gradients_fit_their_parameters_and_nothing_is_changed(
    name: str, learner: str
) -> None:
    torch.manual_seed(0)
    student = {"MAML": MAML, "IMAML": IMAML, "ProtoNet": ProtoNet}[learner].build(SPEC)
    theta, before = (
        dict(student.named_parameters()),
        {n: p.detach().clone() for n, p in student.named_parameters()},
    )
    update = META_GRADIENTS[name]()(student, tasks)
    assert isinstance(update, Gradient)
    grads, metrics = update.grads, update.metrics
    assert set(grads) == set(theta)
    for key, grad in grads.items():
        assert grad is not None
        assert grad.shape == theta[key].shape
        assert not grad.requires_grad
        assert theta[key].grad is None
        assert torch.equal(theta[key], before[key])
    assert {"loss", "accuracy"} <= set(metrics)
    assert all(
        value.shape == () and not value.requires_grad for value in metrics.values()
    )


def test_backprop_takes_a_few_tasks_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    learner, sizes = MAML.build(SPEC), []
    whole, means = backprop(learner, tasks(5))
    monkeypatch.setattr(
        sys.modules["innerloop.metagrad.base"],
        "CHUNK_NUMBERS",
        2 * sum(part.x[0].numel() for part in tasks(1)),
    )
    learner.register_forward_pre_hook(
        lambda module, args: sizes.append(len(args[0].query.y))
    )
    parts, also = backprop(learner, tasks(5))
    assert sizes == [2, 2, 1]
    for name, grad in whole.items():
        torch.testing.assert_close(parts[name], grad)
    torch.testing.assert_close(also, means)


def recomputing(recompute: bool, **build_args: Any) -> tuple[Learner, Task]:
    torch.manual_seed(0)
    kind = build_args.pop("kind", MAML)
    net = nn.Sequential(
        nn.Linear(4, 64),
        nn.Tanh(),
        nn.Dropout(0.3),
        nn.Linear(64, 64),
        nn.Tanh(),
        nn.Linear(64, 3),
    )
    return kind.build(
        SPEC, net=net, inner_steps=20, recompute=recompute, **build_args
    ).train(), tasks(3)


@pytest.mark.parametrize(
    "build_args",
    [{}, {"first_order": True}, {"kind": MetaSGD}, {"transductive": True}],
)
@pytest.mark.parametrize("n", [1, 3])
def test_recomputing_changes_no_gradient(build_args: dict[str, Any], n: int) -> None:
    grads = []
    for recompute in (False, True):
        learner, some = recomputing(recompute, **build_args)
        torch.manual_seed(1)  # dropout draws the same again on the way back
        loss, _ = learner(some.split(0)[0] if n == 1 else some)
        grads.append(torch.autograd.grad(loss, list(learner.parameters())))
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("frozen", [False, True])
def test_recomputing_what_stays_and_what_is_swapped_in(frozen: bool) -> None:
    grads = []
    for recompute in (False, True):
        torch.manual_seed(0)
        learner = MAML.build(SPEC, adapted="head", inner_steps=3, recompute=recompute)
        if frozen:
            learner.net.encoder.requires_grad_(False)  # pyright: ignore[reportCallIssue]
        theta = {
            name: (1.5 * p.detach()).requires_grad_(p.requires_grad)
            for name, p in learner.named_parameters()
        }
        loss, _ = torch.func.functional_call(learner, theta, (tasks(3),))
        grads.append(
            torch.autograd.grad(loss, [p for p in theta.values() if p.requires_grad])
        )
    torch.testing.assert_close(*grads)


def test_recomputing_takes_the_precision_of_the_way_there() -> None:
    grads = []
    for recompute in (False, True):
        learner, some = recomputing(recompute)
        learner.eval()
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = learner(some)
        grads.append(torch.autograd.grad(loss, list(learner.parameters())))
    torch.testing.assert_close(*grads)


class Held:
    """A tensor that a graph remembers."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


def test_recomputing_remembers_the_weights_alone() -> None:
    remembered = []
    for recompute in (False, True):
        learner, some = recomputing(recompute)
        some = Task(Examples(*(t.repeat(1, 100, 1) for t in some.support)), some.query)
        held: weakref.WeakSet[Held] = weakref.WeakSet()

        def hold(tensor: Tensor, held: weakref.WeakSet[Held] = held) -> Held:
            held.add(box := Held(tensor))
            return box

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda box: box.tensor):
            loss, _ = learner(some.split(0)[0])
        storages = [box.tensor.untyped_storage() for box in held]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
        remembered.append(sum(sizes.values()))
        del loss
    weights = sum(4 * p.numel() for p in learner.parameters())
    assert remembered[1] < 27 * weights, "the weights of 20 steps, and one query"
    assert remembered[0] > 10 * remembered[1]


def test_meta_steps_leave_no_tensors_behind() -> None:
    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    learner, some = recomputing(True)
    plain, _ = recomputing(False)
    backprop(learner, some), backprop(plain, some)
    before = alive()
    for _ in range(3):
        backprop(learner, some), backprop(plain, some)
    assert alive() <= before


@pytest.mark.parametrize("how", [backprop, es])
def test_frozen_parameters_get_no_gradient(how: GradientFunction) -> None:
    learner = ProtoNet.build(SPEC)
    learner.log_scale.requires_grad_(False)
    assert set(how(learner, tasks())[0]) == {
        f"encoder.{name}" for name, _ in learner.encoder.named_parameters()
    }


def test_backprop_gives_none_for_what_the_loss_does_not_use() -> None:
    learner = ProtoNet(nn.Linear(4, 2), metric="cosine")
    learner.unused = nn.Parameter(torch.ones(1))
    grads, _ = backprop(learner, tasks())
    assert grads["unused"] is None
    assert isinstance(grads["encoder.weight"], Tensor)


def test_metrics_are_means_over_tasks() -> None:
    learner, batch = ProtoNet(nn.Linear(4, 2)), tasks(5)
    losses, metrics = zip(*(learner.loss(task) for task in batch.unbind()), strict=True)
    found = backprop(learner, batch)[1]
    torch.testing.assert_close(found["loss"], torch.stack(losses).mean().detach())
    torch.testing.assert_close(
        found["accuracy"], torch.stack([m["accuracy"] for m in metrics]).mean()
    )


def test_reptile_leaves_learned_rates_alone() -> None:
    learner = MetaSGD.build(SPEC)
    assert set(reptile(learner, tasks())[0]) == {
        f"net.{name}" for name, _ in learner.net.named_parameters()
    }


def test_es_repeats_itself_with_one_seed() -> None:
    learner = ProtoNet(nn.Linear(4, 2))
    runs = [
        es(learner, tasks(), pairs=2, generator=torch.Generator().manual_seed(seed))[0][
            "encoder.weight"
        ]
        for seed in (0, 0, 1)
    ]
    assert all(isinstance(run, Tensor) for run in runs)
    assert torch.equal(runs[0], runs[1])  # type: ignore[arg-type]
    assert not torch.equal(runs[0], runs[2])  # type: ignore[arg-type]


def es_both_ways(
    learner: Learner, monkeypatch: pytest.MonkeyPatch, **build_args: Any
) -> list[Grads]:
    """The gradient of es, its members evaluated all at once and one by one."""
    found = []
    for at_once in (2**20, 0):
        monkeypatch.setattr(population, "CHUNK_NUMBERS", at_once)
        torch.manual_seed(7)  # dropout, latent variables
        found.append(
            es(
                learner,
                tasks(),
                pairs=3,
                generator=torch.Generator().manual_seed(0),
                **build_args,
            )[0]
        )
    return found


@pytest.mark.parametrize(
    ("kind", "training"),
    [(ProtoNet, False), (MAML, False), (MAML, True), (IMAML, False)],
)
def test_es_at_once_is_es_one_by_one(
    kind: type[Learner], training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    learner = kind.build(SPEC)
    if training:
        learner = MAML.build(
            SPEC,
            net=nn.Sequential(
                nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)
            ),
        ).train()
    at_once, one_by_one = es_both_ways(learner, monkeypatch)
    torch.testing.assert_close(at_once, one_by_one, rtol=1e-3, atol=1e-4)


class Noisy(Learner):
    """A loss that is random, and may depend on the value of a parameter."""

    branches: bool = False

    def __post_init__(self) -> None:
        self.w = nn.Parameter(torch.zeros(3))
        super().__post_init__()

    def adapt(self, support: Examples) -> Tensor:
        return self.w

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return x @ torch.ones(4, 3)

    def loss(self, task: Task) -> tuple[Tensor, dict[str, Tensor]]:
        noise = torch.randn(())
        large = self.branches and float(self.w[0].detach()) > 9
        return noise if large else noise + self.w.sum(), {}


@pytest.mark.filterwarnings("ignore:Noisy is run task by task")
@pytest.mark.parametrize("branches", [False, True])
def test_members_of_es_draw_the_same_random_numbers(
    branches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for found in es_both_ways(Noisy(branches=branches), monkeypatch, sigma=1e-2):
        grad = found["w"]
        assert grad is not None
        noise = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(
            grad, (noise.sum(1, keepdim=True) * noise).mean(0), rtol=1e-3, atol=1e-3
        )


@pytest.mark.filterwarnings("ignore:Noisy is run task by task")
@pytest.mark.parametrize("branches", [False, True])
def test_es_draws_as_much_as_one_evaluation(branches: bool) -> None:
    learner = Noisy(branches=branches)
    torch.manual_seed(0)
    es(learner, tasks(), pairs=3)
    after = torch.randn(3)
    torch.manual_seed(0)
    noise = torch.randn(3, 3)
    assert noise.shape == (3, 3)
    learner(tasks())
    assert torch.equal(after, torch.randn(3))


def test_es_ranks_losses_that_are_not_finite_last() -> None:
    class Broken(Noisy):
        """Diverges for half of the members."""

        def loss(self, task: Task) -> tuple[Tensor, dict[str, Tensor]]:
            return torch.where(self.w[0] > 0, torch.nan, self.w[0] * 1.0), {}

    grad = es(Broken(), tasks(), pairs=32, ranked=True)[0]["w"]
    assert grad is not None
    assert bool(torch.isfinite(grad).all())
    assert float(grad[0]) > 2 * float(grad[1:].abs().max()), (
        "a loss that is not finite ranks last"
    )


def freeze(learner: Learner, name: str) -> None:
    learner.get_parameter(name).requires_grad_(False)


INNER: dict[str, dict[str, Any]] = {
    "maml": {"inner_lr": 0.1},
    "metasgd": {},
    "imaml": {"inner_steps": 3},
    "metalstm": {"inner_steps": 2},
    "scratch": {"inner_steps": 2},
    "l2o": {"inner_steps": 2},
}


def two_layers() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    net[0].requires_grad_(False)
    return net


@pytest.mark.parametrize("name", INNER)
def test_adaptation_leaves_frozen_weights_alone(name: str) -> None:
    torch.manual_seed(0)
    learner = LEARNERS[name].build(SPEC, net=two_layers(), **INNER[name])
    assert isinstance(learner, Descent)
    task = tasks().unbind()[0]
    state = learner.adapt(task.support)
    assert set(state) == {"2.weight", "2.bias"}
    assert not torch.equal(state["2.weight"], learner.net.get_parameter("2.weight"))
    assert learner.predict(state, task.query.x).shape == (9, 3)


@pytest.mark.parametrize("how", [backprop, reptile, implicit])
def test_meta_gradients_leave_frozen_weights_alone(how: GradientFunction) -> None:
    torch.manual_seed(0)
    learner = IMAML.build(SPEC, net=two_layers(), inner_steps=2)
    grads, _ = how(learner, tasks())
    assert set(grads) == {"net.2.weight", "net.2.bias"}


def test_es_members_adapt_the_same_weights() -> None:
    torch.manual_seed(0)
    learner = MAML.build(SPEC, net=two_layers(), inner_lr=0.5)
    before = learner(tasks())[0].detach()
    theta = {n: p.detach() for n, p in learner.named_parameters() if p.requires_grad}
    members = {name: torch.stack([p, p]) for name, p in theta.items()}
    losses = population.evaluated(
        learner, lambda some: learner(some)[0], members, tasks()
    )
    torch.testing.assert_close(losses, torch.stack([before, before]))


def test_integers_may_be_parameters_and_buffers() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)
            self.order = nn.Parameter(torch.tensor([3, 1, 2, 0]), requires_grad=False)
            self.register_buffer("calls", torch.zeros((), dtype=torch.long))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x[:, self.order])

    for kind in (MAML, IMAML):
        learner = kind.build(SPEC, net=Counted())
        for how in (backprop, reptile):
            assert set(how(learner, tasks())[0]) == {"net.head.weight", "net.head.bias"}
    assert implicit(learner, tasks())


def test_a_net_without_trainable_weights_is_an_error() -> None:
    learner = MAML.build(SPEC, net=nn.Linear(4, 3).requires_grad_(False))
    with pytest.raises(InnerloopError, match="MAML adapts the weights of net, and all"):
        learner.adapt(tasks().unbind()[0].support)
