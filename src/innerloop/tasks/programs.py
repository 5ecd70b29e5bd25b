"""Tasks that a program solves.

The program of a task is packed into the columns of `y` behind the output of a row:
`Examples` has no other place for what only a loss may read. `adapt` and `predict` must
read the output columns alone; a likelihood scores these alone (see
`innerloop.programs.likelihood`).
"""

from __future__ import annotations

import hashlib
from random import Random

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.evaluation.few_shot import evaluate
from innerloop.evaluation.program_search import ProgramSearch
from innerloop.measurements import Report, TestPlan
from innerloop.programs import lists, strings
from innerloop.programs.lists import ListTask, list_task
from innerloop.programs.string_tasks import StringTask, string_task
from innerloop.tasks.splits import check_split

# characters of a text; expressions that are no constants, and symbols, of a program
LONGEST, EXPRESSIONS, SYMBOLS = 32, 4, 32
LINES = 4  # of a program on lists, at most
PADDING = -1  # after the end of a program, or where it is not shown
SHARES = {"train": (0.0, 0.8), "val": (0.8, 0.9), "test": (0.9, 1.0)}  # of all programs
CAPS = (12, 16, 16, 20, 20, LONGEST)  # of the texts of a training batch


def split_of_program(shown: str) -> str:
    """The split that a program, as text, belongs to: 80, 10 and 10 % of all programs,
    by a hash of the text.
    """
    place = int(hashlib.sha256(shown.encode()).hexdigest()[:8], 16) / 16**8
    return next(split for split, (low, high) in SHARES.items() if low <= place < high)


class Programs(TaskDistribution):
    """Tasks of random programs; no program is in two splits."""

    prefetch = True

    def __init__(self, split: str, shots: int, queries: int):
        check_split(split)
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1; got {shots} and {queries}"
            )
        self.split, self.shots, self.queries = split, shots, queries

    def evaluate(self, learner: Learner, plan: TestPlan) -> Report:
        search = ProgramSearch()
        if search.supports(learner, self) is not None:
            return evaluate(learner, self, plan)
        return search(learner, self, plan)

    def task_scores(self, learner: Learner, plan: TestPlan) -> None:
        if ProgramSearch.supports(learner, self) is None:
            raise InnerloopError(
                "a search for programs is measured by the clock and has no score to "
                "compare task by task: see the tables of innerloop test"
            )

    def _task(self, x: Tensor, y: Tensor, shots: int) -> Task:
        """Rows x (n, rows, ...) and y, the first `shots` of them as support set."""
        return Task(
            Examples(x[:, :shots], y[:, :shots]), Examples(x[:, shots:], y[:, shots:])
        )


class StringPrograms(Programs):
    """Texts and the output of a program for each of them.

    x (n, m, 32): the characters of an input by number (`programs.strings.numbered`). y
    (n, m, 32 + 32): those of the output, then what only a loss may read. In the query
    set this is the symbols of the program by number; in the support set, for each
    symbol, how many characters of the output precede its expression; -1 after the end.
    """

    def __init__(self, split: str, shots: int, queries: int):
        super().__init__(split, shots, queries)
        self.vary = split == "train"  # sizes, from batch to batch
        self.spec = TaskSpec(
            "programs", (LONGEST,), LONGEST + SYMBOLS, vocabulary=strings.VOCABULARY
        )

    def describe(self) -> str:
        return f"string programs from {self.shots} examples"

    def random_tasks(
        self, n: int, rows: int, random: Random, longest: int = LONGEST
    ) -> list[StringTask]:
        """n tasks of so many rows of at most `longest` characters, whose programs
        belong to the split.
        """
        found: list[StringTask] = []
        while len(found) < n:
            task = string_task(random, rows, longest, EXPRESSIONS, SYMBOLS)
            if split_of_program(strings.show(task.program)) == self.split:
                found.append(task)
        return found

    def sample(self, n: int, generator: torch.Generator) -> Task:
        shots, queries = self.shots, self.queries
        if self.vary:
            few = min(2, self.shots)
            shots = int(torch.randint(few, self.shots + 1, (), generator=generator))
            queries = min(2, self.queries)
        random = Random(int(torch.randint(2**62, (), generator=generator)))
        longest = random.choice(CAPS) if self.vary else LONGEST
        x: list[list[list[int]]] = []
        y: list[list[list[int]]] = []
        for task in self.random_tasks(n, shots + queries, random, longest):
            symbols = strings.GRAMMAR.encode(task.program)
            sizes = [len(strings.GRAMMAR.encode((e,))) for e in task.program]
            padding = [PADDING] * (SYMBOLS - len(symbols))
            x.append([strings.numbered(text, LONGEST) for text in task.inputs])
            rows: list[list[int]] = []
            for i, output in enumerate(task.outputs):
                only_for_loss = symbols
                if i < shots:
                    only_for_loss = [
                        begin
                        for begin, size in zip(task.begins[i], sizes, strict=True)
                        for _ in range(size)
                    ]
                output_numbers = strings.numbered(output, LONGEST)
                rows.append([*output_numbers, *only_for_loss, *padding])
            y.append(rows)
        return self._task(torch.tensor(x).float(), torch.tensor(y).float(), shots)


def string_programs(
    split: str = "train", *, shots: Count = 4, queries: Count = 6
) -> StringPrograms:
    """String programs: strings, and the output of a hidden program for each.

    Words, names, numbers and codes are random. Training batches have from 2 to `shots`
    examples, 2 queries, and a random maximum length of the texts. No program is in two
    splits.

    Reference: Devlin, Uesato, Bhupatiraju, Singh, Mohamed and Kohli 2017, "RobustFill:
    neural program learning under noisy I/O", arXiv:1703.07469, section 3.

    Args:
        shots: examples of a task.
        queries: held-out rows of a task.
    """
    return StringPrograms(split, shots, queries)


class ListPrograms(Programs):
    """Integers and lists, and the output of a program of 2 to 4 lines for them.

    x (n, m, 24): two inputs, as `programs.lists.numbered` encodes them; of kind 0 where
    there is only one. y (n, m, 12 + 12): the output in the same way, then what only a
    loss may read: in the query set the lines of the program, as `programs.lists.encode`
    gives them; -1 after the end and in the support set.
    """

    def __init__(self, split: str, shots: int, queries: int):
        super().__init__(split, shots, queries)
        self.spec = TaskSpec(
            "programs", (len(lists.INPUTS) * lists.SLOT,), lists.SLOT + 3 * LINES
        )

    def describe(self) -> str:
        return f"list programs from {self.shots} examples"

    def random_tasks(self, n: int, random: Random) -> list[ListTask]:
        """n tasks whose programs belong to the split."""
        found: list[ListTask] = []
        while len(found) < n:
            task = list_task(random, self.shots + self.queries, 2, LINES)
            kinds = " and ".join(task.program.inputs)
            shown = f"{lists.show(task.program)} of {kinds}"
            if split_of_program(shown) == self.split:
                found.append(task)
        return found

    def sample(self, n: int, generator: torch.Generator) -> Task:
        x: list[list[list[int]]] = []
        y: list[list[list[int]]] = []
        random = Random(int(torch.randint(2**62, (), generator=generator)))
        hidden = [PADDING] * (3 * LINES)
        for task in self.random_tasks(n, random):
            lines = lists.encode(task.program)
            lines += hidden[len(lines) :]
            rows: list[list[int]] = []
            for row in task.inputs:
                values = (*row, None)[: len(lists.INPUTS)]
                rows.append([v for value in values for v in lists.numbered(value)])
            x.append(rows)
            y.append(
                [
                    [*lists.numbered(output), *(hidden if i < self.shots else lines)]
                    for i, output in enumerate(task.outputs)
                ]
            )
        return self._task(torch.tensor(x).float(), torch.tensor(y).float(), self.shots)


def list_programs(
    split: str = "train", *, shots: Count = 5, queries: Count = 6
) -> ListPrograms:
    """List programs: integers and lists, and the output of a hidden program.

    Programs have 2 to 4 lines. No program is in two splits.

    Reference: Balog, Gaunt, Brockschmidt, Nowozin and Tarlow 2017, "DeepCoder: learning
    to write programs", arXiv:1611.01989, section 4.1.

    Args:
        shots: examples of a task.
        queries: held-out rows of a task.
    """
    return ListPrograms(split, shots, queries)
