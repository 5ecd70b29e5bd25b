"""What a sweep does, as a value: JSON in, JSON out."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self

from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Seed, check_options
from innerloop.experiment import Experiment
from innerloop.runs import RunError, write_atomically
from innerloop.sweep.space import Axis, applied

FILE = "sweep.json"


@dataclass(frozen=True)
class SweepPlan:
    """Trainings of one experiment with other values of some options.

    Args:
        experiment: what all of them share.
        axes: what differs.
        trials: how many trainings (default: one for every combination of the values).
        search: how values are chosen: "grid" for all combinations, "random", or "tpe"
            for a tree-structured Parzen estimator: Bergstra, Bardenet, Bengio and
            Kégl 2011, "Algorithms for hyper-parameter optimization", NeurIPS (default:
            grid, or random where `trials` is not the number of combinations).
        seed: of what is chosen at random.
        stopping: whether trainings that are behind others end early, by successive
            halving: Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht and
            Talwalkar 2020, "A system for massively parallel hyperparameter tuning",
            arXiv:1810.05934.
    """

    experiment: Experiment
    axes: tuple[Axis, ...]
    trials: Count | None = None
    search: Literal["grid", "random", "tpe"] | None = None
    stopping: bool = True
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_options(self)
        if not self.axes:
            raise InnerloopError("a sweep needs at least one option to vary")
        places = [axis.option for axis in self.axes]
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice is not None:
            raise InnerloopError(f"{twice} is varied twice")
        size = math.prod(axis.size for axis in self.axes)
        if self.search is None:
            found = "grid" if self.trials in (None, size) else "random"
            object.__setattr__(self, "search", found)
        if self.search == "grid" and self.trials is None and math.isinf(size):
            raise InnerloopError(
                "a range has no end of values: choose the number of trials"
            )
        if self.search == "grid" and self.trials not in (None, size):
            raise InnerloopError(
                f"a grid of these values has {size} trainings, not {self.trials}: "
                "choose search random, or leave out the number of trials"
            )
        if self.search != "grid" and self.trials is None:
            raise InnerloopError(f"search {self.search} needs the number of trials")

    @property
    def count(self) -> int:
        """The number of trainings."""
        return self.trials or math.prod(len(axis.values) for axis in self.axes)

    def check(self) -> None:
        """Raises InnerloopError where validation scores would not be comparable, or are
        of classes that are trained on.
        """
        found: list[str] = []
        combinations = product(*(axis.values for axis in self.axes))
        for values in [next(combinations), *self._one_changed()]:
            resolved, setup = applied(
                self.experiment,
                dict(zip((a.option for a in self.axes), values, strict=True)),
            ).resolve()
            if (held_out := setup.validation) is None:
                raise InnerloopError(
                    "a sweep compares trainings on validation tasks, and there are "
                    f"none: {setup.no_validation}"
                )
            if resolved.seen_classes(held_out):
                raise InnerloopError(
                    "the validation classes are trained on, so they cannot choose "
                    "settings: keep them out of training (--holdout, where the tasks "
                    "have it)"
                )
            found.append(held_out.describe())
        first = found[0]
        second = next((other for other in found if other != first), None)
        if second is not None:
            raise InnerloopError(
                f"the trainings would be validated on other tasks ({first}; {second}), "
                "so their scores could not be compared: vary other options"
            )

    def _one_changed(self) -> list[tuple[Any, ...]]:
        """Values that differ from the first ones in one option of the tasks."""
        first = tuple(axis.values[0] for axis in self.axes)
        return [
            (*first[:place], value, *first[place + 1 :])
            for place, axis in enumerate(self.axes)
            if axis.option.startswith(("tasks.", "training."))
            for value in axis.values[1:]
        ]

    # ------------------------------------------------------------------ JSON

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Raises InnerloopError for data that is no plan."""
        try:
            axes = tuple(
                Axis(axis["option"], tuple(axis["values"]), axis["scale"])
                for axis in data["axes"]
            )
            experiment = Experiment.from_dict(data["experiment"])
            return cls(**{**data, "axes": axes, "experiment": experiment})
        except (TypeError, KeyError) as error:
            raise InnerloopError(f"this is no plan of a sweep: {error}") from error

    def save(self, folder: Path) -> None:
        text = json.dumps(self.as_dict(), indent=2) + "\n"
        write_atomically(folder / FILE, text.encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises RunError for a folder without a sweep."""
        try:
            return cls.from_dict(json.loads((folder / FILE).read_text()))
        except (OSError, ValueError) as error:
            raise RunError(f"{folder} holds no sweep: {error}") from error
