"""Imports point one way, files stay small, and no tensor is sent to a device by
name.
"""

import ast
import re
from pathlib import Path

import pytest

import innerloop

SOURCE = Path(innerloop.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
THEORY = {"engine", "core", "programs", "nets", "tasks", "learners", "rl", "evolution"}
USE = {"testing", "estimators", "runs"}
MAY_IMPORT = {
    "engine": set(),
    "core": {"engine"},
    "nets": {"engine", "core"},
    "programs": {"engine", "core"},
    "tasks": {"engine", "core", "programs"},
    "learners": {"engine", "core", "nets", "programs"},
    "race": {"core"},
    "asking": {"core", "learners"},
    "continual": {"core", "tasks", "learners"},
    "optimizer": {"learners", "runs"},
    "synthesis": {"programs", "learners", "runs"},
    "evolution": {"engine", "core", "nets"},
    "rl": {"engine", "core", "nets", "tasks", "learners"},
    **{name: THEORY | USE for name in USE},
    "studies": THEORY | USE,
    "report": THEORY | USE | {"studies"},
    "cli": THEORY
    | USE
    | {"race", "asking", "continual", "synthesis", "studies", "report", "web"},
    "web": THEORY | USE | {"studies", "report"},
    "__main__": {"cli"},
    "__init__": set(),
}


def layer(dotted: str) -> str:
    """The part of the package that `innerloop.x.y` belongs to; a public name counts as
    the place it comes from.
    """
    parts = dotted.split(".")[1:]
    if parts and parts[0] in innerloop._HOME:
        return layer(innerloop._HOME[parts[0]])
    return (
        "__init__"
        if not parts or (parts[0].startswith("__") and parts[0] != "__main__")
        else parts[0]
    )


def imported(file: Path, source: str) -> list[str]:
    """Every module or name of the package that a file imports, at its top or in a
    function, as a dotted name.
    """
    package = ["innerloop", *file.relative_to(SOURCE).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join(
                    [
                        *package[: len(package) - node.level + 1],
                        *([node.module] if node.module else []),
                    ]
                )
                if node.level
                else node.module or ""
            )
            found += (
                [f"{base}.{alias.name}" for alias in node.names]
                if base == "innerloop"
                else [base]
            )
    return [name for name in found if name.split(".")[0] == "innerloop"]


def offences(file: Path, source: str) -> list[str]:
    own = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert own in MAY_IMPORT, f"say in MAY_IMPORT what {own} may import"
    return [
        name
        for name in imported(file, source)
        if layer(name) not in MAY_IMPORT[own] | {own, "__init__"}
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_point_one_way(file: Path) -> None:
    assert offences(file, file.read_text()) == []


@pytest.mark.parametrize(
    ("file", "source", "bad"),
    [
        (
            "core/x.py",
            "from innerloop.core.task import Task\nimport torch\nfrom innerloop import __version__",
            0,
        ),
        ("core/x.py", "def f():\n    from innerloop.nets import BatchNorm", 1),
        ("core/x.py", "from innerloop import ProtoNet", 1),
        ("core/x.py", "from innerloop import Task", 0),
        ("core/x.py", "from ..learners import metric\nfrom .task import Task", 1),
        ("core/x.py", "from .. import tasks, nets", 2),
        ("nets/x.py", "import innerloop.core.task, innerloop.learners", 1),
        ("tasks/x.py", "from innerloop.learners.metric import ProtoNet", 1),
        (
            "learners/metric/x.py",
            "from innerloop.nets import Headed\nfrom ...core.learner import Learner\nfrom ..optimization import MAML",
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
        {"core", "nets", "tasks", "learners", "testing", "runs", "cli"}
        <= parts
        <= set(MAY_IMPORT)
    )


@pytest.mark.parametrize(
    "file",
    sorted((SOURCE / "learners").glob("*/*.py")),
    ids=lambda file: f"{file.parent.name}/{file.name}",
)
def test_a_learner_file_has_fewer_than_150_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) < 150


def test_core_has_at_most_900_lines() -> None:
    assert (
        sum(
            len(file.read_text().splitlines())
            for file in (SOURCE / "core").glob("*.py")
        )
        <= 900
    )


def test_nothing_is_sent_to_a_device_by_name() -> None:
    assert [
        str(file) for file in FILES if re.search(r"\.cuda\(", file.read_text())
    ] == []
