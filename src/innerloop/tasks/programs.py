"""Tasks that a program solves."""

from __future__ import annotations

import hashlib
from random import Random

import torch

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.programs import lists, strings
from innerloop.programs.lists import ListTask, list_task
from innerloop.programs.string_tasks import StringTask, string_task
from innerloop.tasks.splits import check_split

# characters of a text; expressions that are no constants, and symbols, of a program
LONGEST, EXPRESSIONS, SYMBOLS = 32, 4, 32
NONE = -1.0
SHARES = {"train": (0.0, 0.8), "val": (0.8, 0.9), "test": (0.9, 1.0)}  # of all programs
CAPS = (12, 16, 16, 20, 20, LONGEST)  # of the texts of a training batch


def part_of_program(shown: str) -> str:
    """The split that a program, as it is shown, belongs to."""
    place = int(hashlib.sha256(shown.encode()).hexdigest()[:8], 16) / 16**8
    return next(split for split, (low, high) in SHARES.items() if low <= place < high)


class StringPrograms(TaskDistribution):
    """Texts and what a program makes of them, as in spreadsheets; no program is in two
    parts. As in Devlin et al. 2017, arXiv:1703.07469, section 3.

    x (n, m, 32): the characters of an input by number. y (n, m, 32 + 32): those of the
    output; then, in the query set, the symbols of the program by number, and in the
    support set how many characters are written before each symbol's expression begins;
    -1 after the end, or where no program is known. Only a loss may read these: a
    learner adapts to the first 32.
    shots, queries: exactly so many with `exact`, else each batch has a number of shots
    of its own, from 2 up to it, 2 queries, and a greatest length of its texts.
    """

    prefetch = True

    def __init__(self, split: str, shots: int, queries: int, exact: bool):
        check_split(split)
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1, got {shots}, {queries}"
            )
        self.split, self.shots, self.queries, self.exact = split, shots, queries, exact
        self.spec = TaskSpec(
            "programs", (LONGEST,), LONGEST + SYMBOLS, vocabulary=strings.VOCABULARY
        )

    def draw(
        self, n: int, rows: int, random: Random, longest: int = LONGEST
    ) -> list[StringTask]:
        """n tasks of so many rows of at most so many characters, whose programs belong
        to the split.
        """
        found: list[StringTask] = []
        while len(found) < n:
            task = string_task(random, rows, longest, EXPRESSIONS, SYMBOLS)
            if part_of_program(strings.show(task.program)) == self.split:
                found.append(task)
        return found

    def sample(self, n: int, generator: torch.Generator) -> Task:
        few = min(2, self.shots)
        shots = (
            self.shots
            if self.exact
            else int(torch.randint(few, self.shots + 1, (), generator=generator))
        )
        queries = self.queries if self.exact else min(2, self.queries)
        random = Random(int(torch.randint(2**62, (), generator=generator)))
        longest = LONGEST if self.exact else random.choice(CAPS)
        x, y, told = [], [], []
        for task in self.draw(n, shots + queries, random, longest):
            numbers = strings.GRAMMAR.encode(task.program)
            sizes = [
                len(strings.GRAMMAR.encode((expression,)))
                for expression in task.program
            ]
            rest = [NONE] * (SYMBOLS - len(numbers))
            x.append([strings.numbered(text, LONGEST) for text in task.inputs])
            y.append([strings.numbered(text, LONGEST) for text in task.outputs])
            begins = [
                [b for b, size in zip(row, sizes, strict=True) for _ in range(size)]
                + rest
                for row in task.begins
            ]
            told.append([*begins[:shots], *[[*map(float, numbers), *rest]] * queries])
        inputs, outputs = (
            torch.tensor(x, dtype=torch.float32),
            torch.cat([torch.tensor(y), torch.tensor(told)], -1).float(),
        )
        return Task(
            Examples(inputs[:, :shots], outputs[:, :shots]),
            Examples(inputs[:, shots:], outputs[:, shots:]),
        )


def string_programs(
    split: str = "train", *, shots: int = 4, queries: int = 6
) -> StringPrograms:
    """Texts and what a program makes of them, as in spreadsheets: 2 to `shots` examples
    in training, else so many; no program is in two parts.
    """
    return StringPrograms(split, shots, queries, split != "train")


LINES = 4  # of a program on lists, at most


class ListPrograms(TaskDistribution):
    """Integers and lists, and what a program of 2 to 4 lines makes of them; no program
    is in two parts. As in Balog et al. 2017, arXiv:1611.01989.

    x (n, m, 24): two inputs, each as `programs.lists.numbered` numbers it, the second
    of kind 0 where there is but one. y (n, m, 12 + 12): the output in the same way;
    then, in the query set, the lines of the program as `programs.lists.encode` gives
    them, -1 after the end and in the support set. Only a loss may read these.
    """

    prefetch = True

    def __init__(self, split: str, shots: int, queries: int):
        check_split(split)
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1, got {shots}, {queries}"
            )
        self.split, self.shots, self.queries = split, shots, queries
        self.spec = TaskSpec(
            "programs", (len(lists.INPUTS) * lists.SLOT,), lists.SLOT + 3 * LINES
        )

    def draw(self, n: int, random: Random) -> list[ListTask]:
        """n tasks whose programs belong to the split."""
        found: list[ListTask] = []
        while len(found) < n:
            task = list_task(random, self.shots + self.queries, 2, LINES)
            if (
                part_of_program(
                    f"{lists.show(task.program)} of {' and '.join(task.program.inputs)}"
                )
                == self.split
            ):
                found.append(task)
        return found

    def sample(self, n: int, generator: torch.Generator) -> Task:
        x, y = [], []
        for task in self.draw(
            n, Random(int(torch.randint(2**62, (), generator=generator)))
        ):
            numbers = lists.encode(task.program)
            told = [*numbers, *[-1] * (3 * LINES - len(numbers))]
            x.append(
                [
                    [
                        v
                        for value in (*row, None)[: len(lists.INPUTS)]
                        for v in lists.numbered(value)
                    ]
                    for row in task.inputs
                ]
            )
            y.append(
                [
                    [
                        *lists.numbered(out),
                        *(told if i >= self.shots else [-1] * len(told)),
                    ]
                    for i, out in enumerate(task.outputs)
                ]
            )
        inputs, outputs = torch.tensor(x).float(), torch.tensor(y).float()
        return Task(
            Examples(inputs[:, : self.shots], outputs[:, : self.shots]),
            Examples(inputs[:, self.shots :], outputs[:, self.shots :]),
        )


def list_programs(
    split: str = "train", *, shots: int = 5, queries: int = 6
) -> ListPrograms:
    """Integers and lists, and what a program of 2 to 4 lines makes of them; no program
    is in two parts.
    """
    return ListPrograms(split, shots, queries)
