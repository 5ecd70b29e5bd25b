"""Testing on unseen tasks: intervals, curves, which tasks are met, and reports."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from innerloop import (
    MAML,
    Examples,
    Learner,
    ProtoNet,
    Task,
    TaskDistribution,
    TaskSpec,
)
from innerloop.core.learner import Streaming
from innerloop.engine.errors import InnerloopError
from innerloop.engine.progress import watched
from innerloop.evaluation.few_shot import accuracy_by_instance, evaluate, meta_test
from innerloop.measurements import (
    Estimate,
    Measurement,
    Report,
    Row,
    Table,
    TestPlan,
    merged,
    student_t,
)
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (4,), 3)
TASKS = Blobs(SPEC)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maml(**build_args: object) -> MAML:
    torch.manual_seed(0)
    return MAML.build(SPEC, inner_lr=0.1, **{"inner_steps": 2, **build_args})


def protonet() -> ProtoNet:
    torch.manual_seed(0)
    return ProtoNet(nn.Linear(4, 3), rotate_support=False)


class Recorder(TaskDistribution):
    """Blobs; keeps the queries of all tasks that were drawn."""

    spec = SPEC

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def sample(self, n: int, generator: torch.Generator) -> Task:
        tasks = TASKS.sample(n, generator)
        self.seen.append(tasks.query.x)
        return tasks


# scipy.stats.t.ppf(0.975, freedom)
@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [
        (1, 12.706204736174694),
        (2, 4.302652729749462),
        (3, 3.1824463052837078),
        (9, 2.262157162798205),
        (29, 2.045229642132703),
        (999, 1.9623414611334493),
        (99_999, 1.9599877077718442),
        (10**6, 1.959966356814107),
    ],
)
def test_student_t_is_that_of_scipy(freedom: int, quantile: float) -> None:
    assert student_t(freedom) == pytest.approx(quantile, abs=3e-6)


@pytest.mark.parametrize("n", [2, 7, 500])
def test_interval_is_student_t_times_the_standard_error(n: int) -> None:
    values = torch.randn(n, generator=seeded())
    found = Estimate.of(values)
    assert found.mean == pytest.approx(np.mean(values.numpy(), dtype=np.float64))
    error = np.std(values.double().numpy(), ddof=1) / math.sqrt(n)
    assert found.interval == pytest.approx(student_t(n - 1) * error)


def test_a_test_reports_how_many_tasks_are_done() -> None:
    done: list[tuple[int, int]] = []
    with watched(lambda *progress: done.append(progress)):
        meta_test(protonet(), TASKS, n=60, chunk=10)
    meta_test(protonet(), TASKS, n=60)  # outside of the context
    assert done == [(25, 60), (50, 60), (60, 60)]


def test_a_single_task_has_no_interval_and_valid_json() -> None:
    assert Estimate.of(torch.tensor([0.5])) == (0.5, None)
    result = meta_test(maml(), TASKS, n=1, curve_steps=1)
    stored = json.dumps(result.as_dict(), allow_nan=False)
    assert json.loads(stored)["metrics"]["accuracy"]["interval"] is None
    report = evaluate(maml(), TASKS, TestPlan(n=1))
    json.dumps(report.as_dict(), allow_nan=False)
    assert "±" not in str(report)
    assert "±" not in repr(result)


@pytest.mark.parametrize("learner", [protonet, maml])
def test_metrics_are_means_over_tasks(learner: type[Learner]) -> None:
    student, tasks = learner(), Recorder()
    result = meta_test(student, tasks, n=30, chunk=4, generator=seeded(3))
    again = meta_test(student, Blobs(SPEC), n=30, chunk=7, generator=seeded(3))
    assert again.metrics == result.metrics
    seed = int(torch.randint(2**32, (), generator=seeded(3)))
    drawn = [
        task
        for i, size in enumerate((25, 5))
        for task in TASKS.sample(size, seeded((seed + i) % 2**32)).unbind()
    ]
    pairs = [student.loss(task) for task in drawn]
    losses = np.array([float(loss.detach()) for loss, _ in pairs])
    accuracies = np.array([float(metrics["accuracy"]) for _, metrics in pairs])
    assert result.metrics["loss"].mean == pytest.approx(losses.mean(), rel=1e-5)
    assert result.metrics["loss"].interval == pytest.approx(
        student_t(29) * losses.std(ddof=1) / math.sqrt(30), rel=1e-5
    )
    assert result.metrics["accuracy"].mean == pytest.approx(accuracies.mean())
    assert (result.tasks, result.score, result.transductive) == (30, "accuracy", False)
    assert result.seconds > 0


def test_the_chunk_does_not_change_the_tasks() -> None:
    seen = []
    for chunk in (1, 7, 25, 1000):
        tasks = Recorder()
        meta_test(protonet(), tasks, n=60, chunk=chunk, generator=seeded(5))
        seen.append(torch.cat(tasks.seen))
    assert len(seen[0]) == 60
    assert len(seen[0].flatten(1).unique(dim=0)) == 60  # no task comes twice
    assert all(torch.equal(seen[0], other) for other in seen[1:])


def test_a_huge_number_of_tasks_is_drawn_piece_by_piece() -> None:
    class Enough(Exception):
        pass

    class Bounded(Recorder):
        def sample(self, n: int, generator: torch.Generator) -> Task:
            if len(self.seen) == 3:
                raise Enough
            return super().sample(n, generator)

    tasks = Bounded()
    with pytest.raises(Enough):
        meta_test(protonet(), tasks, n=10**12)
    assert [len(x) for x in tasks.seen] == [25, 25, 25]


def test_a_transductive_learner_is_marked() -> None:
    assert meta_test(maml(transductive=True), TASKS, n=2).transductive
    report = evaluate(maml(transductive=True), TASKS, TestPlan(n=2))
    assert report.tables[0].rows[0].values[0].transductive
    report = evaluate(maml(), TASKS, TestPlan(n=2))
    assert not report.tables[0].rows[0].values[0].transductive


def test_curve_has_one_score_for_every_number_of_steps() -> None:
    learner = maml()
    result = meta_test(learner, TASKS, n=6, curve_steps=5)
    assert len(result.curve) == 6
    assert result.curve[2] == pytest.approx(result.metrics["accuracy"])
    start = MAML(learner.net, 0.1, inner_steps=0)
    assert result.curve[0] == pytest.approx(
        meta_test(start, TASKS, n=6).metrics["accuracy"]
    )
    assert len(meta_test(learner, TASKS, n=2, curve_steps=0).curve) == 1


def test_no_curve_by_default_or_for_a_learner_without_steps() -> None:
    assert meta_test(maml(), TASKS, n=2).curve == []
    assert meta_test(protonet(), TASKS, n=2, curve_steps=3).curve == []


def test_same_seed_same_numbers() -> None:
    learner = maml()
    results = [
        meta_test(learner, TASKS, n=8, curve_steps=2, generator=g)
        for g in (None, seeded(0), seeded(1))
    ]
    assert results[0].metrics == results[1].metrics
    assert results[0].curve == results[1].curve
    assert results[0].metrics != results[2].metrics
    generator = seeded(0)
    first, second = (
        meta_test(learner, TASKS, n=8, generator=generator) for _ in range(2)
    )
    assert first.metrics == results[0].metrics != second.metrics


def test_testing_changes_nothing_but_the_mode() -> None:
    learner = maml().train()
    before = copy.deepcopy(learner.state_dict())
    meta_test(learner, TASKS, n=3, curve_steps=1)
    evaluate(learner, TASKS, TestPlan(n=3, steps=7))
    assert not learner.training
    assert learner.inner_steps == 2
    assert all(p.grad is None for p in learner.parameters())
    assert all(
        torch.equal(value, before[name]) for name, value in learner.state_dict().items()
    )


def test_bf16_is_near_float32() -> None:
    losses = [
        meta_test(protonet(), TASKS, n=5, precision=precision).metrics["loss"].mean
        for precision in ("float32", "bf16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
def test_sizes_out_of_range_are_refused(n: int) -> None:
    with pytest.raises(InnerloopError, match="n of meta_test must be"):
        meta_test(protonet(), TASKS, n=n)
    with pytest.raises(InnerloopError, match="chunk of meta_test must be"):
        meta_test(protonet(), TASKS, chunk=n)
    with pytest.raises(InnerloopError, match="n of TestPlan must be"):
        TestPlan(n=n)
    with pytest.raises(InnerloopError, match="steps of TestPlan must be"):
        TestPlan(steps=n)


def test_a_plan_refuses_seeds_that_torch_cannot_tell_apart() -> None:
    pairs = [torch.rand(3, generator=seeded(s)) for s in (5, 5 + 2**32)]
    assert torch.equal(*pairs)  # the reason for the bound
    with pytest.raises(InnerloopError, match="seed of TestPlan"):
        TestPlan(seed=5 + 2**32)


def test_results_are_plain_data() -> None:
    result = meta_test(maml(), TASKS, n=3, curve_steps=1)
    stored = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert stored["metrics"]["accuracy"] == result.metrics["accuracy"]._asdict()
    assert len(stored["curve"]) == 2


def test_results_can_be_read() -> None:
    result = meta_test(maml(transductive=True), TASKS, n=3, curve_steps=1)
    accuracy = result.metrics["accuracy"]
    percent = f"{100 * accuracy.mean:.2f} ± {100 * accuracy.interval:.2f} %"
    assert repr(result).startswith(f"TestResult(accuracy {percent}, loss ")
    assert "transductive, 3 tasks" in repr(result)
    assert "{" not in repr(result)
    html = result._repr_html_()
    assert f"<td>{percent}</td>" in html
    assert html.count("<table>") == html.count("</table>") == 2


def test_a_report_has_the_score_first_and_bears_the_labels_of_the_plan() -> None:
    plan = TestPlan(n=6, seed=2, steps=4, labels={"ways": 3, "shots": 2})
    report = evaluate(maml(), TASKS, plan)
    first, curve = report.tables
    assert first.rows[0].labels == {"ways": 3, "shots": 2}
    assert [v.name for v in first.rows[0].values] == ["accuracy", "loss", "seconds"]
    assert [v.unit for v in first.rows[0].values] == ["%", "", "s"]
    assert [v.n for v in first.rows[0].values[:2]] == [6, 6]
    assert [row.labels["steps"] for row in curve.rows] == [0, 1, 2, 3, 4]
    # the number of steps of the plan, not that of the learner
    assert curve.rows[4].values[0].mean == first.rows[0].values[0].mean
    four = meta_test(maml(inner_steps=4), TASKS, n=6, generator=seeded(2))
    assert first.rows[0].values[0].mean == four.metrics["accuracy"].mean
    assert first.rows[0].values[1].mean == pytest.approx(four.metrics["loss"].mean)
    again = Report.from_dict(json.loads(json.dumps(report.as_dict())))
    assert again.as_dict() == report.as_dict()
    joined = merged([report, report])
    assert [len(table.rows) for table in joined.tables] == [2, 10]


def test_two_classes_have_a_ranking_score_after_the_accuracy() -> None:
    spec = TaskSpec("classes", (4,), 2)
    report = evaluate(ProtoNet(nn.Linear(4, 3)), Blobs(spec), TestPlan(n=3))
    names = {v.name: v.unit for v in report.tables[0].rows[0].values}
    assert names == {"accuracy": "%", "loss": "", "roc_auc": "", "seconds": "s"}


def test_steps_of_a_plan_need_a_learner_that_takes_steps() -> None:
    with pytest.raises(InnerloopError, match="ProtoNet takes no gradient steps"):
        evaluate(protonet(), TASKS, TestPlan(n=2, steps=3))


def test_a_report_says_what_its_intervals_do_not_cover() -> None:
    class Few(Blobs):
        def class_keys(self) -> frozenset[str]:
            return frozenset("abc")

    assert "all tasks have the same 3 classes" in str(
        evaluate(protonet(), Few(SPEC), TestPlan(n=2))
    )
    assert evaluate(protonet(), TASKS, TestPlan(n=2)).notes == ()


def test_scores_that_are_not_finite_are_named_and_survive_json() -> None:
    learner = protonet()
    nn.init.constant_(learner.encoder.weight, math.nan)
    report = evaluate(learner, TASKS, TestPlan(n=2))
    assert "not finite: loss" in report.notes[0]
    stored = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    loss = Report.from_dict(stored).tables[0].rows[0].values[1]
    assert loss.name == "loss"
    assert math.isnan(loss.mean)
    assert "nan" in str(loss)


def test_numbers_are_shown_with_their_units() -> None:
    assert str(Measurement("accuracy", 0.98765, 0.00123, 9, "%")) == "98.77 ± 0.12 %"
    assert str(Measurement("mse", 1.5, None)) == "1.5000"
    assert str(Measurement("seconds", 12.34, unit="s")) == "12.3 s"
    assert str(Measurement("seconds", 0.000412345, unit="s")) == "0.000412 s"
    assert str(Measurement("seconds", 0.0, unit="s")).startswith("0")
    lines = str(
        Table(
            "title <b>",
            (
                Row({"ways": 5, "shots": None}, (Measurement("a", 1.0),)),
                Row({"ways": 20}, (Measurement("b", 2.0),)),
            ),
        )
    ).splitlines()
    assert lines[0] == "title <b>"
    assert lines[1].split() == ["ways", "shots", "a", "b"]
    assert lines[2].split() == ["5", "-", "1.0000"]
    assert lines[3].split() == ["20", "2.0000"]


class Perfect(Streaming):
    """Reads the label in the input. Nobody 2026."""

    def init(self) -> Tensor:
        return torch.zeros(1)

    def observe(self, state: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return state + 1

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return x


class Uneven(TaskDistribution):
    """Support sets with 5, 2, 1 and 0 examples of 4 classes; the input is the label,
    but for the first example of the second class.
    """

    spec = TaskSpec("classes", (4,), 4)
    shown = 5, 2, 1, 0

    def sample(self, n: int, generator: torch.Generator) -> Task:
        y = torch.eye(4)[torch.arange(4).repeat_interleave(torch.tensor(self.shown))]
        x = y.clone()
        x[5] = x[5].roll(1)
        support = Examples(*(t.expand(n, -1, -1) for t in (x, y)))
        return Task(support, support)


def test_accuracy_by_instance_of_an_uneven_support_set() -> None:
    learner = Perfect()
    learner.likelihood = protonet().likelihood
    found = meta_test(learner, Uneven(), n=3).instances
    # 3 classes have a first example, 2 a second one, and 1 three more
    assert [e.mean for e in found] == pytest.approx([2 / 3, 1, 1, 1, 1])
    y = torch.eye(3)[[2, 0, 2, 1, 2]]
    outputs = torch.eye(3)[[2, 1, 2, 1, 0]]
    accuracies = accuracy_by_instance(outputs, y)
    assert accuracies[:3].tolist() == pytest.approx([2 / 3, 1, 0])
    assert accuracies[3:].isnan().all()
    report = evaluate(learner, Uneven(), TestPlan(n=3))
    assert [row.labels["instance"] for row in report.tables[1].rows] == [1, 2, 3, 4, 5]
    assert report.tables[1].rows[0].values[0].unit == "%"


def test_no_accuracy_by_instance_without_streaming() -> None:
    assert meta_test(protonet(), TASKS, n=2).instances == []
