"""Accuracy on tasks from a data set, by task and by item."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, Task
from innerloop.evaluation.chunks import BLOCK, generators
from innerloop.measurements import Estimate, student_t
from innerloop.readers.image import to_unit
from innerloop.tasks.episodes import Episodes

Key = tuple[int, int]  # the classes that tasks are drawn from, and a block of tasks


class NearestNeighbor(Learner):
    """Nearest neighbor: predicts the class of the most similar support example.

    Reference: Cover and Hart 1967, "Nearest neighbor pattern classification", IEEE
    Transactions on Information Theory 13.

    State: the support set.
    """

    likelihood: Likelihood = Categorical()

    kinds = ("classes",)

    def adapt(self, support: Examples) -> Examples:
        return support

    def predict(self, state: Examples, x: Tensor) -> Tensor:
        distance = torch.cdist(x.flatten(1), state.x.flatten(1))  # (m, n)
        other = torch.where(state.y.T[:, None] > 0.5, 0.0, torch.inf)  # (ways, 1, n)
        return -(distance + other).amin(-1).T  # (m, ways)


class Block(NamedTuple):
    """What a learner got right in some tasks.

    Args:
        accuracy: of every task (tasks,).
        right, seen: how often each item was predicted right, and predicted (N,).
    """

    accuracy: Tensor
    right: Tensor
    seen: Tensor


def measure(learner: Learner, values: Tensor, drawn: Task) -> Block:
    """A learner on tasks whose examples are numbers of items.

    Args:
        values: the items as the learner takes them (N, *x_shape).
        drawn: a batch of tasks from `LabeledData.index`.
    """

    def examples(part: Examples) -> Examples:
        return Examples(to_unit(values[part.x[..., 0].long()]), part.y)

    def outputs(task: Task) -> Tensor:
        return learner.predict(learner.adapt(task.support), task.query.x)

    with torch.no_grad():
        found = learner.mapped(outputs, Task(*map(examples, drawn)))
    right = (found.argmax(-1) == drawn.query.y.argmax(-1)).float()  # (tasks, m)
    places = drawn.query.x[..., 0].long().flatten()
    sums = torch.zeros(2, len(values))
    sums[0].index_add_(0, places, right.flatten())
    sums[1].index_add_(0, places, torch.ones_like(right).flatten())
    return Block(right.double().mean(-1), sums[0], sums[1])


def split(tasks: Task, size: int) -> list[Task]:
    """A batch of tasks in batches of at most `size`."""
    columns = (part.split(size) for examples in tasks for part in examples)
    return [
        Task(Examples(x, y), Examples(query_x, query_y))
        for x, y, query_x, query_y in zip(*columns, strict=True)
    ]


def joined(blocks: list[Block]) -> Block:
    """Blocks of different tasks as one."""
    accuracy, right, seen = zip(*blocks, strict=True)
    return Block(
        torch.cat(accuracy), torch.stack(right).sum(0), torch.stack(seen).sum(0)
    )


def fewer_shots(drawn: Task, shots: int) -> Task:
    """The same tasks with the first support examples of each class only."""
    x, y = drawn.support
    rank = (y * y.cumsum(1)).sum(-1)  # (tasks, n) from 1
    kept = rank <= shots
    parts = (part[kept].unflatten(0, (len(part), -1)) for part in (x, y))
    return Task(Examples(*parts), drawn.query)


class Draws:
    """The tasks of a test in blocks: those that `meta_test` has with this seed."""

    def __init__(self, episodes: Episodes, seed: int):
        self.episodes, self.size = episodes, BLOCK
        self._generators = generators(torch.Generator().manual_seed(seed))
        self._blocks: list[Task] = []

    def block(self, number: int) -> Task:
        while len(self._blocks) <= number:
            task = self.episodes.sample(self.size, next(self._generators))
            self._blocks.append(task)
        return self._blocks[number]


@dataclass(frozen=True)
class Scores:
    """The blocks that a learner was tested on, by key."""

    blocks: dict[Key, Block]

    def __len__(self) -> int:
        return sum(len(block.accuracy) for block in self.blocks.values())

    def on(self, keys: Iterable[Key]) -> Scores:
        return Scores({key: self.blocks[key] for key in keys if key in self.blocks})

    def estimate(self) -> Estimate:
        """The mean accuracy with a 95 % interval over tasks and over items.

        The items' part has two more right and two more wrong ones, so that it is not
        zero where a few items are all right: Agresti and Coull 1998, "Approximate is
        better than 'exact' for interval estimation of binomial proportions".
        """
        blocks = list(self.blocks.values())
        extra = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
        return _estimate(
            torch.cat([block.accuracy for block in blocks]),
            torch.cat([_by_item(blocks), extra]),
        )

    def minus(self, other: Scores) -> Estimate | None:
        """How much more accurate it is than another on the tasks that both were tested
        on, or None where there are none.
        """
        keys = [key for key in self.blocks if key in other.blocks]
        if not keys:
            return None
        pairs = [(self.blocks[key], other.blocks[key]) for key in keys]
        tasks = torch.cat([a.accuracy - b.accuracy for a, b in pairs])
        ours, theirs = zip(*pairs, strict=True)
        return _estimate(tasks, _by_item(ours) - _by_item(theirs))


def _by_item(blocks: Iterable[Block]) -> Tensor:
    """The share of right predictions of every item that was predicted."""
    _, right, seen = joined(list(blocks))
    return (right / seen.clamp_min(1))[seen > 0].double()


def _estimate(tasks: Tensor, items: Tensor) -> Estimate:
    """The mean over tasks, with an interval for other tasks of other items."""
    variance = sum(
        float(values.var()) / len(values)
        for values in (tasks, items)
        if len(values) > 1
    )
    freedom = max(1, min(len(tasks), len(items)) - 1)
    return Estimate(float(tasks.mean()), student_t(freedom) * variance**0.5)


def is_tied(difference: Estimate | None) -> bool:
    """Whether a difference is not outside its interval."""
    if difference is None:
        return True
    return abs(difference.mean) <= (difference.interval or 0.0)
