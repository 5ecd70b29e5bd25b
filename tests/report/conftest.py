"""Small runs to report on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from innerloop.cli import main

SIZES = "--ways 3 --shots 1 --queries 2"
THEMES = {
    "<script>alert(1)</script>": "html code tag script web page click link",
    "food & drink": "soup bread apple cheese rice pasta salad cake",
    "travel": "train ticket plane hotel map station airport bus",
    "sport": "ball goal match team race score run coach",
    "music": "song guitar drum piano singer band tune concert",
    "weather": "rain snow wind sun cloud storm ice fog",
}


def trained(line: str, out: Path, *further: str | Path) -> Path:
    """A new run of `innerloop train`."""
    assert main(["train", *line.split(), *map(str, further), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def proto(folder: Path) -> Path:
    line = f"protonet strokes --encoder mlp --steps 8 {SIZES}"
    return trained(line, folder / "proto")


@pytest.fixture(scope="session")
def maml(folder: Path) -> Path:
    return trained(
        f"maml strokes --net mlp --steps 4 {SIZES} --seed 1", folder / "maml"
    )


@pytest.fixture(scope="session")
def sines(folder: Path) -> list[Path]:
    return [
        trained("maml sinusoid --steps 4 --shots 5 --queries 6", folder / "sine"),
        trained("cnp sinusoid --steps 4 --shots 7 --queries 6", folder / "cnp"),
    ]


@pytest.fixture(scope="session")
def texts(folder: Path) -> Path:
    file = folder / "themes.csv"
    draw = random.Random(0)
    rows = [
        f"{' '.join(draw.sample(words.split(), 4))},{name}"
        for name, words in THEMES.items()
        for _ in range(12)
    ]
    file.write_text("\n".join(["text,label", *rows]))
    line = f"protonet text --encoder words --steps 3 --all-classes {SIZES}"
    return trained(line, folder / "texts", "--file", file)
