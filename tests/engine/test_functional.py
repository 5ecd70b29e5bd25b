"""Calls with other tensors: the same as torch's, and the module is never written to."""

import functools
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from innerloop.engine.errors import InnerloopError
from innerloop.engine.functional import (
    frozen_modules,
    functional_call,
    named_tensors,
    original,
    substituted,
    trainable_names,
)
from innerloop.nets.conv import Conv4


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).tanh())


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.cells = kind(2, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cells(x.view(-1, 2, 2))[0][:, -1]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(2, 1, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(-1, 2, 2)).flatten(1)


class Indirect(nn.Module):
    """Layers that are reached by a list, a method, a closure and a partial function."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.first, self.second, self.third = first, second, third
        self.listed = [{"layer": first}, torch.tanh]
        self.method = second.forward
        self.closure = lambda x: third(x).tanh()
        self.partial = functools.partial(nn.Module.__call__, first)
        self.forward = self.indirect  # as libraries that patch modules do

    def indirect(self, x: Tensor) -> Tensor:
        x = self.listed[1](self.listed[0]["layer"](x))  # pyright: ignore
        return self.partial(self.closure(self.method(x)))


NETS: dict[str, Any] = {
    "linear": lambda: nn.Linear(4, 3),
    "parametrized": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
    "normalized": lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)),
    "tied": Tied,
    "lstm": Recurrent,
    "gru": lambda: Recurrent(nn.GRU),
    "attention": Attention,
    "shared": lambda: nn.Sequential(*[nn.Linear(4, 4)] * 3),
    "indirect": Indirect,
    "hooked": lambda: hooked(nn.Linear(4, 3)),
}


def hooked(layer: nn.Linear) -> nn.Linear:
    layer.register_forward_hook(lambda module, args, output: output + module.bias)
    return layer


def tensors(net: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(p.shape, generator=generator)
        for name, p in net.named_parameters()
    }


@pytest.mark.parametrize("name", NETS)
def test_it_computes_what_torch_does(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name]().eval()
    x, new = torch.randn(5, 4), tensors(net)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    kept = {n: id(p) for n, p in net.named_parameters()}
    outputs = functional_call(net, new, (x,))
    assert not torch.equal(outputs, net(x))
    assert kept == {n: id(p) for n, p in net.named_parameters()}
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())
    # last: torch does not restore a module that has two names
    assert torch.equal(outputs, torch.func.functional_call(net, new, (x,)))


def test_calls_nest() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2)))
    outer, x = substituted(net, tensors(net)), torch.randn(3, 4)
    zeros = {name: torch.zeros_like(p) for name, p in outer[1].named_parameters()}
    assert not functional_call(outer[1], zeros, (outer[0](x),)).any()
    assert outer(x).any()
    assert original(outer) is net
    assert original(substituted(outer, {"0.bias": torch.ones(4)})) is net


def test_buffers_are_replaced_too_and_written_in_place() -> None:
    net = nn.BatchNorm1d(4)
    mean = torch.zeros(4)
    functional_call(net, {"running_mean": mean}, (torch.randn(8, 4) + 3,))
    assert mean.any()
    assert not net.running_mean.any()  # pyright: ignore[reportOptionalMemberAccess]
    assert net.num_batches_tracked == 1


def test_the_module_itself_is_called_with_its_own_tensors() -> None:
    net = nn.Linear(4, 3)
    assert substituted(net, dict(net.named_parameters())) is net


@pytest.mark.parametrize("name", ["wrong", "0.wrong", "wrong.weight"])
def test_an_unknown_name_is_an_error(name: str) -> None:
    with pytest.raises(InnerloopError, match=f"no parameter or buffer '{name}'"):
        functional_call(
            nn.Sequential(nn.Linear(4, 3)), {name: torch.ones(3)}, (torch.ones(1, 4),)
        )


def test_frozen_parameters_are_known_to_copies() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2), nn.ReLU()))
    net[0].requires_grad_(False)
    copy = substituted(net, tensors(net))
    for module in (net, copy):
        assert trainable_names(module) == ["1.0.weight", "1.0.bias"]
    assert frozen_modules(net) == {net[0]}
    net[1].requires_grad_(False)
    assert frozen_modules(net) == set(net.modules())


def test_threads_do_not_see_each_others_tensors() -> None:
    net, x = Conv4((1, 16, 16)).eval(), torch.randn(2, 1, 16, 16)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    news = [{n: p * (1 + i) for n, p in before.items()} for i in range(4)]
    wanted = [functional_call(net, new, (x,)) for new in news]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(30):
            if not torch.equal(functional_call(net, news[i], (x,)), wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())


@pytest.mark.parametrize(
    "build", [Tied, Recurrent, Attention, lambda: Conv4((1, 8, 8))]
)
def test_named_tensors_are_those_of_torch(build: Any) -> None:
    module = build()
    found = named_tensors(module)
    for own, expected in zip(
        found, (module.named_parameters(), module.named_buffers()), strict=True
    ):
        assert [(n, id(t)) for n, t in own.items()] == [(n, id(t)) for n, t in expected]
