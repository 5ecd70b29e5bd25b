"""The notebooks of the course run, and are stored without outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.test_docs import ROOT

FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# lengths of trainings and of tests, which a quick run makes small
LENGTHS = re.compile(r"(\bsteps=|\bn=|\bseconds=|TestPlan\(n=)\d{2,}|(range\()\d{3,}")


def short(found: re.Match[str]) -> str:
    return f"{found[1]}12" if found[1] else f"{found[2]}60"


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text("utf-8"))["cells"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_code_of_a_notebook_runs(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All cells, one after the other, with short trainings."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    space: dict[str, Any] = {"__name__": path.stem}
    torch.manual_seed(0)
    for number, cell in enumerate(cells(path)):
        if cell["cell_type"] == "code":
            code = LENGTHS.sub(short, "".join(cell["source"]))
            exec(compile(code, f"<{path.stem}, cell {number}>", "exec"), space)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_as_it_is(path: Path, tmp_path: Path) -> None:
    """In a kernel of its own, in full length."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    images = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert images


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    for cell in cells(path):
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_course_lists_every_notebook() -> None:
    text = (ROOT / "docs" / "course.md").read_text("utf-8")
    linked = re.findall(r"\(notebooks/(\S+?\.ipynb)\)", text)
    assert linked == [path.name for path in NOTEBOOKS]
