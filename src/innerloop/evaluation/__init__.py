"""Evaluations: other measurements of a learner than its score on query sets."""

from innerloop.evaluation.active import Labeling
from innerloop.evaluation.base import Evaluation
from innerloop.evaluation.calibration import Calibration
from innerloop.evaluation.class_incremental import ClassIncrementalTest
from innerloop.evaluation.clustering import Clustering
from innerloop.evaluation.generated_support import GeneratedSupport
from innerloop.evaluation.head_start import HeadStart
from innerloop.evaluation.open_set import OpenSet
from innerloop.evaluation.program_search import ProgramSearch
from innerloop.evaluation.robustness import Robustness

EVALUATIONS: dict[str, type[Evaluation]] = {
    "calibration": Calibration,
    "class-incremental": ClassIncrementalTest,
    "clustering": Clustering,
    "generated-support": GeneratedSupport,
    "head-start": HeadStart,
    "labeling": Labeling,
    "open-set": OpenSet,
    "program-search": ProgramSearch,
    "robustness": Robustness,
}

__all__ = [
    "EVALUATIONS",
    "Calibration",
    "ClassIncrementalTest",
    "Clustering",
    "Evaluation",
    "GeneratedSupport",
    "HeadStart",
    "Labeling",
    "OpenSet",
    "ProgramSearch",
    "Robustness",
]
