"""Calibration: whether predicted probabilities are the observed frequencies."""

from __future__ import annotations

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.options import Count
from innerloop.evaluation.base import Evaluation
from innerloop.evaluation.chunks import measured
from innerloop.measurements import Estimate, Measurement, Report, Row, Table, TestPlan


def reliability(
    confidence: Tensor, correct: Tensor, bins: int = 15
) -> tuple[Tensor, Tensor, Tensor]:
    """The number of predictions in every bin of equal width, and the sums of their
    confidences and of the correct ones, each (bins,); from the largest probability of
    every prediction (m,) and whether it is correct (m,).
    """
    # a confidence on a boundary belongs to the lower bin
    at = (confidence * bins).ceil().long().clamp(1, bins) - 1
    sums = torch.zeros(3, bins, dtype=torch.float64)
    values = torch.stack([torch.ones_like(confidence), confidence, correct])
    counts, confidences, hits = sums.index_add(1, at.cpu(), values.double().cpu())
    return counts, confidences, hits


def expected_calibration_error(
    confidence: Tensor, correct: Tensor, bins: int = 15
) -> float:
    """The mean distance between confidence and accuracy, over bins of equal width,
    weighted by the number of predictions (m,) in a bin.

    Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks",
    arXiv:1706.04599, eq. (3).
    """
    _, confidences, hits = reliability(confidence, correct, bins)
    return float((confidences - hits).abs().sum() / len(confidence))


class Calibration(Evaluation):
    """Calibration: are predicted probabilities the observed frequencies?

    The expected calibration error is that of the predictions of all tasks together, not
    a mean over tasks. The Brier score is the squared distance between probabilities and
    one-hot labels.

    Reference: Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural
    networks", arXiv:1706.04599, eq. (3).

    Args:
        bins: number of bins of equal width, by confidence.
    """

    bins: Count = 15

    @classmethod
    def supports(cls, learner: Learner, tasks: TaskDistribution) -> str | None:
        if tasks.spec.kind != "classes" or tasks.spec.ordered or tasks.played:
            return "it needs tasks of classes"
        return None

    @torch.no_grad()
    def measure(
        self, learner: Learner, tasks: TaskDistribution, plan: TestPlan
    ) -> Report:

        def on_task(task: Task) -> tuple[Tensor, Tensor, Tensor]:
            outputs = learner.predict(learner.adapt(task.support), task.query.x)
            p = learner.likelihood.mean(outputs.float())
            confidence, chosen = p.max(-1)
            brier = (p - task.query.y).square().sum(-1).mean()
            return confidence, (chosen == task.query.y.argmax(-1)).float(), brier

        def on_batch(batch: Task) -> tuple[Tensor, ...]:
            return tuple(t.double().cpu() for t in learner.mapped(on_task, batch))

        parts = measured(learner, tasks, on_batch, n=plan.n, generator=plan.generator())
        confidence, correct, brier = map(torch.cat, zip(*parts, strict=True))
        flat = confidence.flatten(), correct.flatten()
        error = expected_calibration_error(*flat, self.bins)
        of = {"n": plan.n, "transductive": learner.transductive}
        means = [
            Measurement.of(name, Estimate.of(values), unit="%", **of)
            for name, values in (
                ("mean confidence", confidence.mean(1)),
                ("accuracy", correct.mean(1)),
            )
        ]
        means.append(Measurement.of("Brier score", Estimate.of(brier), **of))
        first = Measurement("expected calibration error", error, unit="%", **of)
        bins = []
        for i, (count, total, hits) in enumerate(
            zip(*reliability(*flat, self.bins), strict=True)
        ):
            if count:
                span = f"{100 * i / self.bins:.0f}-{100 * (i + 1) / self.bins:.0f} %"
                values = {
                    "share of predictions": count / len(flat[0]),
                    "confidence": total / count,
                    "accuracy": hits / count,
                }
                bins.append(
                    Row(
                        {**plan.labels, "confidence of": span},
                        tuple(
                            Measurement(name, float(value), unit="%", **of)
                            for name, value in values.items()
                        ),
                    )
                )
        tables = (
            Table("calibration", (Row(plan.labels, (first, *means)),)),
            Table("reliability by confidence", tuple(bins)),
        )
        return Report(tables, (), {"tasks": plan.n, "seed": plan.seed})
