"""Cached tensors: computed once, replaced where damaged, bounded in size."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from innerloop.tasks import cache
from innerloop.tasks.cache import cached


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path))
    return tmp_path / "tensors"


def make(value: int, calls: list[int]) -> Any:
    def compute() -> Any:
        calls.append(value)
        return {"x": torch.full((100,), value, dtype=torch.uint8)}, {"value": value}

    return compute


def test_a_result_is_computed_once_for_each_key() -> None:
    calls: list[int] = []
    for _ in range(2):
        for key in (1, 2):
            tensors, data = cached("t", ["key", key], make(key, calls))
            assert tensors["x"].tolist() == [key] * 100
            assert data == {"value": key}
    assert calls == [1, 2]


@pytest.mark.parametrize("position", [0, 8, 20, -50])
def test_a_damaged_entry_is_made_again(folder: Path, position: int) -> None:
    calls: list[int] = []
    cached("t", 1, make(1, calls))
    (entry,) = folder.iterdir()
    content = bytearray(entry.read_bytes())
    content[position] ^= 4
    entry.write_bytes(content)
    for _ in range(2):
        assert cached("t", 1, make(1, calls))[0]["x"].tolist() == [1] * 100
    assert calls == [1, 1]


@pytest.mark.parametrize("length", [0, 7, 60, 200])
def test_a_truncated_entry_is_made_again(folder: Path, length: int) -> None:
    calls: list[int] = []
    cached("t", 1, make(1, calls))
    (entry,) = folder.iterdir()
    entry.write_bytes(entry.read_bytes()[:length])
    for _ in range(2):
        assert cached("t", 1, make(1, calls))[0]["x"].tolist() == [1] * 100
    assert calls == [1, 1]


def test_what_is_unused_for_longest_is_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    for key in (1, 2):
        cached("t", key, make(key, calls))
    size = max(entry.stat().st_size for entry in folder.iterdir())
    for entry in folder.iterdir():
        os.utime(entry, (1000, 1000))
    cached("t", 1, make(1, calls))  # used, so it is now the newest
    monkeypatch.setattr(cache, "MAX_BYTES", 2 * size)
    for key in (3, 1, 3):
        cached("t", key, make(key, calls))
    assert calls == [1, 2, 3]
    cached("t", 2, make(2, calls))
    assert calls == [1, 2, 3, 2]
