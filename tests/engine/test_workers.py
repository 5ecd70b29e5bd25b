"""Processes that cannot be connected."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import torch
from torch import distributed

from innerloop.engine import torchrun
from innerloop.engine.errors import InnerloopError
from innerloop.engine.workers import ALONE, joined
from innerloop.training import gpu_noise, set_gpu_noise


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The environment of the first of two processes, whose port is in use."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen()
        port = opened.getsockname()[1]
        variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        for name, value in {**variables, "MASTER_PORT": str(port)}.items():
            monkeypatch.setenv(name, value)
        yield port


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")  # of a queue of jobs, and nothing else
    assert joined() is ALONE
    assert (torchrun.rank(), torchrun.local_rank(), torchrun.job()) == (0, 0, None)


def test_a_port_in_use_is_named(busy: int) -> None:
    with pytest.raises(InnerloopError, match=f"port {busy} of 127.0.0.1") as found:
        joined()
    assert len(str(found.value)) < 300


def test_a_torch_without_gloo_is_refused(
    busy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "is_gloo_available", lambda: False)
    with pytest.raises(InnerloopError, match="has no gloo"):
        joined()


def test_every_process_needs_a_gpu(busy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for name, value in (("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(InnerloopError, match="has 1: use at most 1"):
                joined("cuda")
    with pytest.raises(InnerloopError, match="write --device cuda; got cuda:0"):
        joined("cuda:0")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(InnerloopError, match="has no GPU that torch can use"):
        joined("cuda")
    with pytest.raises(InnerloopError, match="no device 'gpu' here"):
        joined("gpu")


def test_a_job_is_named_also_where_torchrun_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    assert torchrun.job() == "mine"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert str(torchrun.job()).startswith(socket.gethostname())


def test_gpus_continue_with_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first process saves is for the GPUs of all."""
    gpus = [torch.full((1,), number) for number in (7, 8, 9)]
    monkeypatch.setattr("torch.cuda.get_rng_state", lambda device: gpus[device.index])
    monkeypatch.setattr(
        "torch.cuda.set_rng_state",
        lambda state, device: gpus.__setitem__(device.index, state),
    )
    first, last = torch.device("cuda:0"), torch.device("cuda:2")
    saved = gpu_noise(first)
    set_gpu_noise(saved, last)
    assert [int(state) for state in gpus] == [7, 8, 7]
    set_gpu_noise([torch.tensor(number) for number in (1, 2, 3)], last)  # of all GPUs
    assert [int(state) for state in gpus] == [7, 8, 3]
    cpu = torch.device("cpu")
    assert gpu_noise(cpu) == []
    set_gpu_noise(saved, cpu)
    set_gpu_noise([], first)
    assert [int(state) for state in gpus] == [7, 8, 3]
