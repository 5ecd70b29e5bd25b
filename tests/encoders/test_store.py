"""The store of vectors survives whatever happens to its file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest
import torch

from innerloop.encoders import store as module
from innerloop.encoders.store import FeatureStore

KEYS = [bytes([i]) * 32 for i in range(5)]
VECTORS = torch.arange(20.0).reshape(5, 4)


def filled() -> FeatureStore:
    store = FeatureStore("some encoder", 4)
    store.put(KEYS, VECTORS)
    return store


def holds(store: FeatureStore) -> bool:
    found = store.get(KEYS)
    return all(torch.equal(found[k], v) for k, v in zip(KEYS, VECTORS, strict=True))


def run(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], env=environment
    )


def test_vectors_come_back_and_others_do_not() -> None:
    store = filled()
    assert holds(store)
    assert store.get([b"x" * 32]) == {}
    assert FeatureStore("another encoder", 4).get(KEYS) == {}


def test_two_processes_write_at_the_same_time() -> None:
    code = """
        import sys, torch
        from innerloop.encoders.store import FeatureStore
        store, first = FeatureStore("some encoder", 4), int(sys.argv[1])
        for i in range(first, first + 40):
            store.put([i.to_bytes(32, "big")], torch.full((1, 4), float(i)))
    """
    processes = [run(code, str(first)) for first in (0, 20)]  # half of them in common
    assert [process.wait() for process in processes] == [0, 0]
    keys = [i.to_bytes(32, "big") for i in range(60)]
    found = FeatureStore("some encoder", 4).get(keys)
    assert [found[key][0].item() for key in keys] == list(range(60))


def test_a_process_that_is_killed_while_it_writes_leaves_the_rest() -> None:
    store = filled()
    code = """
        import os, signal, sqlite3, sys
        connection = sqlite3.connect(sys.argv[1])
        connection.execute("pragma cache_size = 1")  # so that pages reach the file
        for i in range(3000):
            row = os.urandom(32), b"x" * 1000
            connection.execute("insert into vectors values (?, ?)", row)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(code, str(store.file)).wait() != 0
    assert holds(store)
    assert store.file.stat().st_size < 100_000


@pytest.mark.parametrize("content", [b"", b"no database" * 1000, None])
def test_a_damaged_file_is_made_anew(content: bytes | None) -> None:
    store = filled()
    whole = store.file.read_bytes()
    store.file.write_bytes(
        whole[:4096] + os.urandom(len(whole) - 4096) if content is None else content
    )
    assert not holds_any(store)
    store.put(KEYS, VECTORS)
    assert holds(store)


def holds_any(store: FeatureStore) -> bool:
    return bool(store.get(KEYS))


def test_a_file_that_another_process_has_locked_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = filled()
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    with closing(sqlite3.connect(store.file)) as other:
        other.execute("begin exclusive")
        assert store.get(KEYS) == {}
        store.put([b"y" * 32], VECTORS[:1])
        other.rollback()
    assert holds(store)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where the folder should be")
    store = filled()
    assert store.get(KEYS) == {}


def test_a_full_disk_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled()
    real = sqlite3.connect

    def small(*arguments: object, **options: object) -> sqlite3.Connection:
        connection = real(*arguments, **options)  # pyright: ignore
        connection.execute("pragma max_page_count = 4")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    many = [os.urandom(32) for _ in range(1000)]
    store.put(many, torch.ones(1000, 4))
    assert store.get(many) == {}
    assert holds(store)


def test_a_file_that_cannot_be_written_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled()
    real = sqlite3.connect
    monkeypatch.setattr(
        sqlite3,
        "connect",
        lambda file, timeout: real(f"file:{file}?mode=ro", timeout, uri=True),
    )
    store.put([b"y" * 32], VECTORS[:1])
    assert holds(store)
    assert store.get([b"y" * 32]) == {}


def test_the_oldest_vectors_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 3 * 8)
    assert set(filled().get(KEYS)) == set(KEYS[2:])
