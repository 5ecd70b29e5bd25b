"""Tasks of translation: a task is a language, given by pairs of a source and a target.

Words are numbers. 0 is none, and 1 a word that no example shows, which cannot be known.
Then come the words that mean the same in all tasks, if there are any, and then free
numbers, which stand for other words in every task: so the language of a task may have
any words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.evaluation.chunks import measured
from innerloop.evaluation.few_shot import evaluate
from innerloop.learners.memory.translator import UNKNOWN, ExactMatch
from innerloop.measurements import (
    Estimate,
    Measurement,
    Report,
    Row,
    Table,
    TestPlan,
)

# for words in pictures
PSEUDOWORDS = (
    *("dax", "lug", "wif", "zup", "fep", "blicket", "kiki", "tufa", "gazzer", "toma"),
    *("perp", "zif", "mip", "koba", "nuz", "lorp"),
)
Words = tuple[str, ...]
Pair = tuple[Words, Words]


@dataclass(frozen=True)
class Lexicon:
    """The numbers of words.

    Args:
        fixed: the words that mean the same in all tasks.
        free: how many other words a task may have.
        letters: whether a text is read letter by letter, not word by word.
    """

    fixed: Words = ()
    free: int = 32
    letters: bool = False

    @property
    def first_free(self) -> int:
        return UNKNOWN + 1 + len(self.fixed)

    @property
    def size(self) -> int:
        """The number of tokens."""
        return self.first_free + self.free

    def split(self, text: str) -> Words:
        """A text as words, or as letters in lower case with their marks apart."""
        if self.letters:
            return tuple(unicodedata.normalize("NFD", text.strip().lower()))
        return tuple(text.split())

    def join(self, words: Iterable[str]) -> str:
        """Words or letters as a text."""
        if self.letters:
            return unicodedata.normalize("NFC", "".join(words))
        return " ".join(words)

    def numbers(
        self, support: Sequence[Pair], query: Iterable[Words], order: Sequence[int]
    ) -> dict[str, int]:
        """The number of each word of the support pairs and of the sources `query`: of
        its own where it is fixed, else free ones in the order of `order`, a permutation
        of all of them, as long as there are any.
        """
        found = {word: UNKNOWN + 1 + i for i, word in enumerate(self.fixed)}
        rest = iter(order)
        for words in [*(words for pair in support for words in pair), *query]:
            for word in words:
                if word not in found and (number := next(rest, None)) is not None:
                    found[word] = self.first_free + number
        return found


def row(words: Words, numbers: dict[str, int], length: int) -> list[int]:
    """Words as a row of `length` numbers."""
    known = [numbers.get(word, UNKNOWN) for word in words]
    return known + [0] * (length - len(known))


class Translations(TaskDistribution):
    """Pairs of a source and a target. Support x (n, shots, source), y (n, shots,
    target): the numbers of their words.

    Args:
        lexicon: the numbers of words.
        source, target: words of the longest source, and of the longest target and its
            end.
        shots: pairs of the support set.
        queries: pairs of the query set.
    """

    prefetch = True

    def __init__(
        self, lexicon: Lexicon, source: int, target: int, shots: int, queries: int
    ):
        self.lexicon, self.source, self.target = lexicon, source, target
        self.shots, self.queries = shots, queries
        self.spec = TaskSpec("tokens", (source,), target, vocabulary=lexicon.size)

    def encoded(
        self, support: Sequence[Pair], query: Sequence[Pair], order: Sequence[int]
    ) -> tuple[list[list[int]], ...]:
        """Rows of numbers: support x and y, query x and y."""
        numbers = self.lexicon.numbers(support, [x for x, _ in query], order)
        return tuple(
            [
                row(pair[side], numbers, (self.source, self.target)[side])
                for pair in part
            ]
            for part in (support, query)
            for side in (0, 1)
        )

    def batch(
        self,
        episodes: Sequence[tuple[Sequence[Pair], Sequence[Pair]]],
        generator: torch.Generator,
    ) -> Task:
        """Episodes, each its support and query pairs, with free numbers in random
        order.
        """
        columns = zip(
            *(
                self.encoded(
                    *episode,
                    torch.randperm(self.lexicon.free, generator=generator).tolist(),
                )
                for episode in episodes
            ),
            strict=True,
        )
        x, y, query_x, query_y = (torch.tensor(rows).float() for rows in columns)
        return Task(Examples(x, y), Examples(query_x, query_y))

    def evaluate(self, learner: Learner, plan: TestPlan) -> Report:
        """Few-shot, and the errors of the learner and of simple rules on the same
        tasks.
        """
        report = evaluate(learner, self, plan)
        methods = {type(learner).__name__: _answers(learner), **RULES}

        @torch.no_grad()
        def of_batch(batch: Task) -> dict[str, Tensor]:
            found = {
                name: [_scores(method(task), task.query.y) for task in batch.unbind()]
                for name, method in methods.items()
            }
            return {name: torch.stack(rows) for name, rows in found.items()}

        parts = measured(learner, self, of_batch, n=plan.n, generator=plan.generator())
        rows = []
        for name in methods:
            exact, error = torch.cat([part[name] for part in parts]).unbind(1)
            values = (
                Measurement.of("exact", Estimate.of(exact), plan.n, "%"),
                Measurement.of("edit distance", Estimate.of(error), plan.n, "%"),
            )
            rows.append(Row({**plan.labels, "method": name}, values))
        title = "rows that are right, and edit distance to the target by its length"
        return replace(report, tables=(*report.tables, Table(title, tuple(rows))))

    def plot_task(self, learner: Learner, task: Task, figure: Any) -> None:
        """The pairs, and what the learner writes for the queries, each free number of a
        target as a dot of a color of its own.
        """
        words = {
            number: word for word, number in self.lexicon.numbers([], [], ()).items()
        }
        outputs = _answers(learner)(task)
        shown = zip(task.support.x, task.support.y, strict=True)
        lines = [(x, y, "black") for x, y in shown]
        for x, y, target in zip(task.query.x, outputs, task.query.y, strict=True):
            lines.append((x, y, "green" if torch.equal(y, target) else "red"))
        axes = figure.subplots()
        axes.axis("off")
        colors: dict[int, str] = {}
        for height, (x, y, color) in enumerate(lines):
            for number in words_of(x):
                words.setdefault(number, PSEUDOWORDS[len(words) % len(PSEUDOWORDS)])
            place = {"ha": "right", "va": "center", "fontsize": 6, "color": color}
            source = self.lexicon.join(words[number] for number in words_of(x))
            axes.text(-0.5, -height, source, **place)
            for i, number in enumerate(words_of(y)):
                if number < self.lexicon.first_free:
                    axes.text(
                        i, -height, words.get(number, "?"), **place | {"ha": "left"}
                    )
                else:
                    dot = colors.setdefault(number, f"C{len(colors) % 10}")
                    axes.plot(i, -height, "o", color=dot, ms=4)
        axes.set(xlim=(-self.target, self.target), ylim=(-len(lines), 1))


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """The fewest insertions, deletions and replacements that turn a into b. Levenshtein
    1966.
    """
    above = list(range(len(b) + 1))
    for i, item in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            change = above[j - 1] + (item != other)
            row.append(min(change, above[j] + 1, row[-1] + 1))
        above = row
    return above[-1]


def words_of(row: Tensor) -> list[int]:
    """The numbers of a row before its end."""
    return [number for number in row.long().tolist() if number]


def _answers(learner: Learner) -> Any:
    return lambda task: learner.predict(learner.adapt(task.support), task.query.x)


def _copied(task: Task) -> Tensor:
    """The source itself."""
    x, size = task.query.x, task.query.y.shape[-1]
    return torch.nn.functional.pad(x, (0, max(0, size - x.shape[-1])))[:, :size]


def _nearest(task: Task) -> Tensor:
    """The target of the pair whose source has the smallest edit distance."""
    known = [words_of(x) for x in task.support.x]
    nearest = [
        min(range(len(known)), key=lambda i: edit_distance(known[i], words))
        for words in map(words_of, task.query.x)
    ]
    return task.support.y[nearest]


RULES = {"nearest pair": _nearest, "copy of the source": _copied}


def _scores(outputs: Tensor, y: Tensor) -> Tensor:
    """The share of rows that are right, and the mean edit distance."""
    exact = ExactMatch().right(outputs, y).float().mean()
    errors = [
        edit_distance(words_of(row), target) / max(1, len(target))
        for row, target in zip(outputs, map(words_of, y), strict=True)
    ]
    return torch.stack([exact.cpu(), torch.tensor(errors).mean()])


def check_sizes(shots: int, queries: int) -> None:
    if min(shots, queries) < 1:
        raise InnerloopError(
            f"shots and queries must be at least 1; got {shots} and {queries}"
        )
