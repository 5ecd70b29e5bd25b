"""Evaluations: other measurements of a learner than its score on query sets."""

from innerloop.evaluation.active import Labeling
from innerloop.evaluation.base import Evaluation
from innerloop.evaluation.class_incremental import ClassIncrementalTest
from innerloop.evaluation.clustering import Clustering
from innerloop.evaluation.generated_support import GeneratedSupport
from innerloop.evaluation.head_start import HeadStart
from innerloop.evaluation.program_search import ProgramSearch

EVALUATIONS: dict[str, type[Evaluation]] = {
    "class-incremental": ClassIncrementalTest,
    "clustering": Clustering,
    "generated-support": GeneratedSupport,
    "head-start": HeadStart,
    "labeling": Labeling,
    "program-search": ProgramSearch,
}

__all__ = [
    "EVALUATIONS",
    "ClassIncrementalTest",
    "Clustering",
    "Evaluation",
    "GeneratedSupport",
    "HeadStart",
    "Labeling",
    "ProgramSearch",
]
