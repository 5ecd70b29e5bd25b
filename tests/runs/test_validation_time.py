"""A training by time validates for a small part of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import innerloop
from innerloop import training
from innerloop.events import Stepped, Validated
from innerloop.measurements import Measurement
from innerloop.runs import Run

TICK, VALIDATION = 0.5, 8.0  # seconds


class Clock:
    """Time passes whenever it is read."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += TICK
        return self.now


def test_slow_validation_leaves_time_for_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(training, "time", clock)
    monkeypatch.setattr(sys.modules["innerloop.metagrad.meta_train"], "time", clock)

    def slow(*arguments: object) -> Measurement:
        clock.now += VALIDATION
        return Measurement("accuracy", 0.5, 0.1, 50)

    monkeypatch.setattr(training, "score_of", slow)
    experiment = innerloop.Experiment("cnp", "sinusoid", minutes=1.0)
    events = list(experiment.train_events(Run(tmp_path / "run"), resume=False))
    validations = [event for event in events if isinstance(event, Validated)]
    steps = [event for event in events if isinstance(event, Stepped)]
    # at the first step, in a quarter of the minute, and at the end
    assert 3 <= len(validations) <= 5
    assert steps[-1].seconds - VALIDATION * (len(validations) - 1) > 35
