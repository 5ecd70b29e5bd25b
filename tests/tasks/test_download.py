"""Data files: found, downloaded, checked, and replaced where they are damaged."""

import hashlib
import io
import os
import platform
import subprocess
import sys
import time
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.engine.folders import cache_folder, data_folder
from innerloop.tasks import download
from innerloop.tasks.download import fetch, replacing

CONTENT = b"official" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Response(io.BytesIO):
    """What urlopen returns; the announced length may be another than the content's."""

    def __init__(self, content: bytes, announced: int | None):
        super().__init__(content)
        self.headers = {} if announced is None else {"Content-Length": str(announced)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INNERLOOP_DATA", raising=False)
    return tmp_path / "cache"


def serve(
    monkeypatch: pytest.MonkeyPatch,
    content: bytes = CONTENT,
    announced: int | None = None,
) -> list[str]:
    """Answer downloads with content; the list of their addresses."""
    urls: list[str] = []

    def urlopen(url: str, timeout: float) -> Response:
        urls.append(url)
        return Response(content, announced)

    monkeypatch.setattr(download.urllib.request, "urlopen", urlopen)
    return urls


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("checksum", [SHA256, MD5, None])
def test_a_file_is_downloaded_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, checksum: str | None
) -> None:
    urls = serve(monkeypatch)
    for _ in range(2):
        assert fetch("set", "a/b.bin", "http://x/b", checksum).read_bytes() == CONTENT
    assert urls == ["http://x/b"]
    assert files(cache) == ["set/a/b.bin"]


def test_the_data_folder_comes_first_and_may_hold_another_packing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = serve(monkeypatch)
    monkeypatch.setenv("INNERLOOP_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "set").mkdir(parents=True)
    (tmp_path / "data" / "set" / "b.bin").write_bytes(b"packed anew")
    assert fetch("set", "b.bin", "http://x/b", SHA256).read_bytes() == b"packed anew"
    assert not urls
    assert not cache.exists()


@pytest.mark.parametrize("damaged", [CONTENT[:4000], b"", CONTENT[:-1] + b"x"])
def test_a_damaged_file_in_the_cache_is_downloaded_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch, damaged: bytes
) -> None:
    urls = serve(monkeypatch)
    (cache / "set").mkdir(parents=True)
    (cache / "set" / "b.bin").write_bytes(damaged)
    assert fetch("set", "b.bin", "http://x/b", SHA256).read_bytes() == CONTENT
    assert len(urls) == 1


@pytest.mark.parametrize(
    ("content", "announced", "size", "words"),
    [
        (CONTENT[:5000], 8000, None, "ended after 5,000 of 8,000 bytes"),
        (CONTENT[:5000], None, 8000, "ended after 5,000 of 8,000 bytes"),
        (CONTENT, None, 7999, "more than 7,999 bytes"),
        (CONTENT[:5000], None, None, "another checksum"),
        (b"", None, None, "another checksum"),
    ],
)
def test_a_bad_download_is_refused_and_leaves_nothing(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    announced: int | None,
    size: int | None,
    words: str,
) -> None:
    serve(monkeypatch, content, announced)
    with pytest.raises(InnerloopError, match=words):
        fetch("set", "b.bin", "http://x/b", SHA256, size)
    assert files(cache) == []


def test_a_download_without_a_known_size_is_bounded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch)
    monkeypatch.setattr(download, "MAX_BYTES", 100)
    with pytest.raises(InnerloopError, match="more than 100 bytes"):
        fetch("set", "b.bin", "http://x/b", None)
    assert files(cache) == []


@pytest.mark.parametrize("error", [IncompleteRead(b"x"), OSError("no network")])
def test_a_failed_download_names_the_file_and_each_folder_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def urlopen(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(download.urllib.request, "urlopen", urlopen)
    with pytest.raises(InnerloopFileError, match="set INNERLOOP_DATA") as caught:
        fetch("set", "b.bin", "http://x/b", SHA256)
    assert str(caught.value).count(str(cache)) == 1


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "file"))
    monkeypatch.delenv("INNERLOOP_DATA", raising=False)
    serve(monkeypatch)
    with pytest.raises(InnerloopFileError, match=r"cannot write .*b\.bin"):
        fetch("set", "b.bin", "http://x/b", SHA256)


def test_partial_files_of_ended_processes_are_removed(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from innerloop.tasks.download import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os._exit(0)
"""
    target = tmp_path / "a.bin"
    subprocess.run([sys.executable, "-c", script, str(target)], check=True)
    assert len(files(tmp_path)) == 1
    host = platform.node().replace(".", "-") or "localhost"
    old = tmp_path / ".a.bin.elsewhere.1.partial"
    new = tmp_path / ".a.bin.another-host.1.partial"
    own = tmp_path / f".b.bin.{host}.{os.getpid()}.partial"
    for file in (old, new, own):
        file.touch()
    os.utime(old, (time.time() - 90_000,) * 2)
    with replacing(target) as partial:
        partial.write_text("whole")
    assert target.read_text() == "whole"
    assert files(tmp_path) == sorted([new.name, own.name, "a.bin"])


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def write() -> None:
        with replacing(tmp_path / "a") as partial:
            partial.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert (tmp_path / "a").read_text() == "old"
    assert files(tmp_path) == ["a"]


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_an_unusable_cache_home_is_ignored(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.delenv("INNERLOOP_CACHE", raising=False)
    monkeypatch.delenv("INNERLOOP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_folder() == Path.home() / ".cache" / "innerloop" == data_folder()


def test_a_usable_cache_home_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("INNERLOOP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "innerloop"
