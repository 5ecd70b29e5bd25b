"""Corrupted support examples: what is changed, what is not, and what it costs."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from innerloop import MAML, Examples, InnerloopError, ProtoNet, Task, TaskSpec
from innerloop.engine.errors import InnerloopTypeError
from innerloop.evaluation import Robustness
from innerloop.evaluation.robustness import (
    Attack,
    CorruptedTasks,
    Corruption,
    noise,
    occlusion,
    outliers,
    wrong_labels,
)
from innerloop.measurements import Report, TestPlan
from innerloop.tasks.sinusoid import Sinusoid
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (6,), 4)
TASKS = Blobs(SPEC, shots=5, queries=4)
IMAGES = Blobs(TaskSpec("classes", (2, 7, 8), 3), shots=5, queries=4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(
    source: Blobs, corrupt: Corruption, share: float, n: int = 10
) -> tuple[Task, Task]:
    """Some tasks as they are, and corrupted."""
    tasks = CorruptedTasks(source, corrupt, share).sample(n, seeded())
    return source.sample(n, seeded()), tasks


def differing(a: Tensor, b: Tensor) -> Tensor:
    """Which examples (tasks, n) differ."""
    return (a != b).flatten(2).any(-1)


@pytest.mark.parametrize(("share", "count"), [(0.0, 1), (0.2, 1), (0.4, 2), (1.0, 5)])
def test_a_share_of_every_class_gets_a_wrong_label(share: float, count: int) -> None:
    plain, found = changed(TASKS, wrong_labels, share)
    wrong = differing(plain.support.y, found.support.y)
    counts = (plain.support.y * wrong[..., None]).sum(1)
    assert (counts == count).all()
    assert torch.equal(found.support.x, plain.support.x)
    assert (found.support.y.sum(-1) == 1).all()


@pytest.mark.parametrize(
    "corrupt",
    [partial(outliers, IMAGES), noise, occlusion],
    ids=["outliers", "noise", "occlusion"],
)
def test_the_same_examples_are_changed_within_the_range_of_the_inputs(
    corrupt: Corruption,
) -> None:
    plain, found = changed(IMAGES, corrupt, 0.4)
    _, labels = changed(IMAGES, wrong_labels, 0.4)
    moved = differing(plain.support.x, found.support.x)
    assert torch.equal(moved, differing(plain.support.y, labels.support.y))
    assert torch.equal(found.support.y, plain.support.y)
    if corrupt in (noise, occlusion):
        before, after = (t.support.x.flatten(1) for t in (plain, found))
        assert (after.amax(1) <= before.amax(1)).all()
        assert (after.amin(1) >= before.amin(1)).all()


def test_a_quarter_of_an_image_is_hidden() -> None:
    plain, found = changed(IMAGES, occlusion, 1.0)
    hidden = found.support.x == plain.support.x.flatten(1).mean(1).view(10, 1, 1, 1, 1)
    assert (hidden.sum((-2, -1)) == 4 * 4).all()
    columns = hidden.any(-2).long()  # side by side
    assert (columns.diff(dim=-1).abs().sum(-1) <= 2).all()


def test_the_attack_does_not_see_the_queries_that_are_scored() -> None:
    seen: list[Examples] = []

    def keep(task: Task, queries: Examples, *_: object) -> Examples:
        seen.append(queries)
        return task.support

    plain, found = changed(TASKS, keep, 0.2)
    both = torch.cat([seen[0].x, found.query.x], 1)
    assert (seen[0].y.sum(1) == 2).all()
    assert (found.query.y.sum(1) == 2).all()
    rows = [{tuple(x.tolist()) for x in task} for task in (both[0], plain.query.x[0])]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 16


@pytest.mark.parametrize("learner", [ProtoNet, MAML])
def test_the_attack_raises_the_loss_of_other_queries_within_its_budget(
    learner: type[ProtoNet | MAML],
) -> None:
    torch.manual_seed(0)
    built = learner.build(SPEC)
    attack = Attack(built, 0.4, 5)
    plain, found = changed(TASKS, attack, 1.0, 3)
    moved = (found.support.x - plain.support.x).abs()
    assert float(moved.max()) == pytest.approx(0.4, abs=1e-5)
    assert torch.equal(changed(TASKS, attack, 1.0, 3)[1].support.x, found.support.x)
    random = plain.support.x + 0.4 * torch.randn(moved.shape, generator=seeded()).sign()
    with torch.no_grad():
        losses = [
            float(built(Task(Examples(x, plain.support.y), found.query))[0])
            for x in (plain.support.x, random, found.support.x)
        ]
    assert losses[2] > losses[1] + 0.02
    assert losses[2] > losses[0] + 0.02
    assert all(p.grad is None for p in built.parameters())


def test_on_centers_of_one_dimension_the_attack_is_known() -> None:
    """Classes at -1 and 1: the loss grows where both prototypes move to the middle."""

    class Line(Blobs):
        def sample(self, n: int, generator: torch.Generator) -> Task:
            x = torch.tensor([[-1.0], [1.0]]).repeat(4, 1).expand(n, -1, -1)
            y = torch.eye(2).repeat(4, 1).expand(n, -1, -1)
            return Task(Examples(x[:, :4], y[:, :4]), Examples(x[:, 4:], y[:, 4:]))

    spec = TaskSpec("classes", (1,), 2)
    learner = ProtoNet.build(spec, encoder=nn.Identity(), scale=1.0)
    found = CorruptedTasks(Line(spec), Attack(learner, 0.3, 10), 1.0)
    x = found.sample(2, seeded()).support.x
    expected = torch.tensor([-0.7, 0.7, -0.7, 0.7]).view(1, 4, 1).expand(2, -1, -1)
    torch.testing.assert_close(x, expected)


def rows(report: Report) -> dict[str, list[float]]:
    """The numbers of every row."""
    return {
        str(row.labels["support set"]): [value.mean for value in row.values]
        for row in report.tables[0].rows
    }


def test_differences_are_paired_and_robust_prototypes_lose_less() -> None:
    tasks = Blobs(TaskSpec("classes", (3,), 4), shots=5, queries=6)
    found = {}
    for center in ("mean", "median", "weighted"):
        learner = ProtoNet.build(
            tasks.spec, encoder=nn.Flatten(), scale=4.0, center=center
        )
        report = Robustness(share=0.4, attack_steps=0)(learner, tasks, TestPlan(n=75))
        found[center] = rows(report)
        assert list(found[center]) == ["clean", "wrong labels", "outliers", "noise"]
        for name, (score, *difference) in found[center].items():
            if name != "clean":
                gap = score - found[center]["clean"][0]
                assert difference == [pytest.approx(gap, abs=1e-6)]
    lost = {name: -of["wrong labels"][1] for name, of in found.items()}
    assert lost["median"] < lost["mean"] - 0.01
    assert lost["weighted"] < lost["median"]


def test_images_are_also_occluded_and_attacked_and_a_seed_gives_one_result() -> None:
    learner = ProtoNet.build(IMAGES.spec, encoder="flatten", scale=1.0)
    evaluation = Robustness(attack_steps=2, budget=0.2)
    report = evaluation(learner, IMAGES, TestPlan(n=4, labels={"shots": 5}))
    assert report.tables[0].rows[0].labels == {"shots": 5, "support set": "clean"}
    assert [*rows(report)][3:] == ["noise", "occlusion", "attack"]
    assert "at most 0.2" in report.notes[1]
    assert str(evaluation(learner, IMAGES, TestPlan(n=4))) == str(
        evaluation(learner, IMAGES, TestPlan(n=4))
    )


@pytest.mark.parametrize(
    ("learner", "spec", "reason"),
    [
        (ProtoNet, TaskSpec("classes", (6,), 3, vocabulary=9), "token numbers"),
        (partial(MAML.build, first_order=True), SPEC, "first_order"),
        (partial(MAML.build, inner_steps=0), SPEC, "no gradient in its support"),
    ],
)
def test_it_says_why_there_is_no_attack(
    learner: type[ProtoNet], spec: TaskSpec, reason: str
) -> None:
    built = getattr(learner, "build", learner)(spec)
    report = Robustness()(built, Blobs(spec, shots=3), TestPlan(n=2))
    assert "attack" not in rows(report)
    assert "no attack: " in report.notes[1]
    assert reason in report.notes[1]


def test_it_needs_classes_and_two_queries_of_each() -> None:
    with pytest.raises(InnerloopTypeError, match="it needs tasks of classes"):
        Robustness()(ProtoNet.build(SPEC), Sinusoid(), TestPlan())
    few = Blobs(SPEC, queries=1)
    with pytest.raises(InnerloopError, match="two query examples of a class"):
        Robustness(attack_steps=0)(ProtoNet.build(SPEC), few, TestPlan(n=2))
