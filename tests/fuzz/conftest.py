"""`python -m pytest tests/fuzz --fuzz-seed N` repeats one case."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import world


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seed", type=int, help="run this case only, and print it")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good data and small trained runs."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INNERLOOP_CACHE", str(folder / "cache"))
        world.make(folder)
    return folder
