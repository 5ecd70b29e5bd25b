"""Events of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class _Event:
    def scalars(self) -> tuple[int, dict[str, float]]:
        """A step, and the numbers to plot at it by name; none for most events."""
        return 0, {}


@dataclass(frozen=True)
class Started(_Event):
    """Training starts, or is resumed at a step later than 0."""

    description: str
    notes: tuple[str, ...]
    step: int


@dataclass(frozen=True)
class Stepped(_Event):
    """One meta-step is done. `expected_steps` estimates how many the time allows."""

    step: int
    progress: float
    seconds: float
    metrics: dict[str, float]
    tasks: int
    expected_steps: int | None = None

    def scalars(self) -> tuple[int, dict[str, float]]:
        metrics = {f"train/{name}": value for name, value in self.metrics.items()}
        return self.step, {**metrics, "time/seconds": self.seconds}


@dataclass(frozen=True)
class Validated(_Event):
    """The learner was validated: `line` is what the log holds, `kept` whether its
    weights were saved, `description` the score in words.
    """

    line: dict[str, Any]
    kept: bool
    description: str

    def scalars(self) -> tuple[int, dict[str, float]]:
        line = self.line
        score = {"validation/score": line["validation"]} if "validation" in line else {}
        return line["step"], score


@dataclass(frozen=True)
class Saved(_Event):
    """A checkpoint was written."""

    step: int


@dataclass(frozen=True)
class Finished(_Event):
    """Training has ended; `notes` are warnings for the user, `untestable` is why a
    test needs other options than training, or empty.
    """

    step: int
    seconds: float
    notes: tuple[str, ...]
    untestable: str = ""


Event = Started | Stepped | Validated | Saved | Finished
