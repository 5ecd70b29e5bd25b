"""The programs that the page on export shows."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from innerloop.cli import main

PAGE = Path(__file__).resolve().parent.parent / "docs" / "export.md"


def blocks(mark: str) -> list[str]:
    """The programs of the page below a mark."""
    return re.findall(
        rf"^<!-- {mark} -->\n+```python\n(.*?)^```$",
        PAGE.read_text("utf-8"),
        re.M | re.S,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with labeled examples, photos to label, and a run."""
    root = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    for folder in ("classes of training", "examples"):
        for c in range(6):
            base = rng.integers(0, 255, (40, 30, 3))
            for i in range(3):
                noise = rng.integers(-40, 40, base.shape)
                pixels = np.clip(base + noise, 0, 255).astype(np.uint8)
                file = root / folder / f"sign {c}" / f"{c}{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    (root / "photos").mkdir()
    for file in root.glob("examples/*/*2.png"):
        file.rename(root / "photos" / file.name)
    words = "train protonet folder --size 16 --channels 3 --encoder conv4 --steps 2"
    sizes = "--ways 2 --shots 1 --queries 1 --all-classes --seed 1"
    data = ["--root", str(root / "classes of training")]
    out = ["--out", str(root / "runs" / "mine")]
    assert main([*words.split(), *sizes.split(), *data, *out]) == 0
    return root


def test_the_script_labels_as_the_command_does(place: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    run = place / "runs" / "mine"
    assert main(["export", str(run), "--out", str(place / "programs")]) == 0
    (script,) = blocks("script")
    assert not re.search("innerloop import|torch", script)
    file = place / "label.py"
    file.write_text(script)
    folders = [place / name for name in ("programs", "examples", "photos")]
    printed = subprocess.run(
        [sys.executable, file, *folders], capture_output=True, text=True, check=True
    )
    support, query = ["--support", str(folders[1])], ["--query", str(folders[2])]
    labels = place / "labels.csv"
    assert main(["adapt", str(run), *support, *query, "--out", str(labels)]) == 0
    with labels.open() as opened:
        rows = list(csv.DictReader(opened))
    lines = [line.split(",") for line in printed.stdout.splitlines()]
    assert [label for _, label, _ in lines] == [row["label"] for row in rows]
    assert [float(p) for *_, p in lines] == pytest.approx(
        [float(row["probability"]) for row in rows], abs=2e-4
    )


def test_the_server_predicts_for_many_files_at_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="needs fastapi")
    pytest.importorskip("httpx", reason="needs httpx")
    from fastapi.testclient import TestClient

    monkeypatch.chdir(place)
    names: dict[str, Any] = {}
    for block in blocks("serve"):
        exec(compile(block, str(PAGE), "exec"), names)
    photos = sorted((place / "photos").iterdir())
    files = [("files", (p.name, p.read_bytes(), "image/png")) for p in photos]
    with TestClient(names["app"]) as client:
        answer = client.post("/predict", files=files)
    assert answer.status_code == 200, answer.text
    expected = names["classifier"].predict_proba([Image.open(p) for p in photos])
    assert [list(found.values()) for found in answer.json()] == [
        pytest.approx(row) for row in expected.tolist()
    ]
    assert set(answer.json()[0]) == {f"sign {c}" for c in range(6)}
