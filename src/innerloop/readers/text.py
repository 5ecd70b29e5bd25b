"""Texts from tables, folders and archives, and as token numbers."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import check_options
from innerloop.readers.archives import is_archive, read_archive
from innerloop.readers.base import Inputs, Reader
from innerloop.readers.files import (
    MAX_BYTES,
    Sheet,
    decoded,
    label_text,
    read_sheet,
    shown,
    some,
)
from innerloop.readers.sources import (
    FileKind,
    content,
    find,
    is_table,
    surrounding,
    table_of,
)

UNKNOWN = 1  # the number of unknown tokens; 0 is padding
MIN_LENGTH, MAX_LENGTH = 8, 128  # of a length chosen from texts
MAX_WORDS = 100_000  # whose tokens are kept in memory
MAX_TEXT = 1 << 24  # bytes of a text in a file of its own
_DOCUMENTS = (".pdf", ".doc", ".docx", ".odt", ".rtf", ".html", ".htm", ".eml", ".msg")
TEXTS = FileKind(
    "text",
    frozenset({".txt"}),
    ".txt",
    {suffix: f"{suffix} is not read: save it as .txt" for suffix in _DOCUMENTS},
)
_WORD = re.compile(r"\w+|[^\w\s]")


class Texts(Reader):
    """The base class of readers of texts: a subclass says in `encode` what becomes of a
    text. It is a frozen dataclass with the fields of this class.

    Args:
        text_column: column of the texts in a table.
        label_column: column of the labels in a table.
    """

    text_column: str
    label_column: str

    what: ClassVar[str] = "text"

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """Inputs (n, *x_shape) from texts, and how many texts were cut."""

    @abstractmethod
    def cut_note(self, cut: int, of: int) -> str:
        """That `cut` of so many texts were cut, and what to do to read all of them."""

    def check_length(self, length: int | None) -> None:
        """Raises InnerloopError where `length` is not None, or not the reader's."""
        if length is not None:
            raise InnerloopError(
                f"length is an option of token readers; got {length} with the reader "
                f"{self.kind!r}: leave it out"
            )

    def with_columns(self, **columns: str) -> Self:
        """The same reader for a table with other column names."""
        if all(getattr(self, name) == column for name, column in columns.items()):
            return self
        return replace(self, **columns)  # pyright: ignore[reportArgumentType]

    def read(self, path: Path | str, *, labels: bool) -> Inputs:
        """Read a table, a folder PATH/CLASS/text.txt, or an archive of either; with
        `labels=False` also .txt files at any depth.
        """
        return self._inputs(
            read_texts(path, self.text_column, self.label_column, labels=labels)
        )

    def from_sheet(self, sheet: Sheet, *, labels: bool) -> Inputs:
        """What `read` returns, from a table that was read already."""
        return self._inputs(
            _in_sheet(sheet, self.text_column, self.label_column, labels=labels)
        )

    def _inputs(self, found: FoundTexts) -> Inputs:
        x, cut = self.encode(found.texts)
        notes = [*found.notes, *([self.cut_note(cut, len(x))] if cut else [])]
        return Inputs(x, found.names, found.labels, found.unreadable, "; ".join(notes))

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

    symbols: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]
    length: int = 24
    text_column: str = "text"
    label_column: str = "label"

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
    def _symbols(self) -> dict[int, str]:
        return {number: symbol for symbol, number in self._numbers.items()}

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
            symbols, tuple(merges), length or MAX_LENGTH, text_column, label_column
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
        return list(self._each(text))

    def _each(self, text: str) -> Iterator[str]:
        ranks, known = self._ranks, self._known_words
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
            yield from parts

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """Token numbers (n, length), float32, 0 after the end of a text, and how many
        texts were cut.
        """
        rows, cut = torch.zeros(len(texts), self.length), 0
        for row, text in zip(rows, texts, strict=True):
            tokens = list(islice(self._each(text), self.length + 1))
            cut += len(tokens) > self.length
            known = [self._numbers.get(token, UNKNOWN) for token in tokens]
            known = known[: self.length]
            row[: len(known)] = torch.tensor(known, dtype=torch.float32)
        return rows, cut

    def as_text(self, x: Tensor) -> str:
        """The tokens of a text, joined; what no token stands for is shown as "…"."""
        found = [self._symbols.get(n, "…") for n in x.long().tolist() if n]
        return "".join(found).strip()

    def cut_note(self, cut: int, of: int) -> str:
        return (
            f"{cut:,} of {of:,} texts have more than {self.length} tokens and were "
            "cut; a run that is trained with a larger length reads more of them"
        )

    def check_length(self, length: int | None) -> None:
        if length not in (None, self.length):
            raise InnerloopError(
                f"length must be {self.length}, as in the run of the reader; got "
                f"{length}"
            )

    def settings(self) -> dict[str, Any]:
        return super().settings() | {
            "symbols": list(self.symbols),
            "merges": [list(pair) for pair in self.merges],
        }


class FoundTexts(NamedTuple):
    """Texts, what each is called in results, the label of each or None where they have
    none, what cannot be read, each as "name: reason", and how they were read.
    """

    texts: list[str]
    names: list[str]
    labels: list[str] | None
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]


def read_texts(
    path: Path | str, text_column: str, label_column: str, *, labels: bool
) -> FoundTexts:
    """The texts of a table, of a folder PATH/CLASS/text.txt, or of an archive of
    either; without `labels` also of .txt files at any depth.

    Texts in files are named by the file, texts in a table by themselves. Without
    `labels`, the labels are those of the table or of the folders, where every text has
    one.
    """
    path = Path(path)
    if not (path.is_dir() or is_archive(path)):
        sheet = read_sheet(path)
    else:
        sheet = None if path.is_dir() else _only_table(path)
        if sheet is None:
            return _in_files(path, labels)
    return _in_sheet(sheet, text_column, label_column, labels=labels)


def _only_table(path: Path) -> Sheet | None:
    """The table in an archive, or None for an archive of texts in files."""
    archive = read_archive(path)
    around = len(surrounding(archive, TEXTS.suffixes))
    tables = [m for m in archive.members if is_table(m.parts[around:])]
    texts = any(m.name.lower().endswith(".txt") for m in archive.members)
    return table_of(tables[0]) if len(tables) == 1 and not texts else None


def _in_files(path: Path, labels: bool) -> FoundTexts:
    found = find(path, TEXTS, labels=labels)
    texts: dict[int, str] = {}
    unreadable, other_encoding, total = list(found.other), [], 0
    for i, (file, name) in enumerate(zip(found.files, found.names, strict=True)):
        try:
            raw = content(file, MAX_TEXT)
            text, assumed = decoded(name, raw)
        except Exception as error:  # of an archive, whatever its decoder raises
            reason = getattr(error, "strerror", None) or str(error)
            reason = reason.removeprefix(name).strip() or type(error).__name__
            unreadable.append(f"{name}: {' '.join(reason.split())[:160]}")
            continue
        total += len(raw)
        if total > MAX_BYTES:
            raise InnerloopError(
                f"{shown(path)} has more than {MAX_BYTES >> 20:,} MiB of text: use "
                "fewer texts"
            )
        if text.strip():
            texts[i] = text.strip()
        else:
            unreadable.append(f"{name}: it has no text")
        other_encoding += [name] if assumed else []
    if not texts:
        raise InnerloopError(
            f"{shown(path)} holds no text that can be read: {some(unreadable, 1, 160)}"
        )
    notes = [found.note] if found.note else []
    if other_encoding:
        notes.append(
            f"texts that are not UTF-8 and were read as cp1252: {some(other_encoding)}"
        )
    return FoundTexts(
        list(texts.values()),
        [found.names[i] for i in texts],
        None if found.labels is None else [found.labels[i] for i in texts],
        tuple(unreadable),
        tuple(notes),
    )


def _in_sheet(
    sheet: Sheet, text_column: str, label_column: str, *, labels: bool
) -> FoundTexts:
    texts, known, unreadable = texts_of(sheet, text_column, label_column, labels=labels)
    return FoundTexts(texts, texts, known, unreadable, sheet.notes)


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
    sheet: Sheet,
    text_column: str,
    label_column: str,
    *,
    labels: bool,
    hint: str = "; text_column and label_column name others",
) -> tuple[list[str], list[str] | None, tuple[str, ...]]:
    """The texts of a file, their labels, and the lines that cannot be read. With
    `labels`, every line must have a text and a label; without, there are labels where
    every line has one.

    Raises InnerloopError for a missing column, and for lines that cannot be read: all
    of them or, with `labels`, any.
    """
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
