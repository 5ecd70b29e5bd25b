"""What a task is, and where tasks come from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor


class Examples(NamedTuple):
    """Labelled examples. A pytree, so it crosses `vmap`; any number of leading task
    axes may precede the shapes below.
    """

    x: Tensor  # (n, *x_shape)
    # (n, y_dim)  one-hot rows for classes, reals for regression, zeros and ones for
    # bits
    y: Tensor


class Task(NamedTuple):
    """One task: learn from `support`, answer for `query`. A batch of tasks is the same
    type with one more leading axis.
    """

    support: Examples
    query: Examples

    def to(self, device: torch.device | str) -> Task:
        """The same task with every tensor on `device`."""
        return Task(
            *(
                Examples(*(t.to(device, non_blocking=True) for t in part))
                for part in self
            )
        )

    def split(self, numbers: int) -> list[Task]:
        """A batch of tasks as batches of as many tasks as have at most so many numbers
        in their inputs, or one.
        """
        size = max(1, numbers // sum(part.x[0].numel() for part in self))
        parts = zip(*(t.split(size) for part in self for t in part), strict=True)
        return [
            Task(Examples(x, y), Examples(query_x, query_y))
            for x, y, query_x, query_y in parts
        ]

    def unbind(self) -> list[Task]:
        """The single tasks of a batch of tasks."""
        return [
            Task(*(Examples(part.x[i], part.y[i]) for part in self))
            for i in range(len(self.query.x))
        ]


@dataclass(frozen=True)
class TaskSpec:
    """The shape of a task: all that a learner must know to be built for it.

    kind: "classes" (targets are one-hot rows), "reals" (real vectors), "bits"
    (independent zeros and ones) or "programs" (what a program makes of the input, and
    the program). x_shape: the shape of one input, `(channels, height, width)` for
    images, `(features,)` for vectors. y_dim: the number of ways for classes, of numbers
    for the others. ordered: support and query are one sequence, and every query is
    answered after those before it. vocabulary: how many tokens there are, where an
    input is a row of tokens by number, 0 for none; 0 where it is not.
    """

    kind: Literal["classes", "reals", "bits", "programs"]
    x_shape: tuple[int, ...]
    y_dim: int
    ordered: bool = False
    vocabulary: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("classes", "reals", "bits", "programs"):
            raise ValueError(
                f'TaskSpec.kind is "classes", "reals", "bits" or "programs", not {self.kind!r}'
            )
        object.__setattr__(self, "x_shape", tuple(int(size) for size in self.x_shape))
        if not self.x_shape or min(self.x_shape) < 1 or self.y_dim < 1:
            raise ValueError(
                f"TaskSpec needs positive sizes, got x_shape={self.x_shape}, y_dim={self.y_dim}"
            )

    @property
    def is_image(self) -> bool:
        return len(self.x_shape) == 3

    @property
    def x_size(self) -> int:
        """The number of values in one input."""
        return math.prod(self.x_shape)


class TaskDistribution(ABC):
    """Where tasks come from. `spec` says their shape, `sample` draws a batch of them.

    Every random choice is drawn from the generator that is passed in, so a seed fixes
    the tasks. With `ahead`, `sample` may run in a thread of its own while the batch
    before is learned: for distributions that do not change and depend on nothing else.
    """

    spec: TaskSpec
    ahead: ClassVar[bool] = False

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Task:
        """`n` tasks with one leading axis: support x (n, s, *x_shape), y (n, s, y_dim);
        query likewise.
        """
