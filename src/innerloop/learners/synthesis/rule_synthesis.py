"""Small languages, learned as rewrite rules that a search finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import KW_ONLY
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from innerloop.core.likelihood import Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.options import Count, Positive
from innerloop.learners.memory.translator import UNKNOWN, ExactMatch, Translator
from innerloop.learners.synthesis.synthesizer import Searcher
from innerloop.programs.rewriting import (
    LONGEST,
    Language,
    Pair,
    Rule,
    Words,
    languages,
)
from innerloop.programs.search import Budget

State = dict[str, Tensor]
RULE = 3 + LONGEST  # numbers of a rule: word, arguments before and behind it, output
NONE, ANY, ONE = 0, 1, 2  # an argument: there is none; any words; a single word


class RuleSynthesis(Searcher):
    """Rule synthesis: a language as rewrite rules, found by a search.

    A rule says what a word does to the words before it and behind it, for example
    x word y -> [y] [x] [x], where [x] is the target of x; the first rule that fits a
    source counts. A word alone has the target that was shown; where no rule fits, the
    target of the first word comes before that of the others.

    Reference: Nye, Solar-Lezama, Tenenbaum and Lake 2020, "Learning compositional rules
    via neural program synthesis", arXiv:2003.05562, section 3, with rules as in its
    MiniSCAN. There a network proposes rules, and a search keeps those that explain all
    pairs. Here the search enumerates all ways to write the shown targets, word by word,
    and keeps the languages that explain the most pairs, those with the shortest rules
    first; the majority of them decides. It has no parameters.

    State: the languages as numbers (languages, rules, 15), -1 where there is none, and
    the targets (vocabulary, target) of single words, -1 where none was shown.

    Args:
        vocabulary: number of tokens; 0 is the end of a row, and 1 an unknown word.
        target: tokens of the longest target.
        likelihood: how outputs are scored.
        seconds: limit of the processor time of a search.
    """

    vocabulary: Count
    target: Count
    _: KW_ONLY
    seconds: Positive = 5.0
    likelihood: Likelihood = ExactMatch()

    kinds = ("tokens",)
    home = "instructions"

    @classmethod
    def specs(cls) -> tuple[TaskSpec, ...]:
        return Translator.specs()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        found = Translator.networks(spec, build_args, out_dim)
        del found["source"]
        return found

    def adapt(self, support: Examples) -> State:
        rows = zip(self._words(support.x), self._words(support.y), strict=True)
        pairs: list[Pair] = [(x, y) for x, y in rows if x and UNKNOWN not in x]
        found = languages(pairs, Budget(self.seconds))
        most = max((len(language.rules) for language in found), default=0)
        rules = torch.full((len(found), most, RULE), -1)
        for i, language in enumerate(found):
            for j, rule in enumerate(language.rules):
                numbers = torch.tensor(_numbers(rule))
                rules[i, j, : len(numbers)] = numbers
        symbols = torch.full((self.vocabulary, self.target), -1)
        for word, target in found[0].symbols.items():
            symbols[word, : len(target) + 1] = torch.tensor([*target, 0])[: self.target]
        return {"rules": rules, "symbols": symbols}

    def predict(self, state: State, x: Tensor) -> Tensor:
        symbols = {
            word: self._words(row[None])[0]
            for word, row in enumerate(state["symbols"])
            if row[0] >= 0
        }
        found = [
            Language(symbols, tuple(_rule(row) for row in rows.tolist() if row[0] >= 0))
            for rows in state["rules"]
        ]
        outputs = x.new_zeros(len(x), self.target)
        for output, source in zip(outputs, self._words(x), strict=True):
            given = (each.target(source, self.target - 1) for each in found)
            votes = Counter(target for target in given if target is not None)
            for target, _ in votes.most_common(1):
                output[: len(target)] = torch.tensor(target)
        return outputs

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        outputs = self.predict(self.adapt(task.support), task.query.x)
        y = task.query.y
        return self.likelihood.nll(outputs, y), self.likelihood.metrics(outputs, y)

    def _words(self, rows: Tensor) -> list[Words]:
        """The tokens of each row before its end."""
        found = rows.long().clamp(0, self.vocabulary - 1).tolist()
        return [tuple(takewhile(bool, row)) for row in found]


def _numbers(rule: Rule) -> list[int]:
    """A rule as numbers of at least 0: an argument of the output, 0 or 1, as itself,
    and a symbol s as 2 + s.
    """
    kinds = dict(zip(rule.sides, rule.short, strict=True))
    sides = [(ONE if kinds[i] else ANY) if i in kinds else NONE for i in (0, 1)]
    output = [item if item >= 0 else 1 - item for item in rule.output]
    return [rule.word, *sides, *output]


def _rule(numbers: list[int]) -> Rule:
    """The rule of these numbers."""
    word, *sides = numbers[:3]
    there = [i for i in (0, 1) if sides[i] != NONE]
    output = tuple(n if n < 2 else 1 - n for n in numbers[3:] if n >= 0)
    return Rule(word, tuple(there), tuple(sides[i] == ONE for i in there), output)
