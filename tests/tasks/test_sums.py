"""Sums of functions: the functions recur in all splits, the pairs do not."""

import pytest
import torch

from innerloop.tasks import sums
from innerloop.tasks.function_sums import FUNCTIONS, PAIRS, Sums


def test_no_pair_is_in_two_splits_and_every_function_is_learned_from() -> None:
    splits = [sums(split).pairs for split in ("train", "val", "test")]
    assert sorted(pair for pairs in splits for pair in pairs) == sorted(PAIRS)
    assert {name for pair in splits[0] for name in pair} == set(FUNCTIONS)


def test_targets_are_the_sum_of_two_functions() -> None:
    tasks = sums("test", shots=6, queries=9)
    drawn = tasks.sample(60, torch.Generator().manual_seed(0))
    assert drawn.support.x.shape == drawn.support.y.shape == (60, 6, 1)
    assert drawn.query.y.shape == (60, 9, 1)
    found = set()
    for task in drawn.unbind():
        x, y = (torch.cat(parts) for parts in zip(*task, strict=True))
        (pair,) = [
            pair
            for pair in tasks.pairs
            if torch.allclose(
                FUNCTIONS[pair[0]](x) + FUNCTIONS[pair[1]](x), y, atol=1e-5
            )
        ]
        found.add(pair)
    assert found == set(tasks.pairs)


def test_a_task_needs_points() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Sums(list(PAIRS), shots=0)
