"""What docs/contributing.md tells to write and to change works in a copy of the
package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.test_docs import ROOT

BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.M | re.S)


def blocks() -> list[tuple[str, str]]:
    """The language and the text of every block of the page."""
    text = (ROOT / "docs" / "contributing.md").read_text("utf-8")
    return [(kind, textwrap.dedent(code)) for _, kind, code in BLOCK.findall(text)]


def changed(folder: Path, block: str) -> None:
    """Replace the lines with a minus by those with a plus, which must be there once."""
    head, *lines = block.splitlines()
    file = folder / head.removeprefix("--- ")
    old, new = (
        "".join(f"{line[1:]}\n" for line in lines if line[0] == sign) for sign in "-+"
    )
    text = file.read_text("utf-8")
    assert text.count(old) == 1, (head, old)
    file.write_text(text.replace(old, new), "utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package in which the page was followed."""
    folder = tmp_path_factory.mktemp("copy")
    unread = shutil.ignore_patterns("__pycache__", "ready", "static")
    shutil.copytree(ROOT / "src", folder / "src", ignore=unread)
    for kind, code in blocks():
        first, _, rest = code.partition("\n")
        if kind == "diff":
            changed(folder, code)
        elif found := re.match(r"# (\S+/\S+)$", first):
            file = folder / found[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            assert not file.exists(), file
            file.write_text(rest, "utf-8")
    return folder


CHECKS = """
import sys
import pytest
assert pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]) == 0
from innerloop import Ridge, TaskSpec
from innerloop.cli import main
from innerloop.learners import family_of
from innerloop.registry import entries, find
from innerloop.studies import find_study
from innerloop.testing import check_learner
assert family_of(find("learner", "ridge").factory) == "metric"
assert find("learner", "ridge").citation.arxiv == "1805.08136"
assert "springs" in entries("tasks")
assert "signs" in entries("meta-gradient")
assert find_study("springs").row("maml").train.startswith("maml springs")
for kind in Ridge.kinds:
    spec = TaskSpec(kind, (8,), 3)
    check_learner(Ridge.build(spec), spec)
flags = "--strength 0.5 --shots 8 --meta-gradient signs --steps 2"
assert main(f"train ridge springs {flags} --out run".split()) == 0
assert main("test run --tasks 5".split()) == 0
"""


def test_what_the_page_adds_works(copy: Path) -> None:
    """Its tests pass; the learner keeps the laws; the registry and the commands know
    what was added.
    """
    files = sorted(map(str, (copy / "tests").rglob("test_*.py")))
    assert len(files) == 3
    done = subprocess.run(
        [sys.executable, "-c", CHECKS, *files],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
