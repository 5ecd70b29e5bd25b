"""Frozen parameters stay where they are in the inner loop."""

import copy

import pytest
import torch
from torch import nn

from innerloop.core.descent import Descent
from innerloop.core.task import Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.learners import LEARNERS
from innerloop.learners.optimization import MAML
from innerloop.learners.transfer import FineTune, MetaTransfer
from innerloop.nets import Headed
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (6,), 3)
DESCENT = [cls for cls in LEARNERS.values() if issubclass(cls, Descent)]


def task() -> Task:
    return Blobs(SPEC).sample(1, torch.Generator().manual_seed(0)).unbind()[0]


def network() -> Headed:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh())
    net = Headed(body, 4, 3)
    net.register_buffer("context", torch.zeros(2))  # which CAVIA adapts
    return net


def assert_frozen_stay(learner: Descent, frozen: set[str]) -> None:
    before = copy.deepcopy(learner.state_dict())
    start = {name: p.detach().clone() for name, p in learner.net.named_parameters()}
    states = [learner.adapt(task().support), *learner.trajectory(task().support, 2)]
    for state in states:
        for name in frozen & state.keys():
            assert torch.equal(state[name], start[name]), name
    adapted = states[-1].keys() & start.keys()
    moved = {name for name in adapted if not torch.equal(states[-1][name], start[name])}
    assert moved or "context" in states[-1]
    assert not moved & frozen
    for name, value in learner.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("cls", DESCENT)
def test_layers_frozen_before_construction_stay(cls: type[Descent]) -> None:
    net = network()
    net.get_submodule("encoder.0").requires_grad_(False)
    learner = cls.build(SPEC, net=net)
    assert_frozen_stay(learner, {"encoder.0.weight", "encoder.0.bias"})


@pytest.mark.parametrize("cls", DESCENT)
def test_layers_frozen_after_construction_stay(cls: type[Descent]) -> None:
    learner = cls.build(SPEC, net=network())
    if not any(p.requires_grad for p in learner.net.parameters()):
        pytest.skip("its net is not meta-learned, and frozen as a whole")
    learner.net.get_submodule("encoder.0").requires_grad_(False)
    assert_frozen_stay(learner, {"encoder.0.weight", "encoder.0.bias"})


@pytest.mark.parametrize("cls", DESCENT)
def test_integer_parameters_are_left_alone(cls: type[Descent]) -> None:
    net = network()
    net.count = nn.Parameter(torch.zeros(2, dtype=torch.long), requires_grad=False)
    assert_frozen_stay(cls.build(SPEC, net=net), {"count"})


def test_a_network_that_is_frozen_as_a_whole_is_refused() -> None:
    learner = MAML.build(SPEC, net=network().requires_grad_(False))
    with pytest.raises(InnerloopError, match="all of them are frozen"):
        learner.adapt(task().support)
    net = network()
    net.head.requires_grad_(False)
    learner = MAML.build(SPEC, net=net, adapted="head")
    with pytest.raises(InnerloopError, match="all of its parameters are frozen"):
        learner.adapt(task().support)


def test_fine_tuning_adapts_no_frozen_layer() -> None:
    learner = FineTune.build(SPEC, adapted="all", encoder=network().encoder)
    learner.encoder[0].requires_grad_(False)  # pyright: ignore[reportIndexIssue]
    state = learner.adapt(task().support)
    assert set(state) == {"weight", "bias", "encoder.2.weight", "encoder.2.bias"}
    start = learner.encoder.get_parameter("2.weight")
    assert not torch.equal(state["encoder.2.weight"], start)


def test_a_frozen_head_stays_in_meta_transfer() -> None:
    learner = MetaTransfer.build(SPEC)
    learner.head.get_parameter("bias").requires_grad_(False)
    state = learner.adapt(task().support)
    assert torch.equal(state["bias"], learner.head.get_parameter("bias"))
    assert not torch.equal(state["weight"], learner.head.get_parameter("weight"))
