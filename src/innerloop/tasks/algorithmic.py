"""Algorithmic sequences: the tasks of the neural Turing machine's paper."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Range
from innerloop.evaluation.few_shot import evaluate
from innerloop.measurements import Measurement, Report, Row, Table, TestPlan
from innerloop.tasks.splits import task_source


class Sequences(TaskDistribution):
    """A sequence of random bits is the input, and an answer is predicted step by step.

    Support x (n, steps, bits + 2): the bits and two signs, y all zeros. Query x (n,
    answer steps, bits + 2): zeros; y: the bits of the answer, in order.

    Args:
        length: length of the input sequence.
        bits: bits of one vector.
        exact: whether every sequence has this length; otherwise each batch has a random
            one, up to it.

    Class variables:
        shortest: the smallest length.
        extra: bits of an answer beside those of the sequence.
    """

    prefetch = True
    shortest: ClassVar[int] = 1
    extra: ClassVar[int] = 0

    def __init__(self, length: int, bits: int, exact: bool):
        if length < self.shortest or bits < 1:
            raise InnerloopError(
                f"length must be at least {self.shortest} and bits at least 1; got "
                f"{length} and {bits}"
            )
        self.length, self.bits, self.exact = length, bits, exact
        self.spec = TaskSpec("bits", (bits + 2,), bits + self.extra, ordered=True)

    def describe(self) -> str:
        length = f"{'' if self.exact else 'up to '}{self.length}"
        return f"{type(self).__name__} sequences of length {length}, {self.bits} bits"

    def sample(self, n: int, generator: torch.Generator) -> Task:
        length = (
            self.length
            if self.exact
            else int(
                torch.randint(self.shortest, self.length + 1, (), generator=generator)
            )
        )
        inputs, answer = self.pair(n, length, generator)
        blank = inputs.new_zeros(n, answer.shape[1], self.spec.x_size)
        return Task(
            Examples(inputs, inputs.new_zeros(n, inputs.shape[1], self.spec.y_dim)),
            Examples(blank, answer),
        )

    def evaluate(self, learner: Learner, plan: TestPlan) -> Report:
        """Few-shot, and for sequences of one length the bits per sequence."""
        report = evaluate(learner, self, plan)
        if not self.exact:
            return report
        steps = self.sample(1, plan.generator()).query.x.shape[1]
        return replace(report, tables=(*report.tables, _per_sequence(report, steps)))

    @abstractmethod
    def pair(
        self, n: int, length: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The input (n, steps, bits + 2) and the answer (n, steps, y_dim)."""

    def random_bits(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(0, 2, shape, generator=generator).float()

    def signed(
        self, bits: Tensor, first: Tensor | float, second: Tensor | float
    ) -> Tensor:
        """Bits (n, steps, bits) with a step after them that holds the two signs
        alone.
        """
        n, steps, _ = bits.shape
        inputs = bits.new_zeros(n, steps + 1, self.bits + 2)
        inputs[:, :steps, : self.bits] = bits
        inputs[:, steps, self.bits], inputs[:, steps, self.bits + 1] = first, second
        return inputs


class Copy(Sequences):
    """The sequence again (section 4.1)."""

    def pair(
        self, n: int, length: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        bits = self.random_bits((n, length, self.bits), generator)
        return self.signed(bits, 1.0, 0.0), bits


class RepeatCopy(Sequences):
    """The sequence again, several times, then an end sign (section 4.2); the second
    sign of the input gives the number of times, normalized.
    """

    extra = 1

    def __init__(self, length: int, bits: int, exact: bool, repeats: int):
        if repeats < 1:
            raise InnerloopError(f"repeats must be at least 1; got {repeats}")
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
    followed it (section 4.3). `length` is the number of items.
    """

    shortest = 2
    WIDTH: ClassVar[int] = 3  # vectors of an item

    def pair(
        self, n: int, length: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        items = self.random_bits((n, length, self.WIDTH, self.bits), generator)
        chosen = torch.randint(length - 1, (n,), generator=generator)
        rows = torch.arange(n)
        # every item behind its sign, and the repeated one
        inputs = items.new_zeros(n, length + 1, self.WIDTH + 1, self.bits + 2)
        inputs[:, :length, 1:, : self.bits] = items
        inputs[:, length, 1:, : self.bits] = items[rows, chosen]
        inputs[:, :length, 0, self.bits] = 1
        inputs[:, length, 0, self.bits + 1] = 1
        end = torch.zeros(n, 1, self.bits + 2)
        end[..., self.bits + 1] = 1
        return torch.cat([inputs.flatten(1, 2), end], 1), items[rows, chosen + 1]


def _per_sequence(report: Report, steps: int) -> Table:
    """The loss of the first table in bits per sequence of `steps` answers."""
    scale = steps / math.log(2)
    rows = []
    for row in report.tables[0].rows:
        loss = next(value for value in row.values if value.name == "loss")
        interval = None if loss.interval is None else scale * loss.interval
        bits = Measurement("bits", scale * loss.mean, interval, loss.n)
        rows.append(Row({**row.labels, "answer steps": steps}, (bits,)))
    return Table("bits per sequence", tuple(rows))


@task_source
def copy(split: str = "train", *, length: Count = 20, bits: Count = 8) -> Copy:
    """Copy: repeat a sequence of random bits.

    Reference: Graves, Wayne and Danihelka 2014, "Neural Turing machines",
    arXiv:1410.5401, section 4.1.

    Training sequences have up to `length` vectors, validation and test sequences
    exactly `length`.

    Args:
        length: vectors of a sequence.
        bits: bits of a vector.
    """
    return Copy(length, bits, split != "train")


@task_source
def repeat_copy(
    split: str = "train", *, length: Count = 10, bits: Count = 8, repeats: Count = 10
) -> RepeatCopy:
    """Repeat copy: repeat a sequence of random bits several times.

    Reference: Graves, Wayne and Danihelka 2014, "Neural Turing machines",
    arXiv:1410.5401, section 4.2.

    Training has up to `length` vectors and up to `repeats` repetitions, validation and
    test exactly these.

    Args:
        length: vectors of a sequence.
        bits: bits of a vector.
        repeats: repetitions of the sequence.
    """
    return RepeatCopy(length, bits, split != "train", repeats)


@task_source
def associative_recall(
    split: str = "train", *, length: Annotated[int, Range(2)] = 6, bits: Count = 6
) -> AssociativeRecall:
    """Associative recall: recall the item that follows the queried one.

    Reference: Graves, Wayne and Danihelka 2014, "Neural Turing machines",
    arXiv:1410.5401, section 4.3.

    Training sequences have up to `length` items, validation and test sequences exactly
    `length`.

    Args:
        length: items of a sequence, of three vectors each.
        bits: bits of a vector.
    """
    return AssociativeRecall(length, bits, split != "train")
