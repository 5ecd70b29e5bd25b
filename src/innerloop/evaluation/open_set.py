"""Open-set recognition: telling examples of the classes of a task from others."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.options import Count, Fraction
from innerloop.engine.scores import roc_auc
from innerloop.evaluation.base import Evaluation
from innerloop.evaluation.chunks import measured
from innerloop.evaluation.held_out import rejection_threshold
from innerloop.measurements import Estimate, Measurement, Report, Row, Table, TestPlan


@runtime_checkable
class AnyWays(Protocol):
    """Tasks that can be drawn with another number of classes."""

    def with_ways(self, ways: int) -> TaskDistribution:
        """The same tasks with `ways` classes."""
        ...


class OpenSet(Evaluation):
    """Open-set recognition: whether queries of unknown classes are told from others.

    A task has further classes without support examples. Queries are ranked by the
    learner's novelty. The area under the ROC curve is the probability that a query of
    an unknown class is more novel than one of a known class. A second threshold is
    found without any query: from held-out support examples, where there are at least
    two of a class.

    Reference: Liu, Kang, Li, Hua and Vasconcelos 2020, "Few-shot open-set recognition
    using meta-learning", arXiv:2005.13713, section 4.

    Args:
        unknown: number of unknown classes in a task.
        kept: share of queries of known classes that are not rejected.
    """

    unknown: Count = 5
    kept: Fraction = 0.95

    @classmethod
    def supports(cls, learner: Learner, tasks: TaskDistribution) -> str | None:
        if tasks.spec.kind != "classes" or not isinstance(tasks, AnyWays):
            return "it needs tasks from a fixed set of classes"
        return None

    @torch.no_grad()
    def measure(
        self, learner: Learner, tasks: TaskDistribution, plan: TestPlan
    ) -> Report:
        assert isinstance(tasks, AnyWays)
        ways = tasks.spec.y_dim

        def on_task(task: Task) -> dict[str, Tensor]:
            support, query = task
            # known classes first; all have as many examples
            order = support.y.argmax(-1).argsort(stable=True)
            order = order[: len(order) * ways // support.y.shape[1]]
            support = Examples(support.x[order], support.y[order, :ways])
            unknown = query.y[:, ways:].sum(-1)  # (m,)
            novelty = learner.novelty(learner.adapt(support), query.x).float()
            sorted_known = novelty.masked_fill(unknown > 0.5, torch.inf).sort().values
            rank = (self.kept * (1 - unknown).sum()).ceil().long().clamp_min(1)
            threshold = sorted_known.gather(0, (rank - 1)[None])
            found = {
                "area under the ROC curve": roc_auc(novelty, unknown),
                "unknown rejected": share(novelty > threshold, unknown),
            }
            if len(support.y) > ways:
                own = rejection_threshold(learner, support, rate=1 - self.kept)
                found |= {
                    "known rejected by the support threshold": share(
                        novelty > own, 1 - unknown
                    ),
                    "unknown rejected by the support threshold": share(
                        novelty > own, unknown
                    ),
                }
            return found

        wide = tasks.with_ways(ways + self.unknown)

        def on_batch(batch: Task) -> dict[str, Tensor]:
            found = learner.mapped(on_task, batch)
            return {name: values.cpu() for name, values in found.items()}

        parts = measured(learner, wide, on_batch, n=plan.n, generator=plan.generator())
        values = tuple(
            Measurement.of(
                name,
                Estimate.of(torch.cat([part[name] for part in parts])),
                plan.n,
                "%",
                learner.transductive,
            )
            for name in parts[0]
        )
        labels = {**plan.labels, "unknown classes": self.unknown}
        note = f"unknown rejected: where {self.kept:.0%} of the known are kept"
        table = Table("open-set recognition", (Row(labels, values),))
        return Report((table,), (note,), {"tasks": plan.n, "seed": plan.seed})


def share(chosen: Tensor, among: Tensor) -> Tensor:
    """The share of examples (m,) that are chosen, among those marked by 1."""
    return (chosen * among).sum() / among.sum().clamp_min(1)
