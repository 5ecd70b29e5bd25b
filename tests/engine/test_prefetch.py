"""Batches drawn in the background are the batches drawn without it."""

import time

import pytest
import torch
from torch import Tensor

from innerloop.engine.prefetch import Prefetcher


def slow(generator: torch.Generator) -> Tensor:
    time.sleep(0.01)
    return torch.rand(2, generator=generator)


def test_batches_and_generator_are_those_without_prefetching() -> None:
    runs = []
    for allowed in (False, True):
        generator = torch.Generator().manual_seed(0)
        prefetcher, run = Prefetcher(slow, generator, allowed=allowed), []
        for step in range(12):
            run.append(prefetcher.next())
            run.append(generator.get_state().double())
            if step % 4 == 3:  # the caller draws, too
                run.append(torch.rand(2, generator=generator))
        assert (prefetcher.coming is not None) == allowed
        prefetcher.close()
        runs.append(run)
    assert all(map(torch.equal, *runs))


def test_an_error_in_the_background_is_raised_once_by_its_batch() -> None:
    fail: list[bool] = []

    def draw(generator: torch.Generator) -> Tensor:
        if fail:
            raise ZeroDivisionError
        return slow(generator)

    prefetcher = Prefetcher(draw, torch.Generator().manual_seed(0), allowed=True)
    for _ in range(6):
        prefetcher.next()
    prefetcher.next()  # the last good one is drawn ahead before `fail` is set
    assert prefetcher.coming is not None
    prefetcher.coming.result()
    fail.append(True)
    prefetcher.next()
    with pytest.raises(ZeroDivisionError):
        prefetcher.next()
    fail.clear()
    assert prefetcher.next().shape == (2,)
    prefetcher.close()


def test_nothing_is_drawn_ahead_where_it_is_not_allowed() -> None:
    prefetcher = Prefetcher(slow, torch.Generator(), allowed=False)
    for _ in range(8):
        prefetcher.next()
    assert prefetcher.coming is None
    prefetcher.close()
