"""The scripts in benchmarks/ start, and run at their smallest settings."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.learners.metric import ProtoNet
from innerloop.measurements import Report
from innerloop.studies import find_study, names
from innerloop.studies.results import pick
from innerloop.studies.study import Test
from innerloop.testing import Blobs
from tests.cli.conftest import cli

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PARTS = ("contenders.py", "reporting.py")  # of other scripts
SCRIPTS = sorted(f.name for f in BENCHMARKS.glob("*.py") if f.name not in PARTS)
# {name} is a run of the line below, {out} a folder
SMALLEST = {
    "acting.py": "navigation --horizon 5 --episodes 2 --steps 1 --batch 2 --seeds 1 "
    "--tasks 100 --plot {out}/figure.png",
    "advice.py": "--minutes 0.01",
    "baselines.py": "clinc --frequencies support --tasks 2",
    "continual.py": "{out}/report.json --plot {out}/figure.png",
    "curves.py": "{classifier} {quadratics} --plot {out}/figure.png",
    "evolution.py": "--share 0.0001",
    "growth.py": "--rounds 1 --only protonet --vary queries",
    "heads.py": "--repeats 1",
    "load.py": "--users 3 --seconds 2 --pause 0.5",
    "molecules.py": "--minutes 0.01 --tasks 20 --molecules scaffold "
    "--learners ProtoNet",
    "own_data.py": "texts --encoder words --tasks 2 --setfit-tasks 0",
    "optimizers.py": "--quadratics {quadratics} --digits {digits} --functions 2 "
    "--plot {out}/figure.png",
    "sampling.py": "--rounds 1",
    "serving.py": "--calls 1",
    "simulating.py": "--rows 2 --horizon 3 --only CartPole-v1",
    "sheets.py": "{generator} --classifier {classifier} --tasks 1 "
    "--plot {out}/figure.png",
    "structures.py": "{modular} --tasks 2 --plot {out}/figure.png",
    "tables.py": "classes --shots 5 --tasks 1 --table iris --table wine --run {tables}",
}
RUNS = {
    "classifier": "protonet omniglot --ways 5",
    "generator": "metavae omniglot --ways 5",
    "quadratics": "l2o quadratics --inner-steps 3 --batch 2",
    "digits": "l2o mlp-digits --inner-steps 3 --batch 2",
    "modular": "modular sums",
    "tables": "pfn tables --ways 3 --shots 2",
}
REAL_DATA = (
    *("baselines.py", "molecules.py", "sheets.py", "curves.py", "own_data.py"),
    "growth.py",
    "advice.py",
)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Run a script with a line of arguments, as `python benchmarks/NAME` does."""

    def run(name: str, arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, *arguments.split()])
        monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")

    return run


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_starts(
    name: str, script: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        script(name, "--help")
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


def read_by_studies(name: str) -> list[Test]:
    """What the studies of this package read from the report of a script."""
    studies = map(find_study, names())
    return [
        test
        for study in studies
        for row in study.rows
        if row.script.startswith(f"benchmarks/{name}")
        for test in study.tests_of(row)
        if not test.report
    ]


def documented() -> list[str]:
    """The command lines of scripts in the documentation and in their docstrings."""
    root = BENCHMARKS.parent
    files = [
        *root.glob("README*.md"),
        *root.glob("docs/**/*.md"),
        *BENCHMARKS.glob("*.py"),
    ]
    found = [
        line
        for file in files
        for line in re.findall(
            r"^python benchmarks/(\w+\.py.*)", file.read_text("utf-8"), re.MULTILINE
        )
    ]
    found += [
        row.script.removeprefix("benchmarks/")
        for study in map(find_study, names())
        for row in study.rows
        if row.script.startswith("benchmarks/")
    ]
    return sorted({re.split(r"  |#", line)[0].strip() for line in found})


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_line_is_understood(
    line: str, script: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self: argparse.ArgumentParser) -> None:
        parse(self)
        raise SystemExit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    name, _, arguments = line.replace("[RUN ...]", "").partition(" ")
    with pytest.raises(SystemExit) as ended:
        script(name, arguments.replace("[FILE ...]", ""))
    assert ended.value.code == 0


def test_contenders_have_the_gradient_of_a_plain_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    bench: Any = importlib.import_module("bench")
    contenders: Any = importlib.import_module("contenders")
    workload = bench.WORKLOADS[4]._replace(batch=2)
    assert workload.name == "maml-sinusoid"
    case = contenders.Case(workload.name, torch.load(bench.inputs(workload, tmp_path)))
    for table in (contenders.CONTENDERS, contenders.TEST):
        expected = table["float64"](case)()
        for name in ("plain", "innerloop"):
            found = [g.double() for g in table[name](case)()]
            assert bench.distance(found, expected) < 1e-5, name


def test_omniglot_has_enough_drawings_for_every_setting_of_growth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    growth: Any = importlib.import_module("growth")
    for learner in growth.BASES:
        for numbers in growth.settings(learner, list(growth.VARIED)):
            assert numbers["shots"] + numbers["queries"] <= 20, numbers


def test_every_script_has_a_smallest_setting() -> None:
    """Beside the comparison with peers, which have to be installed, and scripts that
    start processes of torchrun or need root.
    """
    others = {"bench.py", "elastic.py", "hosts.py", "scaling.py"}
    assert set(SCRIPTS) == {*SMALLEST, *others}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_a_script_runs(
    name: str, script: Callable[[str, str], None], tmp_path: Path
) -> None:
    if name in REAL_DATA and "INNERLOOP_DATA" not in os.environ:
        pytest.skip("INNERLOOP_DATA is not set: the data sets are not there")
    line = SMALLEST[name]
    runs = {run: tmp_path / run for run in RUNS if f"{{{run}}}" in line}
    for run, folder in runs.items():
        assert cli(f"train {RUNS[run]} --steps 1 --out", folder) == 0
    if name == "continual.py":
        oml = "oml strokes --ways 3 --queries 2 --encoder mlp"
        assert cli(f"train {oml} --steps 1 --out", tmp_path / "oml") == 0
        measure = f"test {tmp_path / 'oml'} --class-incremental --json"
        assert cli(measure, tmp_path / "report.json") == 0
    report = tmp_path / "report-of-script.json"
    reports = "reporting" in (BENCHMARKS / name).read_text("utf-8")
    json_flag = f" --json {report}" if reports else ""
    script(name, line.format(out=tmp_path, **runs) + json_flag)
    assert ("--plot" in line) == (tmp_path / "figure.png").is_file()
    if reports:
        tables = Report.from_dict(json.loads(report.read_text("utf-8"))).tables
        assert all(row.values for table in tables[:1] for row in table.rows)
        for test in read_by_studies(name):
            if "=" not in test.measure:  # smallest settings lack some rows
                pick(Report(tables), test.measure)


class TestSheets:
    """The measures of drawings, with pixels as the features of the classifier."""

    @pytest.fixture
    def measures(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[Callable[[Task], Tensor]], dict[str, float]]:
        monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        sheets: Any = importlib.import_module("sheets")
        generator = torch.Generator().manual_seed(0)
        tasks = Blobs(TaskSpec("classes", (4,), 5), 5, 14).sample(3, generator)
        classifier = ProtoNet(torch.nn.Identity())

        def measured(draw: Callable[[Task], Tensor]) -> dict[str, float]:
            found = sheets.measures(draw, classifier, tasks)
            return {name: float(values.mean()) for name, values in found.items()}

        return measured

    @staticmethod
    def of_class(examples: Examples, count: int, start: int = 0) -> Tensor:
        labels = examples.y.argmax(-1)
        return torch.stack(
            [examples.x[labels == k][start : start + count] for k in range(5)]
        )

    def test_other_examples_of_the_class_differ_as_much_as_the_reference(
        self, measures: Any
    ) -> None:
        found = measures(lambda task: self.of_class(task.query, 7))
        assert found["diversity"] == pytest.approx(1)
        assert found["nearest support drawing"] == pytest.approx(1)
        found = measures(lambda task: self.of_class(task.query, 7, 7))
        assert found["diversity"] == pytest.approx(1, abs=0.25)
        assert found["nearest support drawing"] == pytest.approx(1, abs=0.25)
        assert found["assigned to their class"] > 0.9

    def test_copies_are_found(self, measures: Any) -> None:
        found = measures(lambda task: self.of_class(task.support, 5))
        assert found["nearest support drawing"] == pytest.approx(0, abs=1e-3)
        assert found["diversity"] == pytest.approx(1, abs=0.25)

    def test_drawings_that_are_all_alike_have_no_diversity(self, measures: Any) -> None:
        found = measures(lambda task: self.of_class(task.query, 1).expand(-1, 7, -1))
        assert found["diversity"] == pytest.approx(0, abs=1e-3)

    def test_drawings_of_other_classes_are_found(self, measures: Any) -> None:
        found = measures(lambda task: self.of_class(task.query, 7).roll(1, 0))
        assert found["assigned to their class"] < 0.1
