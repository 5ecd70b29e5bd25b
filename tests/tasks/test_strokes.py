"""Strokes: repeatable, inked, new in every part, and characters that resemble
themselves.
"""

import pytest
import torch
from torch import Tensor

from innerloop import Task
from innerloop.tasks import Episodes, strokes
from innerloop.tasks.strokes import FreshEpisodes, bank


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(seed: int = 0, n: int = 4, **options: int) -> Task:
    return strokes(**{"ways": 5, "shots": 2, "queries": 3, **options}).sample(
        n, seeded(seed)
    )


@pytest.fixture
def two_alphabets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        bank.__wrapped__.__globals__, "_FIXED", {"train": 2, "val": 2, "test": 2}
    )
    monkeypatch.setitem(bank.__wrapped__.__globals__, "_DRAWINGS", 4)
    monkeypatch.setitem(bank.__wrapped__.__globals__, "bank", bank.__wrapped__)


@pytest.mark.parametrize("groups", [0, 1, 2, 3, 9])
def test_shapes_and_balance(groups: int) -> None:
    tasks = sample(groups=groups)
    assert tasks.support.x.shape == (4, 10, 1, 28, 28)
    assert tasks.query.x.shape == (4, 15, 1, 28, 28)
    assert torch.equal(tasks.support.y.sum(1), torch.full((4, 5), 2.0))
    assert torch.equal(tasks.query.y.sum(1), torch.full((4, 5), 3.0))
    assert torch.equal(tasks.query.y.sum(2), torch.ones(4, 15))


def test_same_seed_same_drawings() -> None:
    first, second, other = sample(1), sample(1), sample(2)
    for left, right in zip(first, second, strict=True):
        assert torch.equal(left.x, right.x)
        assert torch.equal(left.y, right.y)
    assert not torch.equal(first.query.x, other.query.x)


def test_drawing_uses_its_generator_alone() -> None:
    state = torch.get_rng_state()
    sample()
    assert torch.equal(torch.get_rng_state(), state)


def test_ink_lies_on_dark_ground() -> None:
    images = torch.cat([part.x.flatten(0, 1) for part in sample(n=30)])
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    inked = images.mean((1, 2, 3))
    assert 0.04 < float(inked.mean()) < 0.3
    assert float(inked.min()) > 0
    border = torch.cat(
        [images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1
    )
    assert float(border.mean()) < 0.02


def nearness(tasks: Task) -> tuple[Tensor, Tensor]:
    """Mean distances of blurred drawings of one class and of two, task by task."""
    inside, outside = [], []
    for task in tasks.unbind():
        z = torch.nn.functional.avg_pool2d(
            torch.cat([task.support.x, task.query.x]), 3, 2
        ).flatten(1)
        y = torch.cat([task.support.y, task.query.y])
        same, apart = y @ y.T > 0.5, torch.cdist(z, z)
        inside.append(apart[same & ~torch.eye(len(y), dtype=torch.bool)].mean())
        outside.append(apart[~same].mean())
    return torch.stack(inside), torch.stack(outside)


@pytest.mark.parametrize("groups", [0, 1])
def test_drawings_of_a_character_resemble_each_other(groups: int) -> None:
    inside, outside = nearness(sample(n=40, groups=groups))
    assert float(inside.mean()) < 0.85 * float(outside.mean())
    assert float((inside < outside).float().mean()) > 0.95


def test_drawings_of_a_character_differ() -> None:
    task = sample(n=1).unbind()[0]
    images = torch.cat([task.support.x, task.query.x]).flatten(1)
    assert float((torch.cdist(images, images) + 9 * torch.eye(25)).min()) > 0.5


@pytest.mark.usefixtures("two_alphabets")
def test_parts_have_banks_of_their_own() -> None:
    banks = [bank.__wrapped__(split) for split in ("train", "val", "test")]
    stocks = [{image.numpy().tobytes() for image in one.values} for one in banks]
    assert [len(stock) for stock in stocks] == [2 * 26 * 4] * 3
    assert len(set.union(*stocks)) == 3 * 2 * 26 * 4
    assert len({name for one in banks for name in one.names}) == 3 * 52
    assert banks[0].groups.tolist() == [i // 26 for i in range(52)]


@pytest.mark.usefixtures("two_alphabets")
def test_fixed_parts_are_the_same_every_time() -> None:
    first, second = bank.__wrapped__("val"), bank.__wrapped__("val")
    assert torch.equal(first.values, second.values)
    assert first.fingerprint() == second.fingerprint()
    assert first.values.dtype == torch.uint8


@pytest.mark.usefixtures("two_alphabets")
def test_validation_and_testing_are_episodes_of_fixed_characters() -> None:
    for split in ("val", "test"):
        tasks = strokes(split, ways=20, shots=1, queries=2, groups=1)
        assert isinstance(tasks, Episodes)
        assert tasks.warp is None
        assert all(name.startswith(split) for name in tasks.bank.names)
        assert tasks.sample(2, seeded()).query.x.shape == (2, 40, 1, 28, 28)
    assert isinstance(strokes("train"), FreshEpisodes)


@pytest.mark.usefixtures("two_alphabets")
def test_supervised_characters_are_a_fixed_stock() -> None:
    stock = strokes("train").for_supervised(8)
    assert stock.spec.y_dim == 52
    task = stock.sample(1, seeded())
    assert task.query.x.shape == (1, 8, 1, 28, 28)
    assert torch.equal(task.query.y, stock.sample(1, seeded()).query.y)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="one of train, val, test; got 'dev'"):
        strokes("dev")
    for options in ({"ways": 0}, {"shots": 0}, {"queries": 0}, {"groups": -1}):
        with pytest.raises(ValueError, match="at least"):
            strokes(**options)
