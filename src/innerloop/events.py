"""Events of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Started:
    """Training starts, or is resumed at a step later than 0."""

    description: str
    notes: tuple[str, ...]
    step: int


@dataclass(frozen=True)
class Stepped:
    """One meta-step is done. `expected_steps` estimates how many the time allows."""

    step: int
    progress: float
    seconds: float
    metrics: dict[str, float]
    tasks: int
    expected_steps: int | None = None


@dataclass(frozen=True)
class Validated:
    """The learner was validated: `line` is what the log holds, `kept` whether its
    weights were saved, `description` the score in words.
    """

    line: dict[str, Any]
    kept: bool
    description: str


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written."""

    step: int


@dataclass(frozen=True)
class Finished:
    """Training has ended; `notes` are warnings for the user, `untestable` is why a
    test needs other options than training, or empty.
    """

    step: int
    seconds: float
    notes: tuple[str, ...]
    untestable: str = ""


Event = Started | Stepped | Validated | Saved | Finished
