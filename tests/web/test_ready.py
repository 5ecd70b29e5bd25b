"""The ready model of drawings: it loads, is small, and knows doodles apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from innerloop import load
from innerloop.core.learner import Learner
from innerloop.core.task import Examples
from innerloop.readers.image import ImageReader
from innerloop.web import app, drawings
from tests.web.doodles import KINDS, doodle

READY = Path(app.__file__).parent / "ready" / "drawings"
EACH, TASKS, WAYS = 6, 40, 5


@pytest.fixture(scope="module")
def learner() -> Learner:
    return load(READY)


def test_its_folder_is_small_and_says_nothing_of_a_machine() -> None:
    files = {file.name: file for file in READY.iterdir()}
    assert set(files) == {"experiment.json", "weights.safetensors"}
    assert sum(file.stat().st_size for file in files.values()) < 500_000
    for file in files.values():
        content = file.read_bytes()
        for word in (b"/work", b"/home", b"/root", b"/tmp"):
            assert word not in content


def test_it_reads_drawings(learner: Learner) -> None:
    assert isinstance(learner.reader, ImageReader)
    assert learner.reader.normalize_strokes
    assert learner.reader.dark_background
    picture = drawings.picture(doodle("star", np.random.default_rng(0)))
    (pixels,) = learner.reader.convert([picture])
    assert pixels.shape == (1, 28, 28)
    assert pixels[0, 0, 0] == 0  # light strokes on dark
    assert 0.05 < float(pixels.mean()) < 0.4  # as much ink as Omniglot has


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shots", "least"), [(1, 0.95), (5, 0.97)])
def test_doodles(learner: Learner, kind: str, shots: int, least: float) -> None:
    rng = np.random.default_rng(0)
    read, right = learner.reader, []
    assert read is not None
    pixels = {
        name: read.convert([drawings.picture(doodle(name, rng)) for _ in range(EACH)])
        for name in KINDS[kind]
    }
    with torch.no_grad():
        for _ in range(TASKS):
            names = rng.choice(list(pixels), WAYS, replace=False)
            x = torch.stack([pixels[name][rng.permutation(EACH)] for name in names])
            y = torch.eye(WAYS)[:, None].expand(-1, shots, -1).flatten(0, 1)
            state = learner.adapt(Examples(x[:, :shots].flatten(0, 1), y))
            logits = learner.predict(state, x[:, shots])
            right += (logits.argmax(-1) == torch.arange(WAYS)).tolist()
    assert np.mean(right) > least
