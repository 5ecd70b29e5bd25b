"""Commands in several processes: what is refused, and what is silent."""

from __future__ import annotations

import logging
import signal
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from innerloop.cli import launch
from innerloop.engine.errors import InnerloopError
from innerloop.engine.ray_cluster import LOCAL
from innerloop.metagrad import ES, on_ray
from tests.metagrad.test_resume import Planes


def started(
    monkeypatch: pytest.MonkeyPatch, address: str, processes: int, device: str
) -> int:
    """The exit code of a training on a Ray of two cores."""
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 2.0})
    monkeypatch.setattr(launch, "connected", lambda *_: nullcontext(ray))
    monkeypatch.setattr(launch, "_printed", nullcontext)
    modules = MagicMock()
    modules.TorchTrainer.return_value.fit.return_value.return_value = 0
    monkeypatch.setattr(launch, "imported", lambda name: modules)
    return launch.launch_on_ray(["train"], processes, address, device)


def test_processes_need_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, LOCAL, 2, "cpu") == 0
    with pytest.raises(InnerloopError, match="2 processes need a GPU each, and Ray ha"):
        started(monkeypatch, LOCAL, 2, "cuda")
    with pytest.raises(InnerloopError, match="write --device cuda; got cuda:1"):
        started(monkeypatch, LOCAL, 2, "cuda:1")
    assert not capsys.readouterr().out
    assert started(monkeypatch, "head:6379", 3, "cpu") == 0
    said = "3 processes need a core each, and Ray has 2 of them: waiting for more\n"
    assert capsys.readouterr().out == said


def test_members_are_evaluated_on_the_first_gpu_of_their_process() -> None:
    far = SimpleNamespace(device=torch.device("cuda:1"))
    learner: Any = SimpleNamespace(parameters=lambda: iter([far]))
    with pytest.raises(InnerloopError, match="compute on cuda; got cuda:1"):
        on_ray(ES()).prepare(learner, Planes(), torch.Generator())


def test_an_interrupt_of_all_processes_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.launcher import api

    def interrupted(*_: object) -> Any:
        raise SignalException("", signal.SIGINT)

    monkeypatch.setattr(api, "elastic_launch", lambda *_: interrupted)
    agent = logging.getLogger("torch.distributed.elastic.agent.server.api")
    before = agent.level
    try:
        assert launch.launch(["train"], 2) == 130
        assert not agent.isEnabledFor(logging.ERROR)
    finally:
        agent.setLevel(before)
