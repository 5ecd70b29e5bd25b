"""Every learning algorithm, one file each, in its family's folder."""

from innerloop.core.learner import Learner
from innerloop.learners import (
    active,
    continual,
    encoding,
    generative,
    memory,
    metric,
    optimization,
    program,
    transfer,
)

FAMILIES = {
    "metric": metric,
    "memory": memory,
    "encoding": encoding,
    "generative": generative,
    "optimization": optimization,
    "program": program,
    "transfer": transfer,
    "continual": continual,
    "active": active,
}
LEARNERS: dict[str, type[Learner]] = {
    name.lower(): getattr(family, name)
    for family in FAMILIES.values()
    for name in family.__all__
}  # by the name that commands use


def family_of(learner: type[Learner]) -> str:
    """The family that a learner belongs to."""
    return next(
        name for name, family in FAMILIES.items() if learner.__name__ in family.__all__
    )
