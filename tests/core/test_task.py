"""Tasks and their shapes."""

from typing import Any

import pytest
import torch

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec


def batch(n: int = 3) -> Task:
    support = Examples(torch.arange(n * 2 * 4.0).view(n, 2, 4), torch.ones(n, 2, 1))
    return Task(
        support, Examples(support.x.repeat(1, 2, 1) + 100, torch.zeros(n, 4, 1))
    )


def test_unbind_gives_the_single_tasks() -> None:
    tasks = batch()
    singles = tasks.unbind()
    assert len(singles) == 3
    for i, task in enumerate(singles):
        assert isinstance(task, Task)
        assert isinstance(task.query, Examples)
        for part, whole in zip(task, tasks, strict=True):
            assert torch.equal(part.x, whole.x[i])
            assert torch.equal(part.y, whole.y[i])


@pytest.mark.parametrize(
    ("numbers", "sizes"),
    [(0, [1, 1, 1]), (24 * 2, [2, 1]), (24 * 3 - 1, [2, 1]), (1000, [3])],
)
def test_split_takes_as_many_tasks_as_have_so_many_numbers(
    numbers: int, sizes: list[int]
) -> None:
    parts = batch().split(numbers)
    assert [len(part.query.y) for part in parts] == sizes
    for before, after in zip(
        batch(),
        (
            Examples(*map(torch.cat, zip(*halves, strict=True)))
            for halves in zip(*parts, strict=True)
        ),
        strict=True,
    ):
        assert torch.equal(before.x, after.x)
        assert torch.equal(before.y, after.y)


def test_to_moves_every_tensor() -> None:
    moved = batch().to("meta")
    assert isinstance(moved, Task)
    assert {tensor.device.type for part in moved for tensor in part} == {"meta"}
    assert moved.query.x.shape == batch().query.x.shape


def test_a_batch_of_tasks_crosses_vmap() -> None:
    sums = torch.vmap(lambda task: task.support.x.sum() + task.query.x.sum())(batch())
    torch.testing.assert_close(
        sums,
        torch.stack(
            [task.support.x.sum() + task.query.x.sum() for task in batch().unbind()]
        ),
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("labels", (4,), 2), "classes"),
        (("classes", (), 2), "positive sizes"),
        (("classes", (4, 0), 2), "positive sizes"),
        (("reals", (4,), 0), "positive sizes"),
        (("reals", (-1,), 1), "positive sizes"),
    ],
)
def test_impossible_specs_are_refused(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskSpec(*given)


def test_spec_knows_images_and_sizes() -> None:
    image, vector = TaskSpec("classes", (3, 8, 9), 5), TaskSpec("reals", (7,), 2)
    assert (image.is_image, image.x_size) == (True, 216)
    assert (vector.is_image, vector.x_size) == (False, 7)


def test_spec_takes_any_sequence_and_is_a_value() -> None:
    spec = TaskSpec("classes", torch.Size([1, 28, 28]), 5)
    assert type(spec.x_shape) is tuple
    assert spec == TaskSpec("classes", [1, 28, 28], 5)  # type: ignore[arg-type]
    assert hash(spec) == hash(TaskSpec("classes", (1, 28, 28), 5))
    with pytest.raises(AttributeError):
        spec.y_dim = 6  # type: ignore[misc]


def test_a_distribution_must_sample() -> None:
    with pytest.raises(TypeError, match="sample"):
        TaskDistribution()  # type: ignore[abstract]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_copy_to_the_cpu_has_arrived() -> None:
    tasks = batch(1000).to("cuda")
    assert torch.equal(tasks.to("cpu").query.x, batch(1000).query.x)


def test_only_copies_to_a_device_may_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda self, device, non_blocking=False: seen.append(non_blocking) or self,
    )
    batch().to("cpu")
    assert seen == [False] * 4
    batch().to("cuda")
    assert seen[4:] == [True] * 4
