"""How many tasks a learner of programs solves, and how many enumeration solves."""

from __future__ import annotations

import time

import torch

from innerloop.core.learner import Learner
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.options import Positive
from innerloop.evaluation.base import Evaluation
from innerloop.evaluation.chunks import chunks
from innerloop.learners.synthesis.synthesizer import SearchMethod, Synthesizer
from innerloop.measurements import (
    Estimate,
    Measurement,
    Report,
    Row,
    Table,
    TestPlan,
    Unit,
)

SEARCHES: dict[SearchMethod, str] = {
    "guided": "guided",
    "pruned": "enumeration, pruned",
    "plain": "enumeration, plain",
}


class ProgramSearch(Evaluation):
    """Program search: tasks solved in limited time, compared with enumeration.

    A task is solved where the program found is right on all held-out rows; it fits
    where it is right on all rows shown. Programs found after the limit do not count.

    Args:
        seconds: processor time for a task; by default what the learner was built with.
        compare: also measure enumeration without the network.
    """

    seconds: Positive | None = None
    compare: bool = True

    @classmethod
    def supports(cls, learner: Learner, tasks: TaskDistribution) -> str | None:
        if not isinstance(learner, Synthesizer):
            return "it needs a learner that searches for programs"
        return None

    @torch.no_grad()
    def measure(
        self, learner: Learner, tasks: TaskDistribution, plan: TestPlan
    ) -> Report:
        assert isinstance(learner, Synthesizer)
        seconds = self.seconds or learner.seconds
        rows: list[Row] = []
        for method, name in SEARCHES.items():
            if method == "guided" or self.compare:
                learner.prepare(method)
                batches = chunks(learner, tasks, plan.n, 25, plan.generator())
                results = [
                    _solved(learner, method, task, seconds)
                    for batch in batches
                    for task in batch.unbind()
                ]
                solved, fits, spent = zip(*results, strict=True)
                values = (
                    _measured("solved", solved, "%"),
                    _measured("fits the rows shown", fits, "%"),
                    _measured("processor time per task", spent, "s"),
                )
                rows.append(Row({**plan.labels, "search": name}, values))
        title = f"programs found within {seconds:g} s of processor time per task"
        return Report(
            (Table(title, tuple(rows)),),
            ("solved: right on all held-out rows",),
            {"tasks": plan.n, "seed": plan.seed, "seconds": seconds},
        )


def _solved(
    learner: Synthesizer, method: SearchMethod, task: Task, seconds: float
) -> tuple[bool, bool, float]:
    """Whether the program found in time is right on the query set and on the support
    set, and the seconds of the search.
    """
    begin = time.process_time()
    state = learner.search(task.support, method, seconds)
    spent = time.process_time() - begin
    right = [
        bool(learner.likelihood.metrics(learner.predict(state, x), y)["solved"])
        for x, y in (task.query, task.support)
    ]
    in_time = spent <= seconds
    return right[0] and in_time, right[1] and in_time, spent


def _measured(name: str, values: tuple[float, ...], unit: Unit) -> Measurement:
    estimate = Estimate.of(torch.tensor(values, dtype=torch.float64))
    return Measurement.of(name, estimate, len(values), unit)
