"""Tables of studies show each number with what a reader must know about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from innerloop.measurements import Measurement
from innerloop.studies import Result, Results, Study, StudyError, markdown, table
from innerloop.studies.study import Published, Test
from innerloop.studies.tables import MARKS, difference, number

Put = Callable[..., Result]


def test_cells_hold_measured_and_published_numbers(
    study: Study, results: Results, put: Put
) -> None:
    put("proto", {"1-shot": 0.9, "5-shot": 0.95}, steps=1200, seconds=90.0)
    put("proto", {"1-shot": 0.9, "5-shot": 0.95}, seed=1, steps=1200, seconds=30.0)
    put("maml", {"1-shot": 0.8}, transductive=True, steps=2, seconds=660.0)
    assert table(study, results).cells() == [
        ["", "1-shot", "5-shot", "steps", "minutes", "trainings"],
        ["Proto", "90.00 ± 1.00 % (98.8 ± 0.3)", "95.00 ± 1.00 %", "1,200", "1.0", "2"],
        ["MAML", "80.00 ± 1.00 % (97)", "", "2", "11", "1"],
    ]


def test_a_column_of_ones_is_left_out(study: Study, results: Results, put: Put) -> None:
    put("proto", {"1-shot": 0.9})
    assert table(study, results).cells()[0] == ["", "1-shot"]


def marks(study: Study, results: Results) -> dict[str, tuple[str, ...]]:
    return {line.row.id: line.marks for line in table(study, results).lines}


def test_a_transductive_figure_beside_an_inductive_one_is_marked(
    study: Study, results: Results, put: Put
) -> None:
    put("proto", {"1-shot": 0.9})
    put("maml", {"1-shot": 0.9})
    assert marks(study, results) == {"proto": ("", ""), "maml": ("†", "")}
    put("maml", {"1-shot": 0.9}, transductive=True)
    put("proto", {"1-shot": 0.9, "5-shot": 0.9}, transductive=True)
    assert marks(study, results) == {"proto": ("†", ""), "maml": ("", "")}


def test_a_number_of_other_tasks_than_the_rest_of_its_column_is_marked(
    study: Study, results: Results, put: Put
) -> None:
    third = replace(study.rows[0], id="third", name="Third")
    more = replace(study, rows=(*study.rows, third))
    same = "omniglot#1/5w1s/{}/t100"
    put("proto", {"1-shot": 0.9}, signature=same.format("inductive"))
    put("maml", {"1-shot": 0.9}, signature=same.format("transductive"))
    report: Any = put("proto", {"1-shot": 0.9}, 1).tests["1-shot"]
    assert marks(more, results)["maml"] == ("†", "")
    results.put(Result("third", 0, third.line, tests={"1-shot": report}))
    put("proto", {"1-shot": 0.9}, 1, signature=same.format("inductive"))
    row = report["report"]["tables"][0]["rows"][0]
    row["signature"] = "omniglot#2/5w1s/inductive/t100"
    results.put(Result("third", 0, third.line, tests={"1-shot": report}))
    assert marks(more, results)["third"] == ("‡", "")
    assert marks(more, results)["proto"] == ("", "")


def test_numbers_of_another_length_and_copied_ones_are_marked(
    study: Study, results: Results, put: Put
) -> None:
    put("proto", {"1-shot": 0.9}, line="protonet strokes --minutes 1")
    put("maml", {"1-shot": 0.9}, transductive=True, note="copied from a page")
    found = table(study, results)
    assert [line.marks[0] for line in found.lines] == ["§", "¶"]
    assert found.notes() == [f"§ {MARKS['§']}", f"¶ {MARKS['¶']}", "MAML: a note"]
    assert found.sources() == "Paper, table 1"
    assert "90.00 ± 1.00 %¶ (97)" in found.cells()[2]


def test_part_of_a_table(study: Study, results: Results, put: Put) -> None:
    put("proto", {"1-shot": 0.9, "5-shot": 0.8})
    put("maml", {"1-shot": 0.7}, transductive=True)
    found = table(study, results)
    swapped = found.part(["MAML", "proto"])
    assert [line[0] for line in swapped.cells()[1:]] == ["MAML", "Proto"]
    cells = found.part([], ["5-shot"]).cells()
    assert cells == [["", "5-shot"], ["Proto", "80.00 ± 1.00 %"]]
    assert found.part([], ["5-shot", "1-shot"]).cells()[0] == ["", "5-shot", "1-shot"]
    with pytest.raises(StudyError, match="has no test '2-shot'"):
        found.part([], ["2-shot"])
    with pytest.raises(StudyError, match="has no row 'reptile'"):
        found.part(["reptile"])


def test_a_transposed_table_has_a_column_for_each_row(
    study: Study, results: Results, put: Put
) -> None:
    put("proto", {"1-shot": 0.9, "5-shot": 0.8})
    cells = table(study, results).cells()
    turned = table(replace(study, transposed=True), results).cells()
    assert turned == [list(column) for column in zip(*cells, strict=True)]


def test_hidden_rows_and_whole_reports_are_no_cells(
    study: Study, results: Results
) -> None:
    rows = (replace(study.rows[0], hidden=True), study.rows[1])
    whole = {**study.tests, "all": Test("all", report=True)}
    only = replace(study.rows[0], id="whole", tests=("all",))
    found = table(replace(study, rows=(*rows, only), tests=whole), results)
    assert [line.row.id for line in found.lines] == ["maml"]
    assert found.cells()[0] == ["", "1-shot"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Measurement("a", 0.98765, 0.00123, 9, "%"), "98.77 ± 0.12 %"),
        (Measurement("a", 77.834, 0.3349, 9), "77.83 ± 0.33"),
        (Measurement("a", 0.232, 0.11, 9), "0.23 ± 0.11"),
        (Measurement("a", -34.08, 77.11, 9), "-34 ± 77"),
        (Measurement("a", 123456.7, 1234.5, 9), "123,457 ± 1,234"),
        (Measurement("a", 0.00123456, 0.0000078, 9), "0.0012 ± 0.0000"),
        (Measurement("a", 1.0, 0.0, 9), "1.0000 ± 0.0000"),
        (Measurement("a", 0.626), "0.626"),
        (Measurement("a", 11861.4), "11,861"),
        (Measurement("a", 1e-6), "1e-06"),
        (Measurement("a", 0.08, unit="s"), "0.0800 s"),
        (Measurement("a", float("nan")), "nan"),
        (Measurement("a", float("inf")), "inf"),
    ],
)
def test_numbers_have_the_digits_that_count(value: Measurement, text: str) -> None:
    assert number(value) == text


def test_a_difference_has_the_unit_that_is_shown(
    study: Study, results: Results, put: Put
) -> None:
    put("proto", {"1-shot": 0.985})
    found = table(study, results).lines[0].cells[0]
    assert found is not None
    assert difference(found, Published.of("98")) == pytest.approx(0.5)


def test_cells_are_escaped_in_markdown() -> None:
    text = markdown([["", "a|b"], ["x", "1"]])
    assert text == "|  | a\\|b |\n| --- | --- |\n| x | 1 |"
