"""Texts to token numbers."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import check_options
from innerloop.readers.base import Inputs, Reader
from innerloop.readers.files import Sheet, label_text, read_sheet, some

UNKNOWN = 1  # the number of unknown tokens; 0 is padding
MIN_LENGTH, MAX_LENGTH = 8, 128  # of a length chosen from texts
MAX_WORDS = 100_000  # whose tokens are kept in memory
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Texts(Reader):
    """Texts from memory and files; a subclass turns them into tensors.

    Args:
        text_column: column of the texts in a file.
        label_column: column of the labels in a file.
    """

    text_column: str = "text"
    label_column: str = "label"

    what: ClassVar[str] = "text"

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """The texts as inputs (n, *x_shape), and how many of them were cut."""

    def read(self, path: Path | str, *, labels: bool) -> Inputs:
        return self.from_sheet(read_sheet(path), labels=labels)

    def from_sheet(self, sheet: Sheet, *, labels: bool) -> Inputs:
        """What `read` returns, from a file that was read already."""
        texts, known, unreadable = texts_of(
            sheet, self.text_column, self.label_column, labels=labels
        )
        x, cut = self.encode(texts)
        notes = list(sheet.notes)
        if cut:
            notes.append(
                f"{cut:,} of {len(texts):,} texts are too long and were cut"
            )
        return Inputs(x, texts, known, unreadable, "; ".join(notes))

    def convert(self, X: Any) -> Tensor:
        """Inputs (n, *x_shape) from a list, an array or a data frame column of texts.

        Raises InnerloopError for anything else, naming the entry that is no text.
        """
        return self.encode(texts_in(X, self.text_column))[0]


@dataclass(frozen=True)
class TextReader(Texts):
    """Texts: texts as byte-pair tokens.

    Reference: Sennrich, Haddow and Birch 2016, "Neural machine translation of rare
    words with subword units", arXiv:1508.07909, section 3.2.

    Args:
        symbols: the known characters.
        merges: pairs of symbols, in the order in which they were merged in training.
        length: number of tokens of a text; longer texts are cut.
        text_column: column of the texts in a file.
        label_column: column of the labels in a file.
    """

    symbols: tuple[str, ...] = ()
    merges: tuple[tuple[str, str], ...] = ()
    length: int = 24

    kind: ClassVar[str] = "text"

    def __post_init__(self) -> None:
        # they may come from JSON
        merges = tuple((left, right) for left, right in self.merges)
        object.__setattr__(self, "symbols", tuple(self.symbols))
        object.__setattr__(self, "merges", merges)
        for part in (*self.symbols, *(part for pair in merges for part in pair)):
            if not isinstance(part, str):
                raise InnerloopTypeError(
                    "symbols and merges of a TextReader must be texts; got "
                    f"{part!r:.60}"
                )
        check_options(self)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        known = [*self.symbols, *("".join(pair) for pair in self.merges)]
        return {symbol: i for i, symbol in enumerate(known, UNKNOWN + 1)}

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        return {pair: rank for rank, pair in enumerate(self.merges)}

    @classmethod
    def fitted(
        cls,
        texts: Iterable[str],
        *,
        vocabulary: int = 2000,
        length: int | None = None,
        text_column: str = "text",
        label_column: str = "label",
    ) -> Self:
        """A reader with about `vocabulary` tokens, from the texts to train on.

        By default `length` is one and a half times the 95th percentile of the numbers
        of tokens in these texts, from 8 to 128: texts of other classes have words that
        were not merged and need more tokens.
        """
        texts = list(texts)
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
        while len(symbols) + len(merges) + UNKNOWN + 1 < vocabulary and pairs:
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
        reader = cls(
            text_column, label_column, symbols, tuple(merges), length or MAX_LENGTH
        )
        if length is None and texts:
            sizes = [len(reader.tokens(text)) for text in texts]
            suited = round(1.5 * float(np.percentile(sizes, 95)))
            reader = replace(reader, length=min(max(suited, MIN_LENGTH), MAX_LENGTH))
        return reader

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def vocabulary(self) -> int:
        """The number of token numbers, padding and unknown included."""
        return UNKNOWN + 1 + len(self.symbols) + len(self.merges)

    @cached_property
    def _known_words(self) -> dict[str, list[str]]:
        return {}

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text; one that begins a word begins with a space."""
        ranks, known = self._ranks, self._known_words
        found: list[str] = []
        for word in _words(text):
            parts = known.get(word)
            if parts is None:
                parts = list(word)
                while len(parts) > 1:
                    best = min(pairwise(parts), key=lambda p: ranks.get(p, len(ranks)))
                    if best not in ranks:
                        break
                    parts = _merged(parts, best)
                if len(known) >= MAX_WORDS:
                    known.clear()
                known[word] = parts
            found += parts
        return found

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """Token numbers (n, length), float32, 0 after the end of a text, and how many
        texts were cut.
        """
        rows, cut = torch.zeros(len(texts), self.length), 0
        for row, text in zip(rows, texts, strict=True):
            tokens = self.tokens(text)
            cut += len(tokens) > self.length
            known = [self._numbers.get(token, UNKNOWN) for token in tokens]
            known = known[: self.length]
            row[: len(known)] = torch.tensor(known, dtype=torch.float32)
        return rows, cut

    def settings(self) -> dict[str, Any]:
        return super().settings() | {
            "symbols": list(self.symbols),
            "merges": [list(pair) for pair in self.merges],
        }


def texts_in(X: Any, column: str) -> list[str]:
    """The texts of a list, an array, or the column of a data frame.

    Raises InnerloopError for anything else, naming the entry that is no text.
    """
    if isinstance(X, str | bytes) or not hasattr(X, "__len__"):
        raise InnerloopError(
            f"a list of texts is expected, such as ['a text']; got {X!r:.80}"
        )
    if hasattr(X, "columns"):  # a data frame
        X = X[column if column in X.columns else X.columns[0]]
    texts = list(X)
    for place, text in enumerate(texts):
        if isinstance(text, np.ndarray | list | tuple) and len(text) == 1:
            texts[place] = text = text[0]
        if not isinstance(text, str) or not text.strip():
            raise InnerloopError(f"X[{place}] must be a text; got {text!r:.80}")
    if not texts:
        raise InnerloopError("X has 0 texts; at least one is needed")
    return texts


def texts_of(
    sheet: Sheet, text_column: str, label_column: str, *, labels: bool
) -> tuple[list[str], list[str] | None, tuple[str, ...]]:
    """The texts of a file, their labels, and the lines that cannot be read. With
    `labels`, every line must have a text and a label; without, there are labels where
    every line has one.

    Raises InnerloopError for a missing column, and for lines that cannot be read: all
    of them or, with `labels`, any.
    """
    hint = "; text_column and label_column name others"
    cells = sheet.column(text_column, hint)
    texts = [label_text(cell) for cell in cells]
    known: list[str] | None = None
    bad = {line: f"has {what}" for line, what in sheet.malformed}
    bad |= {sheet.lines[i]: "has no text" for i, t in enumerate(texts) if not t}
    unreadable = tuple(f"line {line} {bad[line]}" for line in sorted(bad))
    if labels:
        sheet.check()
        if unreadable:
            raise InnerloopError(f"{sheet.path}: {some(unreadable)}")
        known = sheet.labels(label_column, hint)
    elif (place := sheet.find(label_column)) is not None:
        every = [label_text(row[place]) for row in sheet.rows]
        known = every if all(every) else None
    kept = [i for i, text in enumerate(texts) if text]
    if not kept:
        raise InnerloopError(f"{sheet.path} has no text: {some(unreadable)}")
    return (
        [texts[i] for i in kept],
        [known[i] for i in kept] if known else None,
        unreadable,
    )


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
