"""Texts as numbers of tokens."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

UNKNOWN = 1  # the number of what was never seen; 0 is padding
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Tokenizer:
    """Texts to numbers of tokens: pairs of symbols that are often side by side become
    symbols.

    Sennrich, Haddow and Birch 2016, "Neural machine translation of rare words with
    subword units", arXiv:1508.07909, section 3.2 symbols: the letters known. merges:
    pairs of symbols, in the order in which they were found. length: tokens of a text;
    what is longer is cut.
    """

    symbols: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]
    length: int = 24

    def __post_init__(self) -> None:
        # they may come from JSON
        object.__setattr__(self, "symbols", tuple(self.symbols))
        object.__setattr__(
            self, "merges", tuple((left, right) for left, right in self.merges)
        )
        numbers = {
            s: i
            for i, s in enumerate(
                [*self.symbols, *("".join(pair) for pair in self.merges)], UNKNOWN + 1
            )
        }
        object.__setattr__(self, "_numbers", numbers)
        object.__setattr__(
            self, "_ranks", {pair: rank for rank, pair in enumerate(self.merges)}
        )

    @classmethod
    def trained(
        cls, texts: Iterable[str], size: int = 2000, length: int = 24
    ) -> Tokenizer:
        """A tokeniser of about `size` tokens, from texts."""
        counts = Counter(word for text in texts for word in _words(text))
        words, often = [list(word) for word in counts], list(counts.values())
        symbols = tuple(sorted({s for word in words for s in word}))
        pairs: Counter[tuple[str, str]] = Counter()
        where: dict[tuple[str, str], set[int]] = defaultdict(set)
        for i, word in enumerate(words):
            for pair in pairwise(word):
                pairs[pair] += often[i]
                where[pair].add(i)
        merges: list[tuple[str, str]] = []
        while len(symbols) + len(merges) + UNKNOWN + 1 < size and pairs:
            best = max(pairs, key=lambda pair: (pairs[pair], pair))
            if pairs[best] < 2:
                break
            merges.append(best)
            for i in where.pop(best):
                for pair in pairwise(words[i]):
                    pairs[pair] -= often[i]
                words[i] = _merged(words[i], best)
                for pair in pairwise(words[i]):
                    pairs[pair] += often[i]
                    where[pair].add(i)
            del pairs[best]
        return cls(symbols, tuple(merges), length)

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return UNKNOWN + 1 + len(self.symbols) + len(self.merges)

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text; one that begins a word begins with a space."""
        ranks: dict[tuple[str, str], int] = vars(self)["_ranks"]
        found: list[str] = []
        for word in _words(text):
            parts = list(word)
            while len(parts) > 1:
                best = min(
                    pairwise(parts), key=lambda pair: ranks.get(pair, len(ranks))
                )
                if best not in ranks:
                    break
                parts = _merged(parts, best)
            found += parts
        return found

    def read_all(self, texts: Sequence[str]) -> Tensor:
        """Texts as numbers of tokens (n, length), float32, 0 where a text is over."""
        numbers: dict[str, int] = vars(self)["_numbers"]
        rows = torch.zeros(len(texts), self.length)
        for row, text in zip(rows, texts, strict=True):
            known = [numbers.get(token, UNKNOWN) for token in self.tokens(text)][
                : self.length
            ]
            row[: len(known)] = torch.tensor(known, dtype=torch.float32)
        return rows

    def settings(self) -> dict[str, Any]:
        return {
            "symbols": list(self.symbols),
            "merges": [list(pair) for pair in self.merges],
            "length": self.length,
        }


def _words(text: str) -> list[str]:
    return [" " + word for word in _WORD.findall(text.lower())]


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """The symbols with every occurrence of the pair, from the left, as one."""
    found: list[str] = []
    for symbol in symbols:
        if found and (found[-1], symbol) == pair:
            found[-1] += symbol
        else:
            found.append(symbol)
    return found
