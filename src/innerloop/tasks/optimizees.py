"""Tasks that are a training each: what a learned optimiser learns to optimise."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.readers.image import Preprocess
from innerloop.tasks.episodes import Episodes
from innerloop.tasks.omniglot import omniglot
from innerloop.tasks.splits import check_split

# which of scikit-learn's digits a split has
DIGITS = {"train": (0, 1000), "val": (1000, 1400), "test": (1400, 1797)}


class Quadratics(TaskDistribution):
    """f(w) = |W w - b|^2, every entry of W (size, size) and of b (size,) normal.
    Andrychowicz et al. 2016, arXiv:1606.04474, section 3.1.

    As a regression: the examples are the rows of W, times the root of `size`, so that
    the mean squared error of w is f(w). Support and query are the same: x (n, size,
    size), y (n, size, 1).
    """

    prefetch = True

    def __init__(self, size: int = 10):
        if size < 1:
            raise InnerloopError(
                f"a quadratic function needs at least one variable, got {size}"
            )
        self.size = size
        self.spec = TaskSpec("reals", (size,), 1)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        numbers = math.sqrt(self.size) * torch.randn(
            n, self.size, self.size + 1, generator=generator
        )
        examples = Examples(numbers[..., :-1], numbers[..., -1:])
        return Task(examples, examples)


class Digits(TaskDistribution):
    """Handwritten digits, 8x8, ten classes whose labels never change: `shots` support
    and `queries` query examples, drawn anew for every task.

    Support x (n, shots, 64) in 0..1, y (n, shots, 10).
    """

    prefetch = True

    def __init__(self, x: Tensor, y: Tensor, shots: int, queries: int):
        if min(shots, queries) < 1 or shots + queries > len(y):
            raise InnerloopError(
                f"shots and queries must be at least 1 and together at most {len(y)}, got {shots}, {queries}"
            )
        self.x, self.y, self.shots, self.queries = x, y, shots, queries
        self.spec = TaskSpec("classes", (64,), 10)

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
            "the digits come with scikit-learn: pip install 'innerloop[digits]'"
        ) from error
    x, y = load_digits(return_X_y=True)
    return torch.from_numpy(x).float() / 16, torch.nn.functional.one_hot(
        torch.from_numpy(y), 10
    ).float()


def quadratics(split: str = "train") -> Quadratics:
    """Quadratic functions of ten variables; every split draws from the same continuum,
    in which none comes twice.
    """
    check_split(split)
    return Quadratics()


def mlp_digits(split: str = "train", *, shots: int = 256, queries: int = 64) -> Digits:
    """Training on scikit-learn's digits: 1,000 images to train optimisers on, 400 to
    validate and 397 to test them.
    """
    check_split(split)
    first, last = DIGITS[split]
    x, y = _digits()
    return Digits(x[first:last], y[first:last], shots, queries)


def mlp_omniglot(
    split: str = "train",
    *,
    ways: int = 10,
    shots: int = 15,
    queries: int = 5,
    protocol: str = "lake",
) -> Episodes:
    """Training to tell ten Omniglot characters apart, at 14x14 pixels."""
    small = Preprocess(1, (14, 14), dark_background=True, normalize_strokes=True)
    return omniglot(
        split,
        protocol=protocol,
        ways=ways,
        shots=shots,
        queries=queries,
        preprocess=small,
    )
