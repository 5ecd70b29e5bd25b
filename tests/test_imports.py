"""Imports point one way, files stay small, and no tensor is sent to a device by
name.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import innerloop
from tests.test_docs import generator

house = generator("house")

SOURCE = Path(innerloop.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
# what each part of the package may import, beside itself
BASE = {"engine", "measurements", "core"}
THEORY = {*BASE, "encoders", "nets", "programs", "readers", "metagrad", "learners"}
SOURCES = {*THEORY, "evaluation", "tasks", "rl"}
CHOSEN = {*SOURCES, "registry", "runs"}
USE = {*CHOSEN, "assembly", "events", "training", "experiment", "signature"}
MAY_IMPORT = {
    "engine": set(),
    "measurements": {"engine"},
    "core": {"engine", "measurements"},
    "encoders": {"engine"},
    "nets": {*BASE, "encoders"},
    "programs": BASE,
    "readers": {*BASE, "encoders"},
    "metagrad": {*BASE, "nets"},
    "learners": {*BASE, "nets", "programs", "metagrad"},
    "evaluation": THEORY,
    "tasks": {*THEORY, "evaluation"},
    "rl": {*THEORY, "evaluation", "tasks"},
    "testing": SOURCES,
    "registry": SOURCES,
    "runs": {"engine", "measurements"},
    "assembly": CHOSEN,
    "events": set(),
    "signature": CHOSEN,
    "child": set(),
    "processes": set(),
    "studies": {"engine", "measurements", "processes", "runs"},
    "papers": {*CHOSEN, "studies"},
    "sweep": USE,
    "experiment": {*USE, "sharded"},
    "sharded": {*USE, "processes"},
    "exporting": {*THEORY, *USE},
    "training": USE,
    "ready": {*THEORY, *USE},
    "estimators": {*THEORY, *USE, "ready"},
    "optimizer": {*THEORY, *USE},
    "synthesis": {*THEORY, *USE},
    "finding": {*THEORY, *USE, "evaluation"},
    "translation": {*THEORY, *USE},
    "answering": {*THEORY, *USE, "translation"},
    "summarizing": {*THEORY, *USE, "translation"},
    "labeling": {*THEORY, *USE, "estimators"},
    "predicting": {*THEORY, "evaluation"},
    "advice": {*THEORY, *USE},
    "common_tasks": USE,
    "report": {*USE, "common_tasks"},
    "web": {
        *USE,
        *("advice", "estimators", "labeling", "optimizer", "processes", "synthesis"),
    },
    "cli": {
        *USE,
        *("advice", "answering", "common_tasks", "estimators", "exporting", "finding"),
        *("labeling", "papers", "predicting", "report", "studies", "summarizing"),
        *("sweep", "synthesis", "testing", "translation", "web"),
    },
    "__main__": {"cli"},
    "__init__": set(),
}


def offences(file: Path, source: str) -> list[str]:
    own = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert own in MAY_IMPORT, f"say in MAY_IMPORT what {own} may import"
    return [
        name
        for name in house.imported(file, source)
        if house.layer(name) not in MAY_IMPORT[own] | {own, "__init__"}
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_point_one_way(file: Path) -> None:
    assert offences(file, file.read_text()) == []


@pytest.mark.parametrize(
    ("file", "source", "bad"),
    [
        (
            "core/x.py",
            "from innerloop.core.task import Task\nimport torch\nfrom innerloop import "
            "__version__",
            0,
        ),
        ("core/x.py", "def f():\n    from innerloop.nets import BatchNorm", 1),
        ("core/x.py", "from innerloop import ProtoNet", 1),
        ("core/x.py", "from innerloop import Task", 0),
        ("core/x.py", "from ..learners import metric\nfrom .task import Task", 1),
        ("core/x.py", "from .. import tasks, nets", 2),
        ("nets/x.py", "import innerloop.core.task, innerloop.learners", 1),
        ("learners/x.py", "from innerloop.tasks import strokes", 1),
        (
            "learners/metric/x.py",
            "from innerloop.nets import Headed\nfrom ...core.learner import "
            "Learner\nfrom ..optimization import MAML",
            0,
        ),
        (
            "learners/metric/x.py",
            "from innerloop.tasks import strokes\nfrom ... import testing",
            2,
        ),
        ("runs.py", "from innerloop.cli import main", 1),
        (
            "cli/x.py",
            "from innerloop.runs import Run\nfrom innerloop import testing",
            0,
        ),
    ],
)
def test_the_test_sees_what_is_wrong(file: str, source: str, bad: int) -> None:
    assert len(offences(SOURCE / file, source)) == bad


def test_the_test_knows_every_part_of_the_package() -> None:
    parts = {file.relative_to(SOURCE).parts[0].removesuffix(".py") for file in FILES}
    assert (
        {"core", "nets", "tasks", "learners", "metagrad", "experiment", "runs", "cli"}
        <= parts
        <= set(MAY_IMPORT)
    )


@pytest.mark.parametrize(
    "file",
    sorted((SOURCE / "learners").glob("*/*.py")),
    ids=lambda file: f"{file.parent.name}/{file.name}",
)
def test_a_learner_file_has_fewer_than_200_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) < 200


def test_core_has_fewer_than_1000_lines() -> None:
    assert (
        sum(
            len(file.read_text().splitlines())
            for file in (SOURCE / "core").glob("*.py")
        )
        < 1000
    )


def test_nothing_is_sent_to_a_device_by_name() -> None:
    assert [
        str(file) for file in FILES if re.search(r"\.cuda\(", file.read_text())
    ] == []


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, "50000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "x"}, "")],
)
def test_threads_do_not_wait_awake_for_long(
    chosen: dict[str, str], expected: str
) -> None:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    usual = {k: v for k, v in os.environ.items() if k not in names}
    code = (
        "import innerloop, os, sys; assert 'torch' not in sys.modules; "
        "print(os.environ.get('GOMP_SPINCOUNT', ''))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=usual | chosen,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == expected
