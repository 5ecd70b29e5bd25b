"""What a long measurement says meanwhile."""

from __future__ import annotations

import io
from itertools import count

import pytest
from rich.console import Console

from innerloop.cli import progress
from innerloop.engine.progress import report_progress


def test_a_long_measurement_prints_lines_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = count(0, 20)  # seconds, at each look
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    to = Console(file=io.StringIO(), force_terminal=False)
    with progress.measuring(to, "testing") as say:
        for done in (100, 200, 900, 1000):
            report_progress(done, 1000)
        say("again")
        for done in (10, 20):
            report_progress(done, 20)
    lines = to.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]
    assert lines == [
        "testing: 200 of 1000 tasks, about 3 min left",
        "testing: 1000 of 1000 tasks",
        "again: 20 of 20 tasks",
    ]
