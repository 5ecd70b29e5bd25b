"""Commands as a person types them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from innerloop.cli import main

SMALL = "--ways 3 --shots 1 --queries 2 --encoder conv4 --seed 1"


def cli(line: str, *further: str | Path) -> int:
    """Run a command line; `further` words may hold spaces."""
    return main([*line.split(), *map(str, further)])


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail; returns its one line."""

    def run(line: str, *further: str | Path) -> str:
        capsys.readouterr()
        assert cli(line, *further) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert len(lines[0]) < 330
        return lines[0]

    return run


@pytest.fixture(scope="session")
def proto_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of ProtoNet on strokes."""
    folder = tmp_path_factory.mktemp("runs") / "proto"
    assert cli(f"train protonet strokes --steps 4 {SMALL} --out", folder) == 0
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 classes of 4 noisy copies of a random picture."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for c in range(12):
        (root / f"sign {c}").mkdir()
        base = rng.integers(0, 255, (40, 30, 3))
        for i in range(4):
            noise = rng.integers(-10, 10, base.shape)
            pixels = np.clip(base + noise, 0, 255).astype(np.uint8)
            suffix, kind = ("png", "PNG") if i % 2 else ("JPG", "JPEG")
            file = root / f"sign {c}" / f"{i}.{suffix}"
            Image.fromarray(pixels).save(file, format=kind)
    return root
