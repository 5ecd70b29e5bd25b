"""The page about runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from innerloop.assembly import Choice
from innerloop.cli import cli, main
from innerloop.engine.errors import InnerloopError
from innerloop.experiment import Experiment
from innerloop.measurements import TestPlan
from innerloop.report import report
from innerloop.report.command import training_command
from innerloop.report.svg import Scale, short, ticks
from tests.report.conftest import THEMES, trained

SECTIONS = (
    *("summary", "training", "scores", "adaptation", "tasks", "calibration"),
    *("head-start", "tests", "settings"),
)
SIZES: dict[str, Any] = {"ways": 3, "shots": 1, "queries": 2}
PLAN = TestPlan(n=6)
VOID = {"meta", "link", "img"}


class Page(HTMLParser):
    """A page: every element is closed, and what it refers to."""

    def __init__(self, html: str):
        super().__init__()
        self.html = html
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += [data] if self.open[-1:] != ["style"] else []

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def check(html: str) -> Page:
    """A page is complete in itself and can be used without seeing it."""
    found = Page(html)
    assert len(html.encode()) < 3_000_000
    assert not found.all("script")
    assert "url(" not in html
    assert "@import" not in html
    for tag, attrs in found.elements:
        for name in ("src", "href"):
            value = attrs.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, value)
    anchors = {attrs.get("id") for _, attrs in found.elements}
    assert set(SECTIONS) <= anchors
    for attrs in found.all("a"):
        assert (attrs["href"] or "")[1:] in anchors
    assert all(attrs.get("alt") for attrs in found.all("img"))
    charts = [a for a in found.all("svg") if a.get("role") == "img"]
    assert all(attrs.get("aria-label") for attrs in charts)
    assert len(found.all("caption")) == len(found.all("table"))
    assert len(found.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert all(b <= a + 1 for a, b in pairwise(levels))
    return found


def test_two_runs(proto: Path, maml: Path) -> None:
    said: list[str] = []
    page = check(report([proto, maml], PLAN, say=said.append, **SIZES))
    assert "testing maml 3 ways 1 shots" in said
    assert "maml" in page.text
    assert re.search(r"accuracy [+−][\d.]+ ± [\d.]+ points, 6 tasks", page.text)
    assert page.text.count("expected calibration error") >= 2
    assert "accuracy after each gradient step, 3-way 1-shot tasks" in page.text
    labels = [a["aria-label"] or "" for a in page.all("svg") if a.get("role") == "img"]
    for shown in (
        "training loss by meta-steps",
        "training loss by seconds of training",
        "validation accuracy by meta-steps",
        "validation accuracy by seconds of training",
    ):
        assert shown in labels
    # three tasks: pictures of the support set and of the queries, and a matrix for each
    assert len(page.all("article")) == 3
    assert len(page.all("img")) == 3 * (3 + 6)
    assert sum(a.get("class") == "confusion" for a in page.all("table")) == 6
    assert "test 3-way" not in page.text


def test_mistakes_are_marked(proto: Path, maml: Path) -> None:
    page = check(report([proto, maml], PLAN, **SIZES))
    wrong = page.html.count('class="guess wrong"')
    right = page.html.count('class="guess"')
    assert right + wrong == 3 * 6 * 2
    correct = map(int, re.findall(r"(\d) of 6 correct", page.text))
    assert sum(correct) == right
    assert page.html.count("query-item mistake") <= wrong


def test_one_run_with_stored_tests(proto: Path, tmp_path: Path) -> None:
    run = tmp_path / "proto"
    shutil.copytree(proto, run)
    assert (
        main(["test", str(run), "--tasks", "4", "--ways", "3", "--queries", "2"]) == 0
    )
    (run / "tests" / "broken.json").write_text('{"tables": [1]}')
    page = check(report([run], PLAN, title="A <title>", **SIZES))
    assert "<title>A &lt;title&gt;</title>" in page.html
    assert "strokes, test, ways 3, queries 2, 4 tasks, seed 0" in page.text
    assert "None of the tested learners takes gradient steps" in page.text
    assert "verdict" not in page.text


def test_regression(sines: list[Path]) -> None:
    page = check(report(sines, PLAN))
    assert "Calibration needs tasks of classes" in page.text
    # the tasks of the first run, with its five shots
    assert "sinusoids with 5 support and 5 query points" in page.text
    labels = [a["aria-label"] or "" for a in page.all("svg") if a.get("role") == "img"]
    curves = [label for label in labels if label.startswith("Task ")]
    assert len(curves) == 3
    assert curves[0] == (
        "Task 1: 5 support points and the curve that sine and cnp predict"
    )
    assert page.html.count('class="support"') == 3 * 5


def test_texts_are_shown_and_escaped(texts: Path) -> None:
    page = check(report([texts], PLAN, split="test", **SIZES))
    assert "<script>" not in page.html
    assert "&lt;script&gt;" in page.html
    known = THEMES["<script>alert(1)</script>"].split()
    quotes = re.findall("<blockquote>([^<]*)</blockquote>", page.html)
    assert any(set(quote.split()) <= set(known) for quote in quotes)
    assert len(quotes) == 3 * (3 + 6)
    assert "was trained on 6 of these classes" in page.text


def test_runs_that_cannot_be_tested_are_still_shown(
    proto: Path, sines: list[Path], tmp_path: Path
) -> None:
    page = check(report([proto, sines[0]], PLAN, **SIZES))
    assert "sine is not compared" in page.text
    assert "innerloop train maml sinusoid" in page.text
    page = check(report([proto], PLAN, ways=5000))
    assert "could not be tested" in page.text
    assert "5000" in page.text


@pytest.mark.parametrize(
    "line",
    [
        "rl2 bandits --arms 2 --pulls 4 --hidden 8 --batch 4",
        "ntm copy --length 3 --slots 8",
        "cnp completion --shots 20",
        "l2o quadratics --size 2 --inner-steps 3",
        "robustfill string-programs --hidden 8 --batch 2",
    ],
    ids=lambda line: line.split()[1],
)
def test_other_kinds_of_tasks(line: str, tmp_path: Path) -> None:
    run = trained(f"{line} --steps 1", tmp_path / "run")
    check(report([run], TestPlan(n=2), examples=1))


def test_head_start(sines: list[Path]) -> None:
    page = check(report(sines[:1], TestPlan(n=2), head_start=True, examples=0))
    assert "from scratch" in page.text
    assert "Not measured" not in page.text
    assert "There are no tasks to show" in page.text


def test_command_repeats_a_training(proto: Path, maml: Path, texts: Path) -> None:
    for run in (proto, maml, texts):
        experiment = Experiment.load(run)
        words = shlex.split(training_command(experiment, "runs/again"))
        assert words[:2] == ["innerloop", "train"]
        command = cli.get_command(None, "train")  # pyright: ignore[reportArgumentType]
        assert command is not None
        values = command.make_context("train", words[2:]).params
        again = Experiment(
            Choice(values["learner"], _of(values, "learner__")),
            Choice(values["tasks"], _of(values, "tasks__")),
            training=_of(values, "training__"),
            steps=values["steps"],
            seed=values["seed"] or 0,
        )
        resolved = again.resolve()[0]
        assert json.loads(resolved.to_json()) == json.loads(experiment.to_json())


def _of(values: dict[str, Any], part: str) -> dict[str, Any]:
    return {
        name.removeprefix(part): value
        for name, value in values.items()
        if name.startswith(part) and value is not None
    }


def test_the_command_writes_a_file(
    proto: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    line = "--tasks 3 --ways 3 --shots 1 --queries 2 --examples 1 --title Mine"
    assert main(["report", str(proto), "--out", str(file), *line.split()]) == 0
    assert "written" in capsys.readouterr().out
    assert "<h1>Mine</h1>" in check(file.read_text(encoding="utf-8")).html
    assert main(["report", "--out", str(file)]) == 2
    assert main(["report", str(proto), "--out", str(tmp_path / "no" / "x")]) == 2


def test_no_run_is_an_error() -> None:
    with pytest.raises(InnerloopError, match="at least one run"):
        report([])


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(-0.03, 0.11) == [0, 0.05, 0.1]
    assert ticks(3, 3) == [3]
    log = Scale(0.001, 10, 0, 100, log=True)
    assert log(0.1) == 50
    assert all(0.001 <= t <= 10 for t in log.ticks())
    assert [short(v) for v in (0, 12345, 2e6, 1e-5, 0.25)] == [
        *("0", "12.3k", "2M", "1e-05", "0.25"),
    ]
