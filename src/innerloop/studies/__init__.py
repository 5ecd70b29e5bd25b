"""Studies: published numbers by one command, see `innerloop.studies.study`."""

from innerloop.studies.machines import RayMachines
from innerloop.studies.results import Result, Results
from innerloop.studies.running import Runner
from innerloop.studies.study import Study, StudyError, find_study, names
from innerloop.studies.tables import StudyTable, markdown, records, table

__all__ = [
    "RayMachines",
    "Result",
    "Results",
    "Runner",
    "Study",
    "StudyError",
    "StudyTable",
    "find_study",
    "markdown",
    "names",
    "records",
    "table",
]
