"""What a sweep varies: options of an experiment, over lists or ranges of values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from innerloop.assembly import Choice, usual_meta_gradient
from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Option, options
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.experiment import Experiment
from innerloop.registry import find

FORM = "learner.inner_lr=0.1,0.4 or training.lr=0.0001..0.01:log"


@dataclass(frozen=True)
class Axis:
    """The values of one option.

    Args:
        option: its place, such as "learner.inner_lr" or "seed".
        values: the values, or the two ends of a range.
        scale: "list", "linear" or "log": how values are drawn.
    """

    option: str
    values: tuple[Any, ...]
    scale: str = "list"

    @classmethod
    def parse(cls, text: str, experiment: Experiment) -> Axis:
        """An axis from its text: PLACE=A,B,... for a list, PLACE=A..B for a uniform and
        PLACE=A..B:log for a log-uniform distribution.

        Raises InnerloopError for an option that the experiment does not have, or a
        value that it does not take.
        """
        place, equals, found = text.partition("=")
        if not equals or not found:
            raise InnerloopError(f"a sweep varies options as in {FORM}; got {text!r}")
        option = _option(place, experiment)
        if ".." not in found or "../" in found:  # a path
            words = found.split(",")
            return cls(place, tuple(map(option.parse, words)))
        scale = "log" if found.endswith(":log") else "linear"
        ends = found.removesuffix(":log").split("..", 1)
        low, high = map(option.parse, ends)
        if option.type not in (int, float) or not low < high:
            raise InnerloopError(
                f"a range of {place} must be two numbers, the smaller one first; got "
                f"{found!r}"
            )
        if scale == "log" and low <= 0:
            raise InnerloopError(f"a logarithmic range of {place} must be above 0")
        return cls(place, (low, high), scale)

    @property
    def size(self) -> float:
        """The number of its values."""
        return len(self.values) if self.scale == "list" else math.inf


def applied(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """The experiment with other values of options, by place."""
    for place, value in values.items():
        owner, _, name = place.rpartition(".")
        if not owner:
            experiment = replace(experiment, **{name: value})
        elif owner == "training":
            training = {**experiment.training, name: value}
            experiment = replace(experiment, training=training)
        else:
            choice = _choice(owner, experiment)
            changed = Choice(choice.name, {**choice.options, name: value})
            experiment = replace(experiment, **{owner: changed})
    return experiment


def absolute(axis: Axis, experiment: Experiment) -> Axis:
    """The axis with absolute paths in the place of those that hold in this folder."""
    owner, _, name = axis.option.rpartition(".")
    if axis.scale != "list" or owner not in ("learner", "tasks"):
        return axis
    changed = (applied(experiment, {axis.option: v}).expanded() for v in axis.values)
    values = tuple(vars(one)[owner].options[name] for one in changed)
    return replace(axis, values=values)


def _choice(owner: str, experiment: Experiment) -> Choice:
    chosen: Choice | None = vars(experiment)[owner]
    # only a meta-gradient can be left open
    return chosen or Choice(usual_meta_gradient(experiment.learner.name))


def _option(place: str, experiment: Experiment) -> Option:
    owner, _, name = place.rpartition(".")
    if owner in ("learner", "tasks", "meta_gradient"):
        kind, chosen = owner.replace("_", "-"), _choice(owner, experiment)
        known = find(kind, chosen.name).options
    elif owner == "training":
        known = options(MetaTrainConfig)
    elif not owner:
        known = {n: o for n, o in options(Experiment).items() if n in ("seed", "steps")}
    else:
        raise InnerloopError(
            f"{place!r} is no option: write learner.NAME, tasks.NAME, "
            "meta_gradient.NAME, training.NAME, seed or steps"
        )
    if name not in known:
        raise InnerloopError(
            f"{owner or 'an experiment'} has no option {name!r}"
            f"{did_you_mean(name, list(known))}"
        )
    return known[name]
