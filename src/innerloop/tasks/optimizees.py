"""Optimizees: tasks on which a learned optimizer is trained and tested."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import Annotated

import torch
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.engine.options import Count, Range
from innerloop.tasks.episodes import Episodes
from innerloop.tasks.omniglot import Protocol, omniglot
from innerloop.tasks.splits import task_source

# the first and last of scikit-learn's digits in a split
DIGITS = {"train": (0, 1000), "val": (1000, 1400), "test": (1400, 1797)}


class Quadratics(TaskDistribution):
    """f(w) = |W w - b|^2, every entry of W (size, size) and of b (size,) normal.

    As a regression: the examples are the rows of W, times the root of `size`, so that
    the mean squared error of w is f(w). Support and query are the same: x (n, size,
    size), y (n, size, 1).

    Args:
        size: number of variables.
    """

    prefetch = True

    def __init__(self, size: int = 10):
        if size < 1:
            raise InnerloopError(f"size of Quadratics must be at least 1; got {size}")
        self.size = size
        self.spec = TaskSpec("reals", (size,), 1)

    def describe(self) -> str:
        return f"quadratic functions of {self.size} variables"

    def sample(self, n: int, generator: torch.Generator) -> Task:
        numbers = math.sqrt(self.size) * torch.randn(
            n, self.size, self.size + 1, generator=generator
        )
        examples = Examples(numbers[..., :-1], numbers[..., -1:])
        return Task(examples, examples)


class Digits(TaskDistribution):
    """Handwritten digits, 8x8, ten classes with fixed labels; every task has its own
    examples. Support x (n, shots, 64) in 0..1, y (n, shots, 10).

    Args:
        x, y: the examples to draw from.
        shots, queries: support and query examples, of all classes together.
    """

    prefetch = True

    def __init__(self, x: Tensor, y: Tensor, shots: int, queries: int):
        if min(shots, queries) < 1 or shots + queries > len(y):
            raise InnerloopError(
                f"shots and queries must be at least 1 and together at most {len(y)}; "
                f"got {shots} and {queries}"
            )
        self.x, self.y, self.shots, self.queries = x, y, shots, queries
        self.spec = TaskSpec("classes", (64,), 10)

    def describe(self) -> str:
        points = f"{self.shots} support and {self.queries} query examples"
        return f"{len(self.y)} handwritten digits with fixed labels, {points}"

    def item_keys(self) -> frozenset[str]:
        return frozenset(
            hashlib.sha256(row.tobytes()).hexdigest() for row in self.x.numpy()
        )

    def sample(self, n: int, generator: torch.Generator) -> Task:
        drawn = (
            torch.rand(n, len(self.y), generator=generator)
            .topk(self.shots + self.queries)
            .indices
        )
        x, y = self.x[drawn], self.y[drawn]
        return Task(
            Examples(x[:, : self.shots], y[:, : self.shots]),
            Examples(x[:, self.shots :], y[:, self.shots :]),
        )


@lru_cache(maxsize=1)
def _digits() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingPackageError(
            "mlp-digits needs scikit-learn: pip install 'innerloop[digits]'"
        ) from error
    x, y = load_digits(return_X_y=True)
    return torch.from_numpy(x).float() / 16, torch.nn.functional.one_hot(
        torch.from_numpy(y), 10
    ).float()


@task_source
def quadratics(split: str = "train", *, size: Count = 10) -> Quadratics:
    """Quadratics: optimize random quadratic functions.

    Reference: Andrychowicz, Denil, Gomez, Hoffman, Pfau, Schaul, Shillingford and de
    Freitas 2016, "Learning to learn by gradient descent by gradient descent",
    arXiv:1606.04474, section 3.1.

    Every split draws from the same distribution; no function is drawn twice.

    Args:
        size: number of variables.
    """
    return Quadratics(size)


@task_source
def mlp_digits(
    split: str = "train", *, shots: Count = 256, queries: Count = 64
) -> Digits:
    """Digits: optimize a network on scikit-learn's handwritten digits.

    1,000 images are for training optimizers, 400 for validation and 397 for testing.

    Args:
        shots: support examples of a task, over all classes.
        queries: query examples of a task, over all classes.
    """
    first, last = DIGITS[split]
    x, y = _digits()
    return Digits(x[first:last], y[first:last], shots, queries)


@task_source
def mlp_omniglot(
    split: str = "train",
    *,
    ways: Annotated[int, Range(2)] = 10,
    shots: Count = 15,
    queries: Count = 5,
    protocol: Protocol = "lake",
) -> Episodes:
    """Omniglot at 14x14: optimize a network on ten Omniglot characters.

    Args:
        ways: classes in a task.
        shots: support examples of each class.
        queries: query examples of each class.
        protocol: splits of the characters, see `omniglot`.
    """
    return omniglot(
        split, protocol=protocol, ways=ways, shots=shots, queries=queries, size=14
    )
