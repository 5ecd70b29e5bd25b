"""Texts as sentences: features of each, and how well it says what a summary says."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

HASHED = 64  # features that the words of a sentence are hashed to
STARTS = ("this package", "this is", "it ", "the ", "you ", "note", "for ", "in ")
INSIDE = (" is a", " provides", " contains", " that ", " can ", " not ", " with ")
MARKS = ':()*"0123456789'
PLACES = 6  # places of a text that have a feature of their own
FEATURES = PLACES + 8 + len(STARTS) + len(INSIDE) + len(MARKS) + HASHED
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9\u00c0-\uffff])")
_WORD = re.compile(r"\w+")
# a full stop behind them ends no sentence
_SHORT = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Dr|Mr|Mrs|Ms|St|No|Inc|[A-Z]))\.$")


class Rouge(NamedTuple):
    """F1 of words, of pairs of words, and of the longest common subsequence, in 0..1.
    Lin 2004, "ROUGE: a package for automatic evaluation of summaries", Text
    Summarization Branches Out, sections 2 and 3.1.
    """

    one: float
    two: float
    longest: float

    @property
    def mean(self) -> float:
        return sum(self) / 3


def sentences_of(text: str) -> list[str]:
    """The sentences of a text; an empty line, and a line that begins with a bullet, end
    a sentence too.
    """
    found = []
    for block in re.split(r"\n\s*\n|\n(?=\s*[-*+•]\s)", text):
        line, begin = " ".join(block.split()), 0
        for end in _END.finditer(line):
            if not _SHORT.search(line[begin : end.start()]):
                found.append(line[begin : end.start()].strip())
                begin = end.end()
        found.append(line[begin:].strip())
    return [sentence for sentence in found if _WORD.search(sentence)]


def words_in(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


def rouge(text: str, reference: str) -> Rouge:
    """How well a text agrees with a reference; words as they are, without stemming."""
    a, b = words_in(text), words_in(reference)
    pairs = [*pairwise(a)], [*pairwise(b)]
    return Rouge(
        _f1(_shared(a, b), len(a), len(b)),
        _f1(_shared(*pairs), len(pairs[0]), len(pairs[1])),
        _f1(_subsequence(a, b), len(a), len(b)),
    )


def _shared(a: Sequence[object], b: Sequence[object]) -> int:
    return sum((Counter(a) & Counter(b)).values())


def _f1(shared: int, a: int, b: int) -> float:
    return 2 * shared / (a + b) if shared else 0.0


def _subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    above = [0] * (len(b) + 1)
    for word in a:
        row = [0]
        for j, other in enumerate(b):
            row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
        above = row
    return above[-1]


def features(sentences: Sequence[str]) -> Tensor:
    """The sentences of a text as vectors (n, features): their place and length, how
    much they share with the others, how they begin, and their words, hashed as in
    Weinberger, Dasgupta, Langford, Smola and Attenberg 2009, "Feature hashing for large
    scale multitask learning", arXiv:0902.2206.
    """
    words = [words_in(sentence) for sentence in sentences]
    counts = Counter(word for own in words for word in set(own))
    first, n, rows = set(words[0]), len(sentences), []
    for i, (sentence, own) in enumerate(zip(sentences, words, strict=True)):
        low, size = f"{sentence.lower()} ", max(1, len(own))
        place = [float(i == at) for at in range(PLACES - 1)] + [float(i == n - 1)]
        rest = [counts[word] > 1 for word in own]
        numbers = [
            *(i / max(1, n - 1), n / 10, min(size, 60) / 20, size**0.5 / 5),
            *(sum(rest) / size, sum(word in first for word in own) / size),
            sum(len(word) for word in own) / size / 8,
            sum(c.isupper() for c in sentence) / max(1, len(sentence)) * 5,
        ]
        rows.append(
            [
                *place,
                *numbers,
                *(float(low.startswith(start)) for start in STARTS),
                *(float(part in low) for part in INSIDE),
                *(float(mark in sentence) for mark in MARKS),
                *_hashed(own),
            ]
        )
    return torch.tensor(rows)


def _hashed(words: Sequence[str]) -> list[float]:
    found = [0.0] * HASHED
    for word in words:
        code = zlib.crc32(word.encode())
        found[code % HASHED] += (1 if code >> 31 else -1) / len(words) ** 0.5
    return found
