"""A cluster that cannot be reached is an error, at once."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from innerloop.engine import ray_cluster
from innerloop.engine.errors import InnerloopError


def connected(
    monkeypatch: pytest.MonkeyPatch, address: str, problem: Exception | None = None
) -> list[dict[str, Any]]:
    """How Ray is started for an address."""
    calls = list[dict[str, Any]]()

    def init(**arguments: Any) -> None:
        calls.append(arguments)
        if problem is not None:
            raise problem

    fake = SimpleNamespace(
        is_initialized=lambda: False, init=init, shutdown=lambda: None
    )
    monkeypatch.setattr(ray_cluster, "imported", lambda: fake)
    with ray_cluster.connected(address):
        return calls


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_must_answer(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        assert connected(monkeypatch, address)[0]["address"] == address
    for silent in (address, f"{scheme}127.0.0.1:99999"):
        with pytest.raises(InnerloopError, match=f"nothing answers at {silent}"):
            connected(monkeypatch, silent, AssertionError())


def test_any_problem_of_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connected(monkeypatch, "auto")[0]["address"] == "auto"
    with pytest.raises(InnerloopError, match="cannot be reached: the node timed out"):
        connected(monkeypatch, ray_cluster.LOCAL, Exception("the node timed out"))
