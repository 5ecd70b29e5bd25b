"""SCAN: navigation commands and their actions, with permuted meanings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from innerloop.core.task import Examples, Task
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, CountOrZero
from innerloop.tasks.splits import task_source
from innerloop.tasks.translation import Lexicon, Pair, Translations, check_sizes, row

Holdout = Literal["add-jump", "around-right", "length"]
ACTIONS = {
    "walk": "I_WALK",
    "look": "I_LOOK",
    "run": "I_RUN",
    "jump": "I_JUMP",
}
TURNS = {"left": "I_TURN_LEFT", "right": "I_TURN_RIGHT"}
FUNCTIONS = ("turn", "opposite", "around", "twice", "thrice", "and", "after")
FIXED = (*FUNCTIONS, *ACTIONS, *ACTIONS.values(), *TURNS, *TURNS.values())
SOURCE, TARGET = 9, 49  # words of the longest command; its actions, and their end
LONG, QUERY_LENGTH = 24, 12  # actions of a test command, of a query in training: length
EXTRA: dict[Holdout, int] = {"add-jump": 0, "around-right": 2, "length": 20}
JUMP_SHARE = 0.1  # of the commands, where "jump" is trained alone
VALIDATION = 8  # one of so many assignments of meanings is for validation


def commands() -> Iterator[Pair]:
    """All 20,910 commands with their actions. Lake and Baroni 2018, figures 6 and 7."""
    phrases: list[Pair] = [((verb,), (action,)) for verb, action in ACTIONS.items()]
    for (verb, action), (side, turn) in itertools.product(
        [("turn", None), *ACTIONS.items()], TURNS.items()
    ):
        act = () if action is None else (action,)
        phrases += [
            ((verb, side), (turn, *act)),
            ((verb, "opposite", side), (turn, turn, *act)),
            ((verb, "around", side), (turn, *act) * 4),
        ]
    times = {(): 1, ("twice",): 2, ("thrice",): 3}
    repeated: list[Pair] = [
        (x + word, y * count) for x, y in phrases for word, count in times.items()
    ]
    yield from repeated
    for (x, y), (x2, y2) in itertools.product(repeated, repeated):
        yield (*x, "and", *x2), y + y2
        yield (*x, "after", *x2), y2 + y


class _Data(NamedTuple):
    """All commands x (20910, 9) and actions y (20910, 49) as numbers, and the commands
    of every test split, as booleans (20910,).
    """

    x: Tensor
    y: Tensor
    held_out: dict[str, Tensor]


@cache
def _data() -> _Data:
    numbers = Lexicon(FIXED).numbers([], [], ())
    pairs = list(commands())
    text = [f" {' '.join(x)} " for x, _ in pairs]
    held_out = {
        "add-jump": [" jump " in x and x != " jump " for x in text],
        "around-right": [
            " around right " in x and "turn around right" not in x for x in text
        ],
        "length": [len(y) >= LONG for _, y in pairs],
    }
    return _Data(
        torch.tensor([row(x, numbers, SOURCE) for x, _ in pairs]),
        torch.tensor([row(y, numbers, TARGET) for _, y in pairs]),
        {name: torch.tensor(rows) for name, rows in held_out.items()},
    )


class Scan(Translations):
    """Commands, in tasks that assign other meanings to some of their words."""

    def __init__(
        self,
        split: str,
        holdout: Holdout,
        shots: int,
        queries: int,
        extra: int,
        permute: bool,
    ):
        check_sizes(shots, queries)
        super().__init__(Lexicon(FIXED, 2 * extra), SOURCE, TARGET, shots, queries)
        if shots + queries > 1000:
            raise InnerloopError(
                f"shots and queries must be at most 1000 together; got {shots} and "
                f"{queries}"
            )
        if holdout == "around-right" and extra < 2:
            raise InnerloopError(
                "around-right needs at least 2 extra sides, or no assignment is left "
                f"for training; got {extra}"
            )
        self.split, self.holdout, self.extra, self.permute = (
            split,
            holdout,
            extra,
            permute,
        )
        meanings = TURNS if holdout == "around-right" else ACTIONS
        numbers = self.lexicon.numbers([], [], ())
        self.words = torch.tensor([numbers[word] for word in meanings])
        self.actions = torch.tensor([numbers[action] for action in meanings.values()])
        data = _data()
        held_out = data.held_out[holdout]
        lengths = (data.y > 0).sum(-1)
        alone = (data.x > 0).sum(-1) == (2 if holdout == "around-right" else 1)
        alone &= (data.x[:, :1] == numbers["turn"]).any(-1) == (
            holdout == "around-right"
        )
        shown = asked = torch.ones(len(data.x), dtype=torch.bool)
        if split == "test":
            shown, asked = ~held_out if holdout == "length" else alone, held_out
        elif holdout == "length":
            short = lengths < QUERY_LENGTH
            shown, asked = short, ~held_out & ~short
        elif not permute:
            shown = asked = ~held_out
        elif split == "val":
            shown = alone
        self.shown, self.asked = (where.nonzero()[:, 0] for where in (shown, asked))
        self.jump = int((data.x[:, 0] == numbers["jump"]).nonzero()[0, 0])

    def describe(self) -> str:
        return (
            f"SCAN commands, {self.holdout}, {min(self.shots, len(self.shown))} shown"
        )

    def meanings(self, generator: torch.Generator) -> Tensor:
        """What stands for every number in a task, (vocabulary,)."""
        table = torch.arange(self.lexicon.size)
        if self.split == "test" or not self.permute:
            return table
        free = self.lexicon.first_free + torch.randperm(
            self.lexicon.free, generator=generator
        )
        while True:
            parts = [
                torch.cat([own, other])
                for own, other in zip(
                    (self.words, self.actions),
                    free.split(self.extra) if self.extra else (free, free),
                    strict=True,
                )
            ]
            words, actions = (
                part[torch.randperm(len(part), generator=generator)[: len(self.words)]]
                for part in parts
            )
            pairs = set(zip(words.tolist(), actions.tolist(), strict=True))
            if self._split_of(pairs) == self.split:
                table[self.words], table[self.actions] = words, actions
                return table

    def _split_of(self, pairs: set[tuple[int, int]]) -> str:
        """The split of an assignment of actions to words. The word that is held out has
        its usual meaning in tests alone; where all are held out, the usual assignment.
        """
        usual = list(zip(self.words.tolist(), self.actions.tolist(), strict=True))
        held_out = usual if self.holdout == "length" or not self.extra else usual[-1:]
        if pairs.issuperset(held_out):
            return "test"
        code = sum(word * 31 * action for word, action in pairs)
        return "train" if code % VALIDATION else "val"

    def sample(self, n: int, generator: torch.Generator) -> Task:
        data = _data()
        rows, tables = [], []
        shots = min(self.shots, len(self.shown))
        for _ in range(n):
            shown = self.shown[torch.randperm(len(self.shown), generator=generator)][
                :shots
            ]
            order = self.asked[torch.randperm(len(self.asked), generator=generator)]
            if self.split != "test":  # what is shown is not asked
                order = order[
                    (order[: shots + self.queries, None] != shown)
                    .all(1)
                    .nonzero()[:, 0]
                ]
            asked = order[: self.queries].clone()
            if (
                self.split == "train"
                and not self.permute
                and self.holdout == "add-jump"
            ):
                alone = torch.rand(len(asked), generator=generator) < JUMP_SHARE
                asked[alone] = self.jump
            rows.append(torch.cat([shown, asked]))
            tables.append(self.meanings(generator))
        chosen, table = torch.stack(rows), torch.stack(tables)
        x, y = (
            table.gather(1, part[chosen].flatten(1))
            .view(n, chosen.shape[1], -1)
            .float()
            for part in (data.x, data.y)
        )
        return Task(
            Examples(x[:, :shots], y[:, :shots]), Examples(x[:, shots:], y[:, shots:])
        )

    def test_settings(self, fixed_ways: int | None) -> list[dict[str, Any]]:
        return [{}]


@task_source
def scan(
    split: str = "train",
    *,
    holdout: Holdout = "add-jump",
    shots: Count = 20,
    queries: Count = 20,
    extra: CountOrZero | None = None,
    permute: bool = True,
) -> Scan:
    """SCAN: commands such as "jump twice" and their actions.

    Reference: Lake and Baroni 2018, "Generalization without systematicity: on the
    compositional skills of sequence-to-sequence recurrent networks", arXiv:1711.00350;
    the episodes of Lake 2019, "Compositional generalization through meta
    sequence-to-sequence learning", arXiv:1906.05381, experiments 2 to 5.

    Tasks permute what some words mean.

    A task assigns the four actions anew to the four verbs (add-jump, length), or the
    turns to left and right (around-right). Test tasks have the usual meanings, which no
    other task has, and ask the commands of the published test split: with the verbs, or
    "turn left" and "turn right", alone as examples, or for length with examples of at
    most 22 actions, and queries of 24 to 48. Validation tasks have meanings of their
    own.

    Args:
        holdout: what only tests ask: "jump" in longer commands, "around right", or long
            commands.
        shots: pairs of a task; where single words are shown, all of them.
        queries: commands to translate.
        extra: further verbs, or sides, and as many actions, which stand in the place of
            the usual ones in some tasks; the words of other languages can have their
            numbers. By default as in the paper: 0, 2 for around-right, 20 for length.
        permute: assign meanings anew; without, training tasks have the usual meanings
            and the commands of the published training split.
    """
    if extra is None:
        extra = EXTRA[holdout]
    return Scan(split, holdout, shots, queries, extra, permute)
