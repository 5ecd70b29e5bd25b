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


def python(copy: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tests_of_the_page_pass(copy: Path) -> None:
    files = sorted(map(str, (copy / "tests").rglob("test_*.py")))
    assert len(files) == 3
    said = python(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files)
    assert "3 passed" in said


def test_what_it_adds_is_found_and_keeps_the_laws(copy: Path) -> None:
    python(
        copy,
        "-c",
        "from innerloop import Ridge\n"
        "from innerloop.learners import family_of\n"
        "from innerloop.registry import entries, find\n"
        "from innerloop.studies import find_study\n"
        "from innerloop.testing import Blobs, check_learner\n"
        "from innerloop import TaskSpec\n"
        "assert family_of(find('learner', 'ridge').factory) == 'metric'\n"
        "assert find('learner', 'ridge').citation.arxiv == '1805.08136'\n"
        "assert {'springs'} <= set(entries('tasks'))\n"
        "assert {'signs'} <= set(entries('meta-gradient'))\n"
        "for kind in Ridge.kinds:\n"
        "    spec = TaskSpec(kind, (8,), 3)\n"
        "    check_learner(Ridge.build(spec), spec)\n"
        "assert find_study('springs').row('maml').train.startswith('maml springs')\n",
    )


def test_the_commands_know_them(copy: Path) -> None:
    flags = "--strength 0.5 --shots 8 --meta-gradient signs --steps 2"
    train = f"train ridge springs {flags} --out run"
    python(copy, "-m", "innerloop", *train.split())
    said = python(copy, "-m", "innerloop", *["test", "run", "--tasks", "5"])
    assert "mse" in said
