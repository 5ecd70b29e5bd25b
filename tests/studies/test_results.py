"""Results are stored by training, and numbers are pooled over trainings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from innerloop.engine.errors import InnerloopError
from innerloop.measurements import Measurement, Report, Row, Table
from innerloop.studies import Result, Results, Study
from innerloop.studies.results import cell, pick, pooled, pooled_report
from innerloop.studies.study import Test

Put = Callable[..., Result]


def satterthwaite(means: list[float], errors: list[float], n: int) -> float:
    """Half width of the interval of the mean over trainings, from scratch."""
    k = len(means)
    between = np.var(means, ddof=1) / k
    within = np.sum(np.square(errors)) / k**2 * k  # the same tasks: not independent
    parts = between**2 / (k - 1) + within**2 / (n - 1)
    freedom = int((between + within) ** 2 / parts)
    return float(stats.t.ppf(0.975, freedom) * np.sqrt(between + within))


@pytest.mark.parametrize("spread", [0.0, 0.002, 0.05])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_pooled_intervals_agree_with_scipy(k: int, spread: float) -> None:
    n = 600
    rng = np.random.default_rng(k)
    means = list(0.9 + spread * rng.standard_normal(k))
    errors = list(0.003 * (1 + 0.3 * rng.random(k)))
    t = stats.t.ppf(0.975, n - 1)
    values = [
        Measurement("accuracy", m, float(t * e), n, "%")
        for m, e in zip(means, errors, strict=True)
    ]
    found = pooled(values)
    assert found.mean == pytest.approx(np.mean(means))
    assert found.n == n
    expected = satterthwaite(means, errors, n)
    assert found.interval == pytest.approx(expected, rel=1e-3)


def test_one_training_keeps_its_interval_and_numbers_without_have_that_of_trainings():
    one = Measurement("accuracy", 0.9, 0.01, 100, "%")
    assert pooled([one]) == one
    values = [Measurement("loss", mean) for mean in (1.0, 2.0, 4.0)]
    half = stats.t.ppf(0.975, 2) * np.std([1, 2, 4], ddof=1) / np.sqrt(3)
    assert pooled(values).interval == pytest.approx(half, rel=1e-6)


def test_pooling_covers_the_mean_of_all_trainings() -> None:
    """Trainings that differ, tested on the same tasks: about 95 % of intervals hold the
    mean over trainings and tasks.
    """
    rng, k, n, hits = np.random.default_rng(0), 5, 200, 0
    for _ in range(400):
        tasks = 0.1 * rng.standard_normal(n)  # difficulty, shared
        scores = 0.02 * rng.standard_normal((k, 1)) + tasks
        scores += 0.03 * rng.standard_normal((k, n))
        t = stats.t.ppf(0.975, n - 1)
        values = [
            Measurement("x", float(s.mean()), float(t * s.std(ddof=1) / n**0.5), n)
            for s in scores
        ]
        found = pooled(values)
        assert found.interval is not None
        hits += abs(found.mean) < found.interval
    assert 0.93 < hits / 400 <= 1.0


def test_a_result_replaces_that_of_the_same_training_only(
    results: Results, put: Put, study: Study
) -> None:
    put("proto", {"1-shot": 0.5})
    put("proto", {"1-shot": 0.6}, seed=1)
    put("proto", {"1-shot": 0.7})
    again = Results(results.file)
    assert [(r.seed, r.report("1-shot").tables[0].rows[0].values[0].mean)
            for r in again.all] == [(0, 0.7), (1, 0.6)]  # fmt: skip
    found = again.find(study, study.row("proto"), 1)
    assert found is not None
    assert found.has(study.tests["1-shot"])
    assert not found.has(replace(study.tests["1-shot"], flags="--shots 2"))


def test_results_that_others_stored_meanwhile_stay(results: Results, put: Put) -> None:
    other = Results(results.file)
    put("proto", {"1-shot": 0.5})
    other.put(Result("maml", 0, "maml strokes --steps 2"))
    assert {r.row for r in Results(results.file).all} == {"proto", "maml"}


def test_each_line_of_the_file_is_a_result(results: Results, put: Put) -> None:
    put("proto", {"1-shot": float("nan"), "5-shot": 0.5})
    put("maml", {"1-shot": 0.5})
    lines = results.file.read_text("utf-8").splitlines()
    assert len(lines) == 4
    assert json.loads(lines[1].rstrip(","))["row"] == "maml"
    assert json.loads(results.file.read_text("utf-8"))["study"] == "small"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no JSON", "cannot be read as results"),
        ('{"format": 99, "results": []}', "has format 99"),
        ('{"results": []}', "cannot be read as results"),
        ('{"format": 1, "results": [{"rows": 1}]}', "cannot be read as results"),
    ],
)
def test_a_file_that_is_none_is_named(
    results: Results, content: str, message: str
) -> None:
    results.file.parent.mkdir()
    results.file.write_text(content)
    with pytest.raises(InnerloopError, match=message) as raised:
        Results(results.file)
    assert "small.json" in str(raised.value)


def test_reports_that_tests_share_are_stored_once(results: Results) -> None:
    values = tuple(Measurement(name, i) for i, name in enumerate(["a", "b"]))
    data = Report((Table("t", (Row({}, values),)),)).as_dict()
    tests = {name: {"flags": "", "report": data} for name in ("first", "second")}
    results.put(Result("proto", 0, "line", tests=tests))
    stored = Results(results.file).all[0]
    assert stored.tests["second"] == {"flags": "", "as": "first"}
    assert stored.report("second") == stored.report("first")
    assert cell([stored], Test("second", measure="b")) is not None


def test_measured_numbers_come_before_copied_ones(
    results: Results, put: Put, study: Study
) -> None:
    row, tests = study.row("proto"), study.tests_of(study.row("proto"))
    put("proto", {"1-shot": 0.5, "5-shot": 0.5}, note="copied")
    assert [r.note for r in results.of(study, row)] == ["copied"]
    assert not results.measured(study, row, 0, tests)
    put("proto", {"1-shot": 0.6}, seed=1)
    assert [r.seed for r in results.of(study, row)] == [1]
    assert not results.measured(study, row, 1, tests)  # a test is missing
    put("proto", {"1-shot": 0.7, "5-shot": 0.7})
    assert [r.seed for r in results.of(study, row)] == [0, 1]
    assert results.measured(study, row, 0, tests)


def test_a_row_without_results_shows_the_latest_of_another_line(
    results: Results, put: Put, study: Study
) -> None:
    row = study.row("proto")
    put("proto", {"1-shot": 0.5}, line="protonet strokes --steps 1", date="2026-01-01")
    put("proto", {"1-shot": 0.6}, line="protonet strokes --steps 9", date="2026-02-01")
    assert [r.line for r in results.of(study, row)] == ["protonet strokes --steps 9"]
    assert results.find(study, row, 0) is None
    put("proto", {"1-shot": 0.7}, date="2025-01-01")
    assert [r.line for r in results.of(study, row)] == [row.line]


REPORT = Report(
    (
        Table("first", (Row({"agent": "a"}, (Measurement("reward", 1.0),)),)),
        Table(
            "second",
            (
                Row({"agent": "b", "steps": 5}, (Measurement("reward", 2.0),)),
                Row({"agent": "c"}, (Measurement("loss", 3.0), Measurement("x", 4.0))),
            ),
        ),
    )
)


@pytest.mark.parametrize(
    ("measure", "mean"),
    [("", 1.0), ("reward", 1.0), ("loss", 3.0), ("agent=b / reward", 2.0),
     ("steps=5 / reward", 2.0), ("agent=c / x", 4.0), ("agent=c / ", 3.0)],
)  # fmt: skip
def test_a_measure_names_a_number_of_the_report(measure: str, mean: float) -> None:
    assert pick(REPORT, measure)[1].mean == mean


@pytest.mark.parametrize("measure", ["speed", "agent=d / reward", "agent=a / loss"])
def test_a_measure_that_names_none_is_an_error(measure: str) -> None:
    with pytest.raises(InnerloopError, match="has no measurement"):
        pick(REPORT, measure)


def test_a_cell_has_one_signature_or_none(put: Put) -> None:
    test = Test("1-shot", "--shots 1")
    same = [
        put("proto", {"1-shot": m}, s, signature="a") for s, m in ((0, 0.8), (1, 1))
    ]
    found = cell(same, test)
    assert found is not None
    assert (found.signature, found.seeds, found.low, found.high) == ("a", 2, 0.8, 1)
    other = put("proto", {"1-shot": 0.9}, 2, signature="b")
    mixed = cell([*same, other], test)
    assert mixed is not None
    assert mixed.signature == ""
    assert cell(same, Test("1-shot", "--shots 2")) is None


def test_reports_of_several_trainings_are_pooled(put: Put) -> None:
    both = [put("proto", {"1-shot": m}, s) for s, m in ((0, 0.8), (1, 0.9))]
    value = pooled_report(both, "1-shot").tables[0].rows[0].values[0]
    assert value.mean == pytest.approx(0.85)
    assert value.interval is not None
    assert value.interval > 0.01
    with pytest.raises(InnerloopError, match="5-shot was not measured"):
        pooled_report(both, "5-shot")
