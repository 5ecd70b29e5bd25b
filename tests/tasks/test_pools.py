"""Pools: sizes, labels, no example twice, and classes of unequal size."""

import pytest
import torch

from innerloop.tasks.episodes import ClassBank
from innerloop.tasks.pools import Pools


def bank(classes: int = 14, each: int = 20) -> ClassBank:
    """Every value is the number of its class and its place in it."""
    values = torch.tensor(
        [[float(c), float(i)] for c in range(classes) for i in range(each)]
    )
    return ClassBank.of(values, [each] * classes, [f"{c}" for c in range(classes)])


def test_a_pool_has_its_sizes_and_labels() -> None:
    some = Pools(bank()).sample(40, torch.Generator().manual_seed(0))
    ways = set()
    for task in some.unbind():
        both = torch.cat([task.support.x, task.query.x])
        assert len(both.unique(dim=0)) == len(both) == 80  # none twice
        present = task.support.y.any(0)
        ways.add(int(present.sum()))
        # the query classes are those of the pool
        assert torch.equal(task.query.y.any(0), present)
        counts = task.query.y.sum(0)[present]
        assert counts.max() - counts.min() <= 1
        for part in task:  # a label is a class, and a class a label
            pairs = {
                (int(label), int(x[0]))
                for label, x in zip(part.y.argmax(-1), part.x, strict=True)
            }
            assert len(pairs) == int(present.sum())
    assert ways == {5, 6, 7, 8, 9, 10}


def test_spread_makes_classes_rare() -> None:
    uneven, even = (
        Pools(bank(), fewest=8, most=8, spread=spread).sample(
            60, torch.Generator().manual_seed(0)
        )
        for spread in (1.5, 0.0)
    )
    assert (
        uneven.support.y.sum(1).std(1).mean()
        > 1.3 * even.support.y.sum(1).std(1).mean()
    )
    assert uneven.support.y.sum(1).amin() >= 1


def test_the_order_of_a_pool_says_nothing_about_the_class() -> None:
    some = Pools(bank(), fewest=8, most=8).sample(300, torch.Generator().manual_seed(0))
    assert (
        abs(
            float(some.support.y[:, :8].argmax(-1).float().mean())
            - float(some.support.y.argmax(-1).float().mean())
        )
        < 0.25
    )


def test_a_small_bank_is_refused() -> None:
    with pytest.raises(ValueError, match="need 10 classes of at least 16 examples"):
        Pools(bank(each=12))
    with pytest.raises(ValueError, match="2 <= fewest <= most"):
        Pools(bank(), fewest=5, most=4)
