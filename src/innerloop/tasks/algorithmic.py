"""Sequences to remember: the tasks of the neural Turing machine's paper."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.tasks.splits import check_split


class Sequences(TaskDistribution):
    """A sequence of random bits is shown, then an answer is asked for, step by step.
    Graves et al. 2014, arXiv:1410.5401, section 4.

    Support x (n, shown, bits + 2): the bits and two signs, y all zeros, since there is
    nothing to tell. Query x (n, asked, bits + 2): zeros; y: the bits to be answered, in
    order. length: the length of what is shown. `exact`: all have it, else each batch
    has one that is drawn from 1 up to it.
    """

    prefetch = True
    least: ClassVar[int] = 1
    out: ClassVar[int] = 0  # bits of an answer beside those of the sequence

    def __init__(self, length: int, bits: int, exact: bool):
        if length < self.least or bits < 1:
            raise InnerloopError(
                f"a sequence needs a length of at least {self.least} and 1 bit, got {length} and {bits}"
            )
        self.length, self.bits, self.exact = length, bits, exact
        self.spec = TaskSpec("bits", (bits + 2,), bits + self.out, ordered=True)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        length = (
            self.length
            if self.exact
            else int(
                torch.randint(self.least, self.length + 1, (), generator=generator)
            )
        )
        shown, answer = self.pair(n, length, generator)
        asked = shown.new_zeros(n, answer.shape[1], self.spec.x_size)
        return Task(
            Examples(shown, shown.new_zeros(n, shown.shape[1], self.spec.y_dim)),
            Examples(asked, answer),
        )

    @abstractmethod
    def pair(
        self, n: int, length: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What is shown (n, steps, bits + 2), and the answer (n, steps, y_dim)."""

    def random_bits(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(0, 2, shape, generator=generator).float()

    def signed(
        self, bits: Tensor, first: Tensor | float, second: Tensor | float
    ) -> Tensor:
        """Bits (n, steps, bits) with a step after them that holds the two signs
        alone.
        """
        n, steps, _ = bits.shape
        shown = bits.new_zeros(n, steps + 1, self.bits + 2)
        shown[:, :steps, : self.bits] = bits
        shown[:, steps, self.bits], shown[:, steps, self.bits + 1] = first, second
        return shown


class Copy(Sequences):
    """The sequence again (section 4.1)."""

    def pair(
        self, n: int, length: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        bits = self.random_bits((n, length, self.bits), generator)
        return self.signed(bits, 1.0, 0.0), bits


class RepeatCopy(Sequences):
    """The sequence again, several times, then a sign that it is over (section 4.2); how
    often is told by the second sign, around zero.
    """

    out = 1

    def __init__(self, length: int, bits: int, exact: bool, repeats: int):
        if repeats < 1:
            raise InnerloopError(
                f"a sequence is repeated at least once, not {repeats} times"
            )
        self.repeats = repeats
        super().__init__(length, bits, exact)

    def pair(
        self, n: int, length: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        times = (
            self.repeats
            if self.exact
            else int(torch.randint(1, self.repeats + 1, (), generator=generator))
        )
        bits = self.random_bits((n, length, self.bits), generator)
        answer = bits.new_zeros(n, length * times + 1, self.bits + 1)
        answer[:, :-1, : self.bits] = bits.repeat(1, times, 1)
        answer[:, -1, self.bits] = 1
        # mean 0 and variance 1 where times are 1 to 10
        return self.signed(bits, 1.0, (times - 5.5) / 2.872), answer


class AssociativeRecall(Sequences):
    """Items of three vectors each, then one of them again: the answer is the item that
    came after it (section 4.3). length: how many items.
    """

    least = 2
    WIDTH: ClassVar[int] = 3  # vectors of an item

    def pair(
        self, n: int, length: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        items = self.random_bits((n, length, self.WIDTH, self.bits), generator)
        asked = torch.randint(length - 1, (n,), generator=generator)
        rows = torch.arange(n)
        # every item behind its sign, and so the one asked for
        shown = items.new_zeros(n, length + 1, self.WIDTH + 1, self.bits + 2)
        shown[:, :length, 1:, : self.bits] = items
        shown[:, length, 1:, : self.bits] = items[rows, asked]
        shown[:, :length, 0, self.bits] = 1
        shown[:, length, 0, self.bits + 1] = 1
        end = torch.zeros(n, 1, self.bits + 2)
        end[..., self.bits + 1] = 1
        return torch.cat([shown.flatten(1, 2), end], 1), items[rows, asked + 1]


def copy(split: str = "train", *, length: int = 20, bits: int = 8) -> Copy:
    """Sequences to be repeated: up to `length` in training, exactly so long in
    validation and testing.
    """
    return Copy(length, bits, _exact(split))


def repeat_copy(
    split: str = "train", *, length: int = 10, bits: int = 8, repeats: int = 10
) -> RepeatCopy:
    """Sequences to be repeated several times: up to `length` and `repeats` in training,
    exactly these in validation and testing.
    """
    return RepeatCopy(length, bits, _exact(split), repeats)


def associative_recall(
    split: str = "train", *, length: int = 6, bits: int = 6
) -> AssociativeRecall:
    """Items of which one is asked for: up to `length` in training, exactly so many in
    validation and testing.
    """
    return AssociativeRecall(length, bits, _exact(split))


def _exact(split: str) -> bool:
    check_split(split)
    return split != "train"
