"""All learning algorithms, one file each, in the package of their family."""

from innerloop.core.learner import Learner
from innerloop.learners import (
    active,
    amortized,
    class_incremental,
    generative,
    memory,
    metric,
    neural_processes,
    optimization,
    synthesis,
    transfer,
)

FAMILIES = {
    "metric": metric,
    "optimization": optimization,
    "memory": memory,
    "neural processes": neural_processes,
    "amortized": amortized,
    "synthesis": synthesis,
    "generative": generative,
    "transfer": transfer,
    "class-incremental": class_incremental,
    "active": active,
}
# by their names on the command line
LEARNERS: dict[str, type[Learner]] = {
    name.lower(): getattr(family, name)
    for family in FAMILIES.values()
    for name in family.__all__
}


def family_of(learner: type[Learner]) -> str:
    """The name of the family that a learner belongs to."""
    return next(
        name for name, family in FAMILIES.items() if learner.__name__ in family.__all__
    )
