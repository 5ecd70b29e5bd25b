"""How well methods rank molecules by activity, on the same tasks."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.scores import average_precision, roc_auc
from innerloop.evaluation.chunks import measured
from innerloop.learners.transfer.probe import Probe
from innerloop.measurements import Estimate, Measurement, Row, TestPlan

TREES = 100
HEADS = {
    "mean": "class means",
    "ridge": "ridge regression",
    "mahalanobis": "quadratic probe",
}

Method = Callable[[Task], Tensor]  # from a task to the scores (m,) of its query set


def by(learner: Learner) -> Method:
    """The logit of the second class."""

    def scores(task: Task) -> Tensor:
        outputs = learner.predict(learner.adapt(task.support), task.query.x)
        return outputs[:, 1] - outputs[:, 0]

    return scores


def random_forest(task: Task) -> Tensor:
    """The share of the trees that predict the second class, from the support set."""
    from sklearn.ensemble import RandomForestClassifier

    support, query = task.support, task.query.x
    model = RandomForestClassifier(TREES, random_state=0)
    model.fit(support.x.flatten(1).cpu().numpy(), support.y.argmax(-1).cpu().numpy())
    found = np.asarray(model.predict_proba(query.flatten(1).cpu().numpy()))
    return torch.from_numpy(found[:, 1]).to(query)


def baselines() -> dict[str, Method]:
    """Methods that learn from the support set alone; the random forest where
    scikit-learn is installed.
    """
    found = {
        title: by(Probe(nn.Flatten(), head=head).eval())  # pyright: ignore[reportArgumentType]
        for head, title in HEADS.items()
    }
    if find_spec("sklearn") is not None:
        found["random forest"] = random_forest
    return found


def compared(
    learner: Learner, tasks: TaskDistribution, plan: TestPlan
) -> tuple[Row, ...]:
    """A row for the learner and for each of the baselines: the area under the ROC
    curve, average precision above the share of actives (the delta-AUPRC of FS-Mol), and
    by how much the area of the learner is larger, paired over tasks.

    Reference: Stanley, Bronskill, Maziarz, Misztela, Lanini, Segler, Schneider and
    Brockschmidt 2021, "FS-Mol: a few-shot learning dataset of molecules", NeurIPS
    datasets and benchmarks.
    """
    own = type(learner).__name__
    methods = {own: by(learner), **baselines()}

    @torch.no_grad()
    def on_batch(batch: Task) -> dict[str, Tensor]:
        found = {name: [] for name in methods}
        for task in batch.unbind():
            active = task.query.y[:, 1]
            for name, method in methods.items():
                scores = method(task)
                above = average_precision(scores, active) - active.mean()
                pair = torch.stack([roc_auc(scores, active), above])
                found[name].append(pair.float().cpu())
        return {name: torch.stack(pairs) for name, pairs in found.items()}

    learner.eval()
    parts = measured(learner, tasks, on_batch, n=plan.n, generator=plan.generator())
    rows = []
    # (n, 2)
    values = {name: torch.cat([part[name] for part in parts]) for name in methods}
    for name, pairs in values.items():
        scores = {"roc_auc": pairs[:, 0], "delta_auprc": pairs[:, 1]}
        if name != own:
            scores[f"roc_auc of {own} minus this"] = values[own][:, 0] - pairs[:, 0]
        rows.append(
            Row(
                {**plan.labels, "method": name},
                tuple(
                    Measurement.of(title, Estimate.of(each), plan.n)
                    for title, each in scores.items()
                ),
            )
        )
    return tuple(rows)
