"""Testing a learner on unseen tasks: scores with intervals, and adaptation curves."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from innerloop.core.learner import Learner
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, CountOrZero, checked
from innerloop.engine.precision import Precision
from innerloop.evaluation.chunks import BLOCK, measured
from innerloop.measurements import (
    Estimate,
    Measurement,
    Report,
    Row,
    Table,
    TaskScores,
    TestPlan,
    Unit,
    plain,
)


@dataclass(frozen=True)
class TestResult:
    """What `meta_test` measured.

    Args:
        metrics: the loss and every metric of the likelihood, by name.
        tasks: how many tasks they are the means of.
        transductive: whether a prediction used the other query examples.
        seconds: duration of the whole test.
        score: name of the main metric.
        curve: the score after 0, 1, ... gradient steps.
        instances: the accuracy for the 1st, 2nd, ... example of a class in the support
            set, predicted before its label was shown.
        percent: the metrics that are fractions, shown in per cent.
    """

    __test__ = False  # not a test case, despite its name
    metrics: dict[str, Estimate]
    tasks: int
    transductive: bool
    seconds: float
    score: str
    curve: list[Estimate] = field(default_factory=list)
    instances: list[Estimate] = field(default_factory=list)
    percent: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; numbers that are not finite become None."""

        def numbers(value: Any) -> Any:
            if isinstance(value, Estimate):
                return value._asdict()
            if isinstance(value, dict):
                return {key: numbers(item) for key, item in value.items()}
            return [numbers(i) for i in value] if isinstance(value, list) else value

        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain(numbers(fields))

    def measurement(self, name: str, estimate: Estimate) -> Measurement:
        unit: Unit = "%" if name in self.percent else ""
        return Measurement.of(name, estimate, self.tasks, unit, self.transductive)

    def report(self, labels: dict[str, Any] | None = None) -> Report:
        """The same as tables, whose rows bear `labels`."""
        labels = labels or {}
        first = {self.score: self.metrics[self.score], **self.metrics}
        values = [self.measurement(name, value) for name, value in first.items()]
        values.append(Measurement("seconds", self.seconds, n=1, unit="s"))
        tables = [Table("results on unseen tasks", (Row(labels, tuple(values)),))]
        for title, label, start, name, estimates in (
            ("score by gradient steps", "steps", 0, self.score, self.curve),
            (
                "accuracy by instance of a class, before its label is seen",
                "instance",
                1,
                "accuracy",
                self.instances,
            ),
        ):
            rows = tuple(
                Row({**labels, label: i}, (self.measurement(name, estimate),))
                for i, estimate in enumerate(estimates, start)
            )
            tables += [Table(title, rows)] if rows else []
        return Report(tuple(tables))

    def __repr__(self) -> str:
        row = self.report().tables[0].rows[0]
        scores = ", ".join(f"{value.name} {value}" for value in row.values[:-1])
        seen = "transductive, " if self.transductive else ""
        count = f"{self.tasks} task{'s' if self.tasks != 1 else ''}"
        return f"TestResult({scores}; {seen}{count}, {row.values[-1]})"

    def _repr_html_(self) -> str:
        return self.report()._repr_html_()


def meta_test(
    learner: Learner,
    tasks: TaskDistribution,
    *,
    n: Count = 1000,
    curve_steps: CountOrZero | None = None,
    precision: Precision = "float32",
    generator: torch.Generator | None = None,
    chunk: Count = BLOCK,
) -> TestResult:
    """Adapt to `n` unseen tasks and score their query sets: means with 95 % intervals
    over tasks.

    The tasks depend on `n` and the generator alone, so two learners tested with the
    same seed are tested on the same tasks.

    Args:
        n: number of tasks.
        curve_steps: also score after every number of gradient steps up to this one, for
            learners that take gradient steps.
        precision: arithmetic, "float32" or "bf16".
        generator: draws the seed of the tasks (default: a generator with seed 0).
        chunk: largest number of tasks computed at once; at most 25 are, and fewer where
            their inputs are large.
    """
    return _test(learner, tasks, n, curve_steps, precision, generator, chunk)


def evaluate(learner: Learner, tasks: TaskDistribution, plan: TestPlan) -> Report:
    """`meta_test` as a plan says, as a report: the main metric first.

    Raises InnerloopError where the plan sets a number of gradient steps and the learner
    takes none.
    """
    result = _test(
        learner,
        tasks,
        plan.n,
        plan.steps,
        plan.precision,
        plan.generator(),
        at_last_step=True,
    )
    report = result.report(plan.labels)
    notes = []
    broken = [
        k for k, e in result.metrics.items() if not torch.tensor(e.mean).isfinite()
    ]
    if broken:
        notes.append(f"on some tasks this is not finite: {', '.join(broken)}")
    classes = len(tasks.class_keys()) if tasks.spec.kind == "classes" else 0
    if 0 < classes <= tasks.spec.y_dim and plan.n > 1:
        notes.append(
            f"all tasks have the same {classes} classes: the intervals say nothing "
            "about other classes"
        )
    context = {"tasks": plan.n, "seed": plan.seed, "precision": plan.precision}
    return Report(report.tables, tuple(notes), context)


def task_scores(
    learner: Learner, tasks: TaskDistribution, plan: TestPlan, metric: str | None = None
) -> TaskScores:
    """The score of every task of `evaluate`, for paired comparisons.

    Args:
        metric: a metric of the likelihood where larger is better (default: the main
            one).
    """
    steps, precision = plan.steps, plan.precision
    parts = _parts(
        learner, tasks, plan.n, steps, precision, plan.generator(), BLOCK, True
    )
    likelihood = learner.likelihood
    name = metric or likelihood.score
    return TaskScores(
        name,
        torch.cat([part["metrics"][name] for part in parts]),
        "%" if name in likelihood.percent else "",
        metric is not None or likelihood.higher_is_better,
        learner.transductive,
    )


def _test(
    learner: Learner,
    tasks: TaskDistribution,
    n: int,
    curve_steps: int | None,
    precision: Precision,
    generator: torch.Generator | None,
    chunk: int = BLOCK,
    at_last_step: bool = False,
) -> TestResult:
    begin = time.monotonic()
    parts = _parts(
        learner, tasks, n, curve_steps, precision, generator, chunk, at_last_step
    )
    metrics = {
        name: Estimate.of(torch.cat([part["metrics"][name] for part in parts]))
        for name in parts[0]["metrics"]
    }
    return TestResult(
        metrics=metrics,
        tasks=n,
        transductive=learner.transductive,
        seconds=time.monotonic() - begin,
        score=learner.likelihood.score,
        curve=_columns([part["curve"] for part in parts if "curve" in part]),
        instances=_columns([p["instances"] for p in parts if "instances" in p]),
        percent=learner.likelihood.percent,
    )


def _parts(
    learner: Learner,
    tasks: TaskDistribution,
    n: int,
    curve_steps: int | None,
    precision: Precision,
    generator: torch.Generator | None,
    chunk: int,
    at_last_step: bool,  # score the last state of the curve, not that of adapt
) -> list[dict[str, Any]]:
    """What every task of a test gives, as tensors whose first axis is the tasks, in
    parts of at most 25 of them.
    """
    sizes = {"n": n, "curve_steps": curve_steps, "precision": precision}
    checked(meta_test, sizes | {"chunk": chunk}, "meta_test")
    score = learner.likelihood.score
    by_instance = tasks.spec.kind == "classes" and not tasks.spec.ordered

    def measure(task: Task) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if curve_steps is not None:
            states = learner.trajectory(task.support, curve_steps)
            points = [score_state(learner, state, task) for state in states]
            if len(points) == curve_steps + 1:
                found["curve"] = torch.stack([point[score] for point in points])
            elif at_last_step:
                raise InnerloopError(
                    f"{type(learner).__name__} takes no gradient steps: leave out the "
                    f"number of steps; got {curve_steps}"
                )
            found["metrics"] = points[-1]
        if curve_steps is None or not at_last_step:
            state = learner.adapt(task.support)
            found["metrics"] = score_state(learner, state, task)
        outputs = learner.predict_support(task.support) if by_instance else None
        if outputs is not None:
            found["instances"] = accuracy_by_instance(outputs, task.support.y)
        return found

    def of_batch(batch: Task) -> dict[str, Any]:
        device = batch.query.x.device.type
        with (
            torch.no_grad(),
            torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"),
        ):
            found = learner.mapped(measure, batch)
        return tree_map(lambda values: values.float().cpu(), found)

    learner.eval()
    return measured(learner, tasks, of_batch, n=n, chunk=chunk, generator=generator)


def score_state(learner: Learner, state: Any, task: Task) -> dict[str, Tensor]:
    """The loss and the metrics of the query set after adapting to `state`."""
    outputs = learner.predict(state, task.query.x)
    return {
        "loss": learner.likelihood.nll(outputs, task.query.y),
        **learner.likelihood.metrics(outputs, task.query.y),
    }


def accuracy_by_instance(outputs: Tensor, y: Tensor) -> Tensor:
    """The accuracy (n,) of outputs (n, ways) for the 1st, 2nd, ... example of a class
    in a support set with one-hot labels y (n, ways): the mean over the classes that
    have so many examples, NaN where none has.
    """
    correct = (outputs.argmax(-1) == y.argmax(-1)).float()
    instance = (y * y.cumsum(0)).sum(-1)  # (n,) 1, 2, ...
    count = torch.arange(1, len(y) + 1, device=y.device)
    where = (instance[:, None] == count).float()  # (n, n)
    return (correct[:, None] * where).sum(0) / where.sum(0)


def _columns(parts: list[Tensor]) -> list[Estimate]:
    """An estimate for each column of parts (tasks, columns), without NaN; columns that
    hold nothing else are left out.
    """
    width = max((part.shape[1] for part in parts), default=0)
    columns = []
    for i in range(width):
        values = torch.cat([part[:, i] for part in parts if i < part.shape[1]])
        columns.append(values[~values.isnan()])
    return [Estimate.of(values) for values in columns if len(values)]


def score_of(learner: Learner, tasks: TaskDistribution, plan: TestPlan) -> Measurement:
    """The score of a learner on `plan.n` tasks, without what costs more time."""
    return evaluate(learner, tasks, plan).tables[0].rows[0].values[0]
