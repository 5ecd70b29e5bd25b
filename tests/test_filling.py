"""Numbers in the documentation come from stored results, and from nowhere else."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from innerloop.engine.errors import InnerloopError
from innerloop.measurements import Measurement, Report, Row, Table
from innerloop.studies import Result, Results, StudyError
from innerloop.studies.study import parse
from tests.test_docs import ROOT, generator

STUDY = """
[tests]
"1-shot" = "--shots 1"
"5-shot" = "--shots 5"
[[row]]
name = "A"
train = "protonet strokes"
published = {"1-shot" = "80"}
source = "Paper"
[[row]]
name = "B"
train = "maml strokes"
"""


@pytest.fixture
def filling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with a study of its own."""
    module: Any = generator("filling")
    study = parse("mine", tomllib.loads(STUDY))
    results = Results(tmp_path / "mine.json")

    def data(mean: float) -> dict[str, Any]:
        values = (
            Measurement("accuracy", mean, 0.01, 9, "%"),
            Measurement("loss", 1 - mean, 0.02, 9),
        )
        first = Table("first", (Row({"shots": 1}, values),))
        last = Table("last", (Row({}, (Measurement("x", 2.0),)),))
        return Report((first, last)).as_dict()

    tests = {
        name: {"flags": study.tests[name].flags, "report": data(mean)}
        for name, mean in (("1-shot", 0.75), ("5-shot", 0.5))
    }
    results.put(Result("a", 0, "protonet strokes", tests=tests))
    monkeypatch.setattr(module, "opened", lambda name: (study, results))
    return module


def inside(module: Any, marker: str) -> str:
    kind = marker.split()[0]
    text = module.filled(f"x <!-- {marker} -->old 1.5 ± 2<!-- /{kind} --> y")
    assert text.startswith(f"x <!-- {marker} -->")
    assert text.endswith(f"<!-- /{kind} --> y")
    assert module.filled(text) == text
    return text[len(f"x <!-- {marker} -->") : -len(f"<!-- /{kind} --> y")]


def test_a_study_is_a_table_with_its_sources(filling: Any) -> None:
    assert inside(filling, "study mine") == (
        "\n\n|  | 1-shot | 5-shot |\n| --- | --- | --- |\n"
        "| A | 75.00 ± 1.00 % (80) | 50.00 ± 1.00 % |\n| B |  |  |\n\n"
        "In brackets: as published (Paper).\n\n"
    )


@pytest.mark.parametrize(
    ("marker", "lines"),
    [
        ("study mine | a", ["|  | 1-shot | 5-shot |", "| A | 75.00"]),
        ("study mine | b; a | 5-shot", ["|  | 5-shot |", "| B |  |", "| A | 50.00"]),
        ("study mine | | 5-shot", ["|  | 5-shot |", "| A | 50.00", "| B |  |"]),
        ("report mine | a | 1-shot", ["| shots | accuracy | loss |", "| 1 | 75.00"]),
        ("report mine | a | 1-shot | last", ["| x |", "| 2 |"]),
        ("report mine | a | 5-shot | | loss", ["| shots | loss |", "| 1 | 0.500"]),
        (
            "report mine | a | 1-shot; 5-shot | first | accuracy",
            ["| test | shots | accuracy |", "| 1-shot | 1 | 75", "| 5-shot | 1 | 50"],
        ),
    ],
)
def test_markers_show_parts(filling: Any, marker: str, lines: list[str]) -> None:
    shown = [
        line
        for line in inside(filling, marker).splitlines()
        if line.startswith("|") and "---" not in line
    ]
    assert len(shown) == len(lines)
    for line, start in zip(shown, lines, strict=True):
        assert line.startswith(start)


def test_a_value_stands_in_its_sentence(filling: Any) -> None:
    assert inside(filling, "value mine | a | 1-shot") == "75.00 ± 1.00 %"
    assert inside(filling, "value mine | a | 5-shot | loss") == "0.500 ± 0.020"


def test_copied_numbers_are_marked(filling: Any) -> None:
    _, results = filling.opened("mine")
    (stored,) = results.all
    results.put(Result(stored.row, 0, stored.line, tests=stored.tests, note="copied"))
    assert inside(filling, "value mine | a | 1-shot").endswith("%¶")
    assert "\n¶ measured with" in inside(filling, "study mine")
    assert "\nMeasured with" in inside(filling, "report mine | a | 1-shot")


def test_a_report_that_is_missing_says_how_to_make_it(filling: Any) -> None:
    said = "Not measured yet: `innerloop study run mine`."
    assert inside(filling, "report mine | b | 1-shot").strip() == said
    assert said in inside(filling, "study mine | b")
    assert said not in inside(filling, "study mine")


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("study mine | c", "has no row 'c'"),
        ("study mine | a | 2-shot", "has no test '2-shot'"),
        ("study mine | a | 1-shot | x", "the marker"),
        ("report mine", "the marker"),
        ("report mine | a | 2-shot", "has no test '2-shot'"),
        ("report mine | a | 1-shot | other", "has no table 'other'"),
        ("value mine | b | 1-shot", "was not measured"),
        ("value mine | a | 2-shot", "the marker"),
        ("value mine | a | 1-shot | speed", "has no measurement 'speed'"),
    ],
)
def test_a_marker_that_names_nothing_is_an_error(
    filling: Any, marker: str, message: str
) -> None:
    with pytest.raises((InnerloopError, StudyError)) as raised:
        inside(filling, marker)
    assert message in str(raised.value)


def pages() -> list[Path]:
    return [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def test_a_digit_that_is_changed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docs, filling = generator(), generator("filling")
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    monkeypatch.setattr(docs, "DOCS", tmp_path)
    page = tmp_path / "results.md"
    monkeypatch.setattr(
        docs, "pages", lambda: {page: filling.filled(page.read_text("utf-8"))}
    )
    text = (ROOT / "docs" / "results.md").read_text("utf-8")
    page.write_text(text, "utf-8")
    assert docs.main(["--check"]) == 0, capsys.readouterr().err
    digits = [
        found.start() + row.start()
        for row in re.finditer(r"^\|.*\d.*\|$", text, re.M)
        for found in re.finditer(r"(?<=\.)\d(?=\d* ±)", row.group())
    ]
    assert len(digits) > 50
    for place in digits[:: len(digits) // 10]:
        other = str((int(text[place]) + 1) % 10)
        page.write_text(text[:place] + other + text[place + 1 :], "utf-8")
        assert docs.main(["--check"]) == 1
        assert "results.md is stale" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "It reaches 99.4 ± 0.1 %.",
        "```text\naccuracy 0.70 ± 0.02\n```",
        "An error of 3.5 % remains.",
        "| learner | accuracy |\n| --- | --- |\n| A | 0.97 |",
        "| learner | accuracy |\n| --- | --- |\n| A | 97 % |",
        "| request | time |\n| --- | --- |\n| A | 13 ms |",
    ],
)
def test_a_number_outside_markers_is_found(
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    docs, filling = generator(), generator("filling")
    assert filling.typed(line)
    assert not filling.typed(f"<!-- study copy -->\n{line}\n<!-- /study -->")
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    monkeypatch.setattr(docs, "DOCS", tmp_path)
    monkeypatch.setattr(docs, "pages", dict)
    (tmp_path / "page.md").write_text(f"# A page\n\n{line}\n", "utf-8")
    assert docs.main(["--check"]) == 1
    assert "page.md has a number outside markers" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "| `--lr 0.1` | a step size |",
        "| `maccs` | 167 | MACCS keys |",
        "Labels given with a probability of 80 % are right.",
        "```sh\ninnerloop train maml sinusoid --lr 0.001\n```",
    ],
)
def test_options_and_sizes_are_no_measured_numbers(line: str) -> None:
    assert not generator("filling").typed(line)


def test_every_marker_of_the_pages_is_closed() -> None:
    module = generator("filling")
    for page in pages():
        text = page.read_text("utf-8")
        left = module.MARKER.sub("", text)
        assert not re.findall(r"<!-- /?(?:study|report|value)\b", left), page
    assert "filling" in sys.modules
