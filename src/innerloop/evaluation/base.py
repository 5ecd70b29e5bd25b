"""The base class of evaluations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import dataclass_transform

from innerloop.core.learner import Learner
from innerloop.core.task import TaskDistribution
from innerloop.engine.errors import InnerloopTypeError
from innerloop.engine.options import check_options
from innerloop.measurements import Report, TestPlan


@dataclass_transform(eq_default=False)
class Evaluation(ABC):
    """A measurement beyond the score on query sets.

    A subclass is automatically a dataclass: annotate its options.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        dataclass(eq=False, repr=False)(cls)

    def __post_init__(self) -> None:
        check_options(self)

    @classmethod
    def supports(cls, learner: Learner, tasks: TaskDistribution) -> str | None:
        """Why this learner cannot be measured on these tasks, or None."""
        return None

    def check(self, learner: Learner, tasks: TaskDistribution) -> None:
        """Raises InnerloopTypeError where the learner cannot be measured."""
        reason = self.supports(learner, tasks)
        if reason is not None:
            raise InnerloopTypeError(
                f"{type(self).__name__} cannot measure {type(learner).__name__} on "
                f"these tasks: {reason}"
            )

    def prepare(self, load: Callable[[str], Learner]) -> None:  # noqa: B027
        """Called once before the measurement; `load` returns the learner of a run."""

    def __call__(
        self, learner: Learner, tasks: TaskDistribution, plan: TestPlan
    ) -> Report:
        """The measurement, with the seed, precision and row labels of `plan`.

        Raises InnerloopTypeError where the learner cannot be measured.
        """
        self.check(learner, tasks)
        learner.eval()
        return self.measure(learner, tasks, plan)

    @abstractmethod
    def measure(
        self, learner: Learner, tasks: TaskDistribution, plan: TestPlan
    ) -> Report:
        """The measurement of a learner in evaluation mode that is supported."""

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{entry.name}={getattr(self, entry.name)!r}"
            for entry in fields(self)  # pyright: ignore[reportArgumentType]
        )
        return f"{type(self).__name__}({shown})"
