"""Labeled data as advice needs them: every item once, as a vector and as it is."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.task import TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.readers.base import Inputs, Reader
from innerloop.readers.detect import reader_for
from innerloop.readers.image import ImageReader
from innerloop.readers.text import Texts, read_texts
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.tasks.folder import group_by_label

PIXELS = 32  # of a side, of images that are compared as they are
WORDS = 5_000  # different words at most
NUMBERS = 50_000_000  # in the word counts of all texts at most


@dataclass(frozen=True)
class LabeledData:
    """The items of a data set, class by class.

    Args:
        bank: the items as vectors.
        raw: the same items as they are: small images, or weighted counts of words; None
            where the vectors are all there is.
        names: what each item is called (N,).
        files: the file of each item, where items are files.
        path: where they were read, or None.
        columns: the columns that were chosen, by option.
        notes: how they were read, where that is not obvious.
    """

    bank: ClassBank
    raw: ClassBank | None
    names: tuple[str, ...]
    files: tuple[Any, ...] = ()
    path: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def encoder(self) -> str | None:
        """The pretrained encoder that made the vectors, or None."""
        return getattr(self.bank.reader, "encoder", None)

    @property
    def what(self) -> str:
        """One item, in a word."""
        return self.bank.reader.what if self.bank.reader is not None else "item"

    @property
    def classes(self) -> tuple[str, ...]:
        return self.bank.names

    @property
    def labels(self) -> Tensor:
        """The class of every item (N,)."""
        return torch.arange(len(self.bank)).repeat_interleave(self.bank.counts)

    def index(self, classes: Sequence[int] | None = None) -> ClassBank:
        """A bank whose examples are the numbers of the items (N, 1), with some of the
        classes.
        """
        places = torch.arange(len(self.bank.values), dtype=torch.float64)[:, None]
        bank = replace(self.bank, values=places, reader=None)
        return bank if classes is None else bank.pick(list(classes))

    @classmethod
    def of(cls, bank: ClassBank, raw: ClassBank | None = None) -> LabeledData:
        """From a bank in memory, such as that of a task source.

        Raises InnerloopError for classes that overlap or are turned, or images without
        an encoder.
        """
        rows = [
            torch.arange(start, start + count)
            for start, count in zip(
                bank.starts.tolist(), bank.counts.tolist(), strict=True
            )
        ]
        if bank.has_images:
            raise InnerloopError(
                "advice needs vectors; got images: read them with the reader of a "
                "pretrained encoder"
            )
        order, sizes = torch.cat(rows), bank.counts.tolist()
        names = [
            f"{name} {i + 1}"
            for name, size in zip(bank.names, sizes, strict=True)
            for i in range(size)
        ]

        def packed(part: ClassBank) -> ClassBank:
            return ClassBank.of(
                part.values[order],
                sizes,
                list(bank.names),
                bank.groups.tolist(),
                part.reader,
                part.title,
            )

        return cls(packed(bank), packed(raw) if raw else None, tuple(names))


def read_labeled(
    path: Path | str,
    encoder: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> LabeledData:
    """The labeled items of a folder, a table or an archive, see `reader_for`.

    An item that is repeated in its class is used once.

    Raises InnerloopError for fewer than two classes.
    """
    path, columns = Path(path), dict(columns or {})
    reader = reader_for(path, encoder, columns)
    label_column = getattr(reader, "label_column", None)
    if label_column not in (None, "label"):
        columns["label_column"] = label_column
    found = reader.read(path, labels=True)
    raw = _raw(path, reader, found)
    labels = found.labels or []
    kept = _distinct(found.x, labels)
    notes = [found.note] if found.note else []
    if len(kept) < len(labels):
        notes.append(
            f"{len(labels) - len(kept):,} {reader.what}s that repeat within their "
            "class are used once"
        )
    if found.unreadable:
        notes.append(
            f"{len(found.unreadable):,} {reader.what}s cannot be read and are left "
            f"out: {found.unreadable[0]}"
        )
    classes, order, counts = group_by_label([labels[i] for i in kept])
    if len(classes) < 2:
        raise InnerloopError(
            f"advice needs at least two classes; got {len(classes)} in {path}: add "
            "examples of other classes"
        )
    rows = torch.tensor(kept)[order]
    title = path.name

    def bank(values: Tensor, owner: Reader | None) -> ClassBank:
        return ClassBank.of(values[rows], counts, classes, reader=owner, title=title)

    return LabeledData(
        bank(found.x.float(), reader),
        None if raw is None else bank(raw, None),
        tuple(found.names[i] for i in rows.tolist()),
        tuple(found.files[i] for i in rows.tolist()) if found.files else (),
        path,
        columns,
        tuple(notes),
    )


def _distinct(x: Tensor, labels: list[str]) -> list[int]:
    """The places of the items to use: the first of those that are equal in a class."""
    first: dict[tuple[str, bytes], int] = {}
    for i, (row, label) in enumerate(zip(x, labels, strict=True)):
        first.setdefault((label, row.numpy().tobytes()), i)
    return list(first.values())


def _raw(path: Path, reader: Reader, found: Inputs) -> Tensor | None:
    """The items as they are, or None where their vectors are that already."""
    if isinstance(reader, ImageReader) and found.files:
        small = ImageReader(3, (PIXELS, PIXELS))
        values, failed = small.pixels(list(found.files), found.names)
        return None if failed else values
    if isinstance(reader, Texts):
        texts = read_texts(
            path, reader.text_column, reader.label_column, labels=True
        ).texts
        return word_weights(texts)
    return None


def word_weights(texts: Sequence[str]) -> Tensor:
    """Texts as weighted counts of their most frequent words, of length 1: (n, words).

    (1 + log count) * log(n / number of texts with the word), see Salton and Buckley
    1988, "Term-weighting approaches in automatic text retrieval", Information
    Processing and Management 24.
    """
    counts = [Counter(re.findall(r"\w+", text.casefold())) for text in texts]
    spread = Counter(word for count in counts for word in count)
    most = max(1, min(WORDS, NUMBERS // max(len(texts), 1)))
    frequent = sorted(spread, key=lambda word: (-spread[word], word))[:most]
    place = {word: i for i, word in enumerate(frequent)}
    rows = torch.zeros(len(texts), max(len(place), 1))
    for i, count in enumerate(counts):
        for word, times in count.items():
            if word in place:
                weight = math.log((1 + len(texts)) / spread[word])
                rows[i, place[word]] = (1 + math.log(times)) * weight
    return F.normalize(rows, dim=-1)


def usable(counts: Tensor, ways: int, shots: int, most: int = 10) -> tuple[int, int]:
    """The numbers of ways and queries of tasks with so many shots that use every class
    of more than `shots` examples; (0, 0) where fewer than two classes have as many.
    """
    enough = counts[counts > shots]
    if len(enough) < 2:
        return 0, 0
    return min(ways, len(enough)), max(1, min(most, int(enough.min()) - shots))


def episodes(bank: ClassBank, ways: int, shots: int) -> Episodes | None:
    """Tasks of at most so many ways, or None where the classes are too small."""
    ways, queries = usable(bank.counts, ways, shots)
    return Episodes(bank, ways, shots, queries) if ways else None


def spec_of(values: Tensor, ways: int) -> TaskSpec:
    return TaskSpec("classes", tuple(values.shape[1:]), ways)
