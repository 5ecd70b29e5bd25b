"""Small studies and results."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innerloop.measurements import Measurement, Report, Row, Table
from innerloop.studies import Result, Results, Study
from innerloop.studies.study import parse

SMALL = """
title = "Small"
seeds = 2
[tests]
"1-shot" = "--shots 1"
"5-shot" = "--shots 5"
[[row]]
name = "Proto"
train = "protonet strokes --steps 2"
published = {"1-shot" = "98.8 ± 0.3"}
source = "Paper, table 1"
[[row]]
name = "MAML"
train = "maml strokes --steps 2"
transductive = true
published = {"1-shot" = "97"}
tests = ["1-shot"]
note = "a note"
"""


@pytest.fixture
def study() -> Study:
    return parse("small", tomllib.loads(SMALL))


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results" / "small.json")


def report(
    mean: float,
    interval: float | None = 0.01,
    *,
    n: int = 100,
    unit: Any = "%",
    signature: str = "",
    transductive: bool = False,
) -> dict[str, Any]:
    value = Measurement("accuracy", mean, interval, n, unit, transductive)
    table = Table("results on unseen tasks", (Row({}, (value,), signature),))
    return Report((table,)).as_dict()


@pytest.fixture
def put(study: Study, results: Results) -> Callable[..., Result]:
    """Store a result of a row: `put("proto", {"1-shot": 0.9}, seed=1, ...)`; keywords
    that a report has are for the reports, the others for the result.
    """

    def store(row: str, means: dict[str, float], seed: int = 0, **more: Any) -> Result:
        of = {"interval", "n", "unit", "signature", "transductive"}
        kwargs = {key: more.pop(key) for key in of & set(more)}
        found = study.row(row)
        tests = {
            name: {"flags": study.tests[name].flags, "report": report(mean, **kwargs)}
            for name, mean in means.items()
        }
        result = Result(
            **{"line": found.line, **more}, row=found.id, seed=seed, tests=tests
        )
        results.put(result)
        return result

    return store
