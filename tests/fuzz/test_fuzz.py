"""Bad input never brings a command down: see `law`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.fuzz.generate import case
from tests.fuzz.law import check

SMOKE, FULL = 100, 5000
APART = 250  # one case in so many runs in a process of its own
SHOWN = 20  # failures that are printed


def failures(
    seeds: Iterable[int], base: Path, folder: Path, apart: bool = False
) -> list[str]:
    """How the cases with these seeds broke the law."""
    found = []
    for seed in seeds:
        made = case(seed, base, folder / str(seed))
        problem = check(made, apart and seed % APART == 0)
        shutil.rmtree(made.folder)
        if problem is not None:
            found.append(problem)
    return found


def report(found: list[str]) -> str:
    return f"{len(found)} failures; the first:\n" + "\n\n".join(found[:SHOWN])


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing depends on the data and the cache of this machine."""
    monkeypatch.setenv("INNERLOOP_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))


def test_smoke(base: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    seed = pytestconfig.getoption("--fuzz-seed", default=None)
    seeds = range(SMOKE) if seed is None else [seed]
    if seed is not None:
        capture = pytestconfig.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(f"\n{case(seed, base, tmp_path / 'shown')}")
    found = failures(seeds, base, tmp_path)
    assert not found, report(found)


@pytest.mark.slow
def test_full(base: Path, tmp_path: Path) -> None:
    found = failures(range(FULL), base, tmp_path, apart=True)
    assert not found, report(found)
