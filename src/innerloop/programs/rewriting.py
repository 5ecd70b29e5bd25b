"""Small languages as rewrite rules, and the search for rules that explain examples.

A source is a sequence of words and a target one of symbols, all of them numbers.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from innerloop.programs.search import Budget

Words = tuple[int, ...]
Pair = tuple[Words, Words]

LONGEST = 12  # items of a rule's output
SYMBOLS = (0, 4)  # of them that are symbols, at most; 4 where there is no other way
BEAM = 64  # languages that are followed
CANDIDATES = 32  # rules for a word


@dataclass(frozen=True)
class Rule:
    """What a word does to its arguments, the words before it and those behind it.

    Args:
        word: the word.
        sides: where it has arguments: 0 before it, 1 behind it.
        short: whether each argument is a single word; any words otherwise.
        output: what is written: an argument, 0 or 1 as in `sides`, or the symbol s as
            -1 - s.
    """

    word: int
    sides: tuple[int, ...]
    short: tuple[bool, ...]
    output: tuple[int, ...]

    def arguments(self, source: Words) -> dict[int, Words] | None:
        """The arguments by their sides, where the whole source is a call; the last call
        counts.
        """
        for place in range(len(source) - 1, -1, -1):
            if source[place] != self.word:
                continue
            found = _around(source, place)
            if tuple(found) == self.sides and all(
                len(part) == 1 or not short
                for part, short in zip(found.values(), self.short, strict=True)
            ):
                return found
        return None


def _around(source: Words, place: int) -> dict[int, Words]:
    """The words before a place and those behind it, where there are any."""
    parts = source[:place], source[place + 1 :]
    return {side: part for side, part in enumerate(parts) if part}


@dataclass(frozen=True)
class Language:
    """The symbols of words, rules in the order of their precedence, and a last rule:
    the symbols of a word come before those of the words behind it.
    """

    symbols: Mapping[int, Words]
    rules: tuple[Rule, ...] = ()

    def target(self, source: Words, longest: int) -> Words | None:
        """The target of a source; None where no rule applies, or it is too long."""
        if len(source) == 1 and source[0] in self.symbols:
            return self.symbols[source[0]]
        for rule in self.rules:
            if (found := rule.arguments(source)) is not None:
                parts = {side: self.target(p, longest) for side, p in found.items()}
                written: Words = ()
                for item in rule.output:
                    part = (-1 - item,) if item < 0 else parts[item]
                    if part is None or len(written) + len(part) > longest:
                        return None
                    written += part
                return written
        if len(source) < 2 or source[0] not in self.symbols:
            return None
        rest = self.target(source[1:], longest)
        whole = None if rest is None else self.symbols[source[0]] + rest
        return whole if whole is not None and len(whole) <= longest else None


def languages(pairs: Sequence[Pair], budget: Budget) -> list[Language]:
    """Languages that explain the most of the pairs, the simplest first; at most `BEAM`.

    Words are learned one after the other, those first that stand in the shortest
    sources whose other words are known; all that explains the most pairs is followed.
    """
    pairs = sorted(pairs, key=lambda pair: (len(pair[0]), pair))
    longest = 2 * max((len(y) for _, y in pairs), default=0)
    symbols = {x[0]: y for x, y in pairs if len(x) == 1}
    found, known = [Language(symbols)], set(symbols)
    while not budget.out_of_time:
        unknown = (set(x) - known for x, _ in pairs)
        word = next(
            (word for words in unknown if len(words) == 1 for word in words), -1
        )
        if word < 0:
            break
        known.add(word)
        # rules for the word change nothing else
        shown = [(x, y) for x, y in pairs if word in x and known.issuperset(x)]
        scored = {
            rules: sum(
                Language(symbols, rules).target(x, longest) == y for x, y in shown
            )
            for language in found
            for rule in _candidates(language, word, shown, longest, budget)
            for rules in _inserted(rule, language.rules)
            if not budget.out_of_time
        }
        most = max(scored.values(), default=0)
        best = [Language(symbols, rules) for rules, n in scored.items() if n == most]
        found = sorted(best, key=_size)[:BEAM] or found
    return found


def _inserted(rule: Rule, rules: tuple[Rule, ...]) -> Iterator[tuple[Rule, ...]]:
    """Rules and another one, at each place of their order."""
    for place in range(len(rules) + 1):
        yield (*rules[:place], rule, *rules[place:])


def _size(language: Language) -> tuple[int, int]:
    """Items of all rules, symbols twice; then how many rules take single words alone,
    and so apply to less.
    """
    items = sum(1 + (item < 0) for rule in language.rules for item in rule.output)
    return items, sum(all(rule.short) for rule in language.rules)


def _candidates(
    language: Language,
    word: int,
    pairs: Sequence[Pair],
    longest: int,
    budget: Budget,
) -> list[Rule]:
    """Rules for a word, by how many of the pairs where it stands once they explain; at
    least half as many as the best.
    """
    counts: Counter[Rule] = Counter()
    for x, y in pairs:
        if x.count(word) != 1 or budget.out_of_time:
            continue
        sources = _around(x, x.index(word))
        parts = {side: language.target(p, longest) for side, p in sources.items()}
        if None in parts.values():
            continue
        outputs = next(filter(None, (list(_outputs(y, parts, n)) for n in SYMBOLS)), [])
        shorts = itertools.product((True, False), repeat=len(parts))
        for output, short in itertools.product(outputs, shorts):
            counts[Rule(word, tuple(parts), short, output)] += 1
    most = max(counts.values(), default=0)
    best = [rule for rule, count in counts.items() if 2 * count >= most]
    return sorted(best, key=counts.__getitem__, reverse=True)[:CANDIDATES]


def _outputs(
    target: Words, parts: Mapping[int, Words | None], symbols: int
) -> Iterator[tuple[int, ...]]:
    """All ways to write a target with the targets of all arguments, and at most so many
    symbols beside them.
    """
    left: list[tuple[Words, tuple[int, ...]]] = [(target, ())]
    while left:
        rest, items = left.pop()
        if not rest:
            if set(parts) <= set(items):
                yield items
            continue
        if len(items) == LONGEST:
            continue
        if sum(item < 0 for item in items) < symbols:
            left.append((rest[1:], (*items, -1 - rest[0])))
        for side, part in parts.items():
            if part and rest[: len(part)] == part:
                left.append((rest[len(part) :], (*items, side)))
