"""Few-shot instructions: made-up words for colors, and for functions of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import torch

from innerloop.core.task import Task
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.tasks.splits import task_source
from innerloop.tasks.translation import Lexicon, Pair, Translations, Words, check_sizes

LONGEST = 8  # words of an instruction, and symbols of its output
CAPS = (5, 6, LONGEST)  # the same in a batch of training tasks, which makes it faster
FREE = 32
GRAMMARS = 300  # that are tried for a task
EASIER = 0.5  # share of the training tasks with fewer colors or functions


@dataclass(frozen=True)
class Function:
    """A word that stands behind its first argument and before its second, if it has
    one. An argument that is `short` is a single word, otherwise any instruction.

    Args:
        word: the word.
        short: whether each argument, one or two, is a single word.
        output: the arguments, by number, whose outputs follow each other.
    """

    word: str
    short: tuple[bool, ...]
    output: tuple[int, ...]

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.short, self.output


@dataclass(frozen=True)
class Grammar:
    """An interpretation grammar: colors, functions in the order of their precedence,
    and a last rule, that the output of a word comes before that of the words behind it.
    """

    colors: dict[str, str]
    functions: tuple[Function, ...]

    def output(self, words: Words) -> Words | None:
        """The output of an instruction; None where it has none or is too long."""
        if len(words) == 1:
            color = self.colors.get(words[0])
            return None if color is None else (color,)
        for function in self.functions:
            if (parts := _arguments(function, words)) is not None:
                return self._joined([parts[i] for i in function.output])
        if words and words[0] in self.colors:
            return self._joined([words[:1], words[1:]])
        return None

    def _joined(self, parts: Sequence[Words]) -> Words | None:
        found: Words = ()
        for part in parts:
            output = self.output(part)
            if output is None or len(found) + len(output) > LONGEST:
                return None
            found += output
        return found


def _arguments(function: Function, words: Words) -> list[Words] | None:
    """The arguments of a function where the whole instruction is a call of it; its last
    occurrence counts.
    """
    last = len(words) - 1
    for place in range(last, 0, -1):
        if words[place] != function.word:
            continue
        parts = [words[:place], words[place + 1 :]][: len(function.short)]
        if len(function.short) == 1 and place < last:
            continue
        sizes = [len(part) for part in parts]
        if all(
            n == 1 or (n and not s) for n, s in zip(sizes, function.short, strict=True)
        ):
            return parts
    return None


def random_grammar(random: Random, colors: int, functions: int) -> Grammar:
    """A grammar whose words are numbered: "0", "1", ... and colors "A", "B", ..."""
    names = [str(i) for i in range(colors + functions)]
    outputs = {name: chr(65 + i) for i, name in enumerate(names[:colors])}
    made: list[Function] = []
    for name in names[colors:]:
        count = random.choice((1, 2, 2))
        short = tuple(random.random() < 0.5 for _ in range(count))
        while True:
            size = random.randint(2, 5 if all(short) else 3)
            output = tuple(random.randrange(count) for _ in range(size))
            if len(set(output)) == count:
                break
        made.append(Function(name, short, output))
    made.sort(key=lambda function: not all(function.short))
    return Grammar(outputs, tuple(made))


def key(grammar: Grammar) -> str:
    """What makes a grammar another one than a grammar with other words: its functions,
    in any order.
    """
    return repr(sorted(function.shape for function in grammar.functions))


# the grammar that people learned, with 1, 2, 3 and 4 for the words dax, lug, wif, zup
PEOPLE = Grammar(
    {"1": "A", "2": "B", "3": "C", "4": "D"},
    (
        Function("thrice", (True,), (0, 0, 0)),
        Function("surround", (True, True), (0, 1, 0)),
        Function("after", (False, False), (1, 0)),
    ),
)
SHOWN = """1; 2; 3; 4; 2 after 3; 1 after 2; 2 thrice; 2 surround 3; 1 thrice;
3 surround 1; 2 thrice after 3; 3 after 1 surround 2; 2 after 3 thrice;
3 surround 1 after 2"""
ASKED = """3 after 4; 4 after 1; 4 thrice; 1 surround 4; 4 surround 2;
2 after 3 surround 4; 4 thrice after 2; 3 after 4 thrice;
4 surround 4 after 4 thrice; 4 surround 3 after 1 thrice"""


def people() -> tuple[list[Pair], list[Pair]]:
    """The pairs that people saw, and those they were asked."""

    def pairs(text: str) -> list[Pair]:
        found = []
        for instruction in text.split(";"):
            words = tuple(instruction.split())
            output = PEOPLE.output(words)
            assert output is not None
            found.append((words, output))
        return found

    return pairs(SHOWN), pairs(ASKED)


def split_of_grammar(grammar: Grammar) -> str:
    """The split that a grammar belongs to, by a hash of `key`: 90 % of all are for
    training, and 10 % for validation; that of `PEOPLE` is for testing alone.
    """
    text = key(grammar)
    if text == key(PEOPLE):
        return "test"
    digest = hashlib.sha256(text.encode()).digest()
    return "val" if digest[0] < 26 else "train"


def random_instruction(random: Random, grammar: Grammar, room: int = LONGEST) -> Words:
    """An instruction; it may be longer than `room` words."""
    color = (random.choice([*grammar.colors]),)
    drawn = random.random()
    if room < 2 or drawn < 0.2:
        return color
    if drawn < 0.35 or not grammar.functions:
        return color + random_instruction(random, grammar, room - 1)
    function = random.choice(grammar.functions)
    parts = [
        (random.choice([*grammar.colors]),)
        if short
        else random_instruction(random, grammar, (room - 1) // len(function.short))
        for short in function.short
    ]
    return (*parts[0], function.word, *(word for part in parts[1:] for word in part))


def simple_call(random: Random, grammar: Grammar, function: Function) -> Words:
    """A call of a function with different colors as arguments."""
    first, *rest = random.sample([*grammar.colors], len(function.short))
    return (first, function.word, *rest)


def episode(
    random: Random, grammar: Grammar, shots: int, queries: int, longest: int = LONGEST
) -> tuple[list[Pair], list[Pair]] | None:
    """Different instructions and their outputs, both of at most `longest` words:
    `shots` that show every color alone, a simple call of every function, and others;
    and `queries` others. None where the grammar has too few of them.
    """
    wanted = [(color,) for color in grammar.colors]
    wanted += [simple_call(random, grammar, function) for function in grammar.functions]
    found: dict[Words, Words] = {}
    for attempt in range(20 * (shots + queries)):
        words = (
            wanted[attempt]
            if attempt < len(wanted)
            else random_instruction(random, grammar)
        )
        if len(words) <= longest and words not in found:
            output = grammar.output(words)
            if output is not None and len(output) <= longest:
                found[words] = output
        if len(found) == shots + queries:
            pairs = list(found.items())
            shown = pairs[:shots]
            random.shuffle(shown)
            return shown, pairs[shots:]
    return None


class Instructions(Translations):
    """Instructions of random grammars, or of the one that people learned."""

    def __init__(
        self, split: str, shots: int, queries: int, grammar: str, symbols: int
    ):
        check_sizes(shots, queries)
        super().__init__(Lexicon(free=symbols), LONGEST, LONGEST + 1, shots, queries)
        self.split, self.grammar = split, grammar

    def describe(self) -> str:
        if self.grammar == "people":
            return "the few-shot instructions that people were asked"
        return f"instructions of random grammars from {self.shots} examples"

    def random_episode(
        self, random: Random, shots: int, longest: int
    ) -> tuple[list[Pair], list[Pair]]:
        """The pairs of a grammar that belongs to the split."""
        for _ in range(GRAMMARS):
            easier = self.split == "train" and random.random() < EASIER
            colors = random.randint(2, 4) if easier else 4
            functions = random.randint(0, 3) if easier else 3
            grammar = random_grammar(random, colors, functions)
            wanted = "train" if self.split == "train" else "val"
            if split_of_grammar(grammar) == wanted:
                pairs = episode(random, grammar, shots, self.queries, longest)
                if pairs is not None:
                    return pairs
        raise InnerloopError(
            f"no grammar has {shots} + {self.queries} different instructions of at "
            f"most {longest} words: choose fewer shots or queries"
        )

    def sample(self, n: int, generator: torch.Generator) -> Task:
        random = Random(int(torch.randint(2**62, (), generator=generator)))
        if self.grammar == "people":
            return self.batch([people()] * n, generator)
        shots, longest = self.shots, LONGEST
        if self.split == "train":
            shots = random.randint(max(1, shots - 4), shots)
            longest = random.choice(CAPS)
        episodes = [self.random_episode(random, shots, longest) for _ in range(n)]
        return self.batch(episodes, generator)

    def test_settings(self, fixed_ways: int | None) -> list[dict[str, Any]]:
        return [{"grammar": "people"}, {"grammar": "random"}]


@task_source
def instructions(
    split: str = "train",
    *,
    shots: Count = 14,
    queries: Count = 10,
    grammar: Literal["random", "people"] = "random",
    symbols: Count = FREE,
) -> Instructions:
    """Few-shot instructions: made-up words for colors and functions of them.

    Reference: Lake, Linzen and Baroni 2019, "Human few-shot learning of compositional
    instructions", arXiv:1901.04587, experiment 1, and Lake and Baroni 2023, "Human-like
    systematic generalization through a meta-learning neural network", Nature 623.

    From a few pairs, the colors of other instructions are inferred.

    A training task has 2 to 4 colors and at most 3 functions, half of them 4 and 3, as
    in tests; a training batch has up to 4 pairs fewer than `shots`, and a random limit
    of the length. No grammar is in two splits.

    Args:
        shots: pairs of a task.
        queries: held-out instructions of a task.
        grammar: random ones, or the one that people learned, in tests alone.
        symbols: how many different words a task may have.
    """
    return Instructions(
        split, shots, queries, grammar if split == "test" else "random", symbols
    )
