"""The tasks of a test: in blocks with a seed of their own, which several processes can
share, and as many of these at once as fit into memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from innerloop.core.learner import Learner
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.options import Count, checked
from innerloop.engine.progress import report_progress
from innerloop.engine.sharing import shared
from innerloop.metagrad.base import CHUNK_NUMBERS

BLOCK = 25  # tasks drawn from one seed
SEEDS = 2**32  # torch's CPU generator reads no more bits of a seed


class Block(NamedTuple):
    """Some of the tasks of a test: how many come before them, how many they are, and
    what draws them.
    """

    begin: int
    size: int
    generator: torch.Generator


class Blocks(Sequence[Block]):
    """The `n` tasks of a test, 25 at a time, every 25 with a seed of their own."""

    def __init__(self, n: int, generator: torch.Generator | None):
        checked(measured, {"n": n}, "a test")
        self.n, self.seed = n, _seed(generator or torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return -(-self.n // BLOCK)

    def __getitem__(self, index: Any) -> Any:
        begin = range(0, self.n, BLOCK)[index]
        return Block(begin, min(BLOCK, self.n - begin), _seeded(self.seed + index))


def generators(parent: torch.Generator) -> Iterator[torch.Generator]:
    """Generators with seeds of their own: one number drawn from `parent`, and those
    that follow it.
    """
    return map(_seeded, itertools.count(_seed(parent)))


def _seed(parent: torch.Generator) -> int:
    return int(torch.randint(SEEDS, (), generator=parent, device=parent.device))


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed % SEEDS)


def draw(learner: Learner, tasks: TaskDistribution, block: Block) -> Task:
    """The tasks of a block."""
    drawn = tasks.sample(block.size, block.generator)
    if block.begin == 0 and not tasks.played:
        tasks.spec.check(drawn, block.size, learner.dtype)
    return drawn


def batches(learner: Learner, drawn: Task, chunk: int) -> Iterator[Task]:
    """Tasks on the learner's device, at most `chunk` at once."""
    checked(measured, {"chunk": chunk}, "a test")
    numbers = sum(examples.x[0].numel() for examples in drawn)  # of a task
    for part in drawn.split(min(CHUNK_NUMBERS, chunk * numbers)):
        yield part.to(device_of(learner))


def device_of(learner: Learner) -> torch.device:
    """Where the learner computes."""
    return next(learner.parameters(), torch.empty(0)).device


def chunks(
    learner: Learner,
    tasks: TaskDistribution,
    n: int,
    chunk: int,
    generator: torch.Generator | None,
) -> Iterator[Task]:
    """The `n` tasks of a test, at most `chunk` at once, on the learner's device; for
    what one process measures alone. `chunk` does not change the tasks.
    """
    for block in Blocks(n, generator):
        yield from batches(learner, draw(learner, tasks, block), chunk)
        report_progress(block.begin + block.size, n)


def measured(
    learner: Learner,
    tasks: TaskDistribution,
    measure: Callable[[Task], Any],
    *,
    n: Count,
    chunk: Count = BLOCK,
    generator: torch.Generator | None = None,
) -> list[Any]:
    """`measure(batch)` for all of the `n` tasks of a test, in order, at most `chunk` in
    a batch; several processes can share them, see `innerloop.engine.sharing`.

    Random numbers that it draws come from the seed of their block.
    """

    def of_block(block: Block) -> list[Any]:
        seed, device = block.generator.initial_seed(), device_of(learner)
        drawn = draw(learner, tasks, block)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            return [measure(batch) for batch in batches(learner, drawn, chunk)]

    found = shared(Blocks(n, generator), of_block, lambda block: block.size, n)
    return [result for results in found for result in results]
