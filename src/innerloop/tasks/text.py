"""Few-shot text classification: CLINC150, and users' own texts."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import Count, CountOrZero, Range
from innerloop.readers.base import Reader
from innerloop.readers.files import some
from innerloop.readers.text import UNKNOWN, TextReader, Texts, read_texts
from innerloop.tasks.download import fetch
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.tasks.folder import group_by_label
from innerloop.tasks.splits import (
    SPLITS,
    class_indices,
    split_indices,
    split_sizes,
    task_source,
)

# of CLINC150, by split; banking and credit cards, which are similar, are in one split
DOMAINS = {
    "train": ("home", "kitchen_and_dining", "meta", "small_talk", "utility", "work"),
    "val": ("auto_and_commute",),
    "test": ("banking", "credit_cards", "travel"),
}
_URL = "https://raw.githubusercontent.com/clinc/oos-eval/master/data/"
_SHA256 = {
    "data_full.json": (
        "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0"
    ),
    "domains.json": "b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a",
}


@lru_cache(maxsize=1)
def requests() -> dict[str, dict[str, list[str]]]:
    """CLINC150: domain to intent to its 150 requests, all in order of name, without the
    requests that are out of scope.
    """
    full, domains = (
        json.loads(
            fetch("clinc150", name, _URL + name, checksum).read_text(encoding="utf-8")
        )
        for name, checksum in _SHA256.items()
    )
    texts: dict[str, list[str]] = defaultdict(list)
    # the data's own parts split requests, not intents
    for split in ("train", "val", "test"):
        for text, intent in full[split]:
            texts[intent].append(text)
    return {
        domain: {intent: texts[intent] for intent in sorted(domains[domain])}
        for domain in sorted(domains)
    }


@lru_cache(maxsize=2)
def _fitted(texts: tuple[str, ...], length: int | None) -> TextReader:
    return TextReader.fitted(texts, length=length)


def _reader(
    reader: Reader | None, length: int | None, texts: Iterable[str], **columns: str
) -> Texts:
    """The reader of an earlier run, if it fits, or one fitted to the texts, for a table
    with these columns.
    """
    if reader is None:
        return _fitted(tuple(texts), length).with_columns(**columns)
    if not isinstance(reader, Texts):
        raise InnerloopTypeError(
            f"these are texts, and the reader reads {reader.what}s"
        )
    reader.check_length(length)
    return reader.with_columns(**columns)


@task_source
def clinc(
    split: str = "train",
    *,
    ways: Annotated[int, Range(2)] = 5,
    shots: Count = 1,
    queries: Count = 15,
    groups: CountOrZero = 0,
    length: Count | None = None,
    reader: Reader | None = None,
) -> Episodes:
    """CLINC150: intents of short requests to an assistant, as tokens.

    10 domains of 15 intents of 150 requests each. Six domains are for training, auto
    and commute for validation, and banking, credit cards and travel for testing. No
    domain, and no request, is in two splits.

    Reference: Larson, Mahendran, Peper, Clarke, Lee, Hill, Kummerfeld, Leach,
    Laurenzano, Tang and Mars 2019, "An evaluation dataset for intent classification and
    out-of-scope prediction", arXiv:1909.02027.

    Args:
        ways: intents in a task.
        shots: support requests of each intent.
        queries: query requests of each intent.
        groups: number of domains that the intents of a task come from; 0: any.
        length: tokens of a request, longer ones are cut; by default chosen from the
            training requests (24).
        reader: the reader of an earlier run; by default one is fitted to the training
            requests.
    """
    found = requests()
    fitted = _reader(reader, length, _training_requests())
    chosen = {
        intent: (texts, group)
        for group, domain in enumerate(DOMAINS[split])
        for intent, texts in found[domain].items()
    }
    x, cut = fitted.encode([text for texts, _ in chosen.values() for text in texts])
    bank = ClassBank.of(
        x,
        [len(texts) for texts, _ in chosen.values()],
        list(chosen),
        [group for _, group in chosen.values()],
        fitted,
        f"{split} intents of CLINC150",
        fitted.cut_note(cut, len(x)) if cut else "",
    )
    return Episodes(bank, ways, shots, queries, groups)


def _training_requests() -> list[str]:
    found = requests()
    return [
        text
        for domain in DOMAINS["train"]
        for texts in found[domain].values()
        for text in texts
    ]


@task_source
def text(
    split: str = "train",
    *,
    file: Path | str,
    text_column: str = "text",
    label_column: str = "label",
    ways: Annotated[int, Range(2)] = 5,
    shots: Count = 1,
    queries: Count = 15,
    length: Count | None = None,
    all_classes: bool = False,
    reader: Reader | None = None,
) -> Episodes:
    """Texts: your own labeled texts.

    table     columns of texts and labels: .csv, .tsv, .xlsx, .parquet, .json, .jsonl
    folder    FILE/CLASS/text.txt, one text in each file
    archive   .zip, .tar or .tar.gz of one table or of class folders

    64, 16 and 20 % of the labels are for training, validation and testing; the
    assignment depends only on their names. A text that is repeated within a label is
    used once. A text that is in two splits is used in the later one only, so that no
    test text is used for training.

    Args:
        file: the table, the folder or the archive.
        text_column: column of the texts in a table.
        label_column: column of the labels in a table.
        ways: classes in a task.
        shots: support texts of each class.
        queries: query texts of each class.
        length: tokens of a text, longer ones are cut; by default one and a half times
            the 95th percentile of the training texts, from 8 to 128. Only for readers
            of tokens.
        all_classes: use all classes in every split, to adapt to other classes later;
            validation and test then do not measure the learning of new classes.
        reader: the reader of an earlier run; by default one is fitted to the training
            texts.
    """
    found = read_texts(file, text_column, label_column, labels=True)
    texts, labels, notes = found.texts, found.labels, list(found.notes)
    assert labels is not None
    notes += [f"left out: {some(found.unreadable)}"] if found.unreadable else []
    names = sorted(set(labels))
    parts = ("train",) if all_classes else tuple(SPLITS)
    split_of = dict.fromkeys(names, "train") | {
        names[i]: part for part in parts for i in split_indices(names, part)
    }
    kept, repeated, shared = _distinct(
        texts, [split_of[label] for label in labels], labels
    )
    if repeated:
        notes.append(f"{repeated:,} texts that repeat within their label are used once")
    if shared:
        notes.append(
            f"{shared:,} texts that stand in two splits are used in the later one"
        )
    texts, labels = [texts[i] for i in kept], [labels[i] for i in kept]
    fitted = _reader(
        reader,
        length,
        (
            t
            for t, label in zip(texts, labels, strict=True)
            if split_of[label] == "train"
        ),
        text_column=text_column,
        label_column=label_column,
    )
    x, cut = fitted.encode(texts)
    notes += [fitted.cut_note(cut, len(x))] if cut else []
    names, order, counts = group_by_label(labels)
    source = Path(file).name
    title = f"{split} classes of {source}"
    title += "" if all_classes else f" ({split_sizes(names)})"
    bank = ClassBank.of(
        x[order], counts, names, reader=fitted, title=title, note="; ".join(notes)
    )
    chosen = class_indices(names, split, all_classes, source)
    return Episodes(bank.pick(chosen), ways, shots, queries)


def _distinct(
    texts: list[str], splits: list[str], labels: list[str]
) -> tuple[list[int], int, int]:
    """The places of the texts to use, how many are left out because their label has
    them already, and how many because a later split has them. Case and spaces do not
    count.
    """
    keys = [" ".join(text.casefold().split()) for text in texts]
    last: dict[str, str] = {}
    for part in SPLITS:  # a later split overwrites
        last |= {k: part for k, own in zip(keys, splits, strict=True) if own == part}
    kept, seen, repeated, shared = [], set(), 0, 0
    for i, (key, own, label) in enumerate(zip(keys, splits, labels, strict=True)):
        if (key, label) in seen:
            repeated += 1
        elif last[key] != own:
            shared += 1
        else:
            kept.append(i)
        seen.add((key, label))
    return kept, repeated, shared


class Cloze(TaskDistribution):
    """Texts in which one token is hidden and reads as unknown: which one is it? Every
    token is a class, and labels are the same in all tasks.

    Args:
        values: token numbers of the texts (n, length).
        reader: what made them.
        size: texts in a task: x (n, size, length), y (n, size, vocabulary); support and
            query are the same. None: only `for_supervised` can be sampled.
        note: how the texts were read, where that is not obvious.
    """

    prefetch = True

    def __init__(
        self,
        values: Tensor,
        reader: TextReader,
        size: int | None = None,
        note: str = "",
    ):
        self.note = note
        self.values, self.reader, self.size = values[values[:, 0] > 0], reader, size
        self.spec = TaskSpec(
            "classes",
            (reader.length,),
            reader.vocabulary,
            vocabulary=reader.vocabulary,
        )

    def describe(self) -> str:
        return f"{len(self.values):,} texts with one token hidden"

    def for_supervised(self, batch: int) -> Cloze:
        return Cloze(self.values, self.reader, batch, self.note)

    def item_keys(self) -> frozenset[str]:
        return frozenset(
            hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in self.values
        )

    def sample(self, n: int, generator: torch.Generator) -> Task:
        if self.size is None:
            raise InnerloopError(
                "the labels of cloze are the same in all tasks, and this learner "
                "learns new ones in every task: use one that trains on all classes at "
                "once, such as finetune or centrelossnet"
            )
        # (n, size, length)
        x = self.values[
            torch.randint(len(self.values), (n, self.size), generator=generator)
        ]
        place = (
            torch.rand(n, self.size, 1, generator=generator)
            * (x > 0).sum(-1, keepdim=True)
        ).long()
        tokens = x.gather(-1, place)[..., 0].long()
        y = F.one_hot(tokens, self.reader.vocabulary).float()
        examples = Examples(x.scatter(-1, place, UNKNOWN), y)
        return Task(examples, examples)


@task_source
def cloze(
    split: str = "train",
    *,
    file: Path | str | None = None,
    text_column: str = "text",
    length: Count | None = None,
    reader: Reader | None = None,
) -> Cloze:
    """Cloze: texts with one masked token, to pretrain an encoder.

    The texts are the requests of CLINC150's training domains, or a column of a file.
    There is a training split only: test the features on `clinc` or `text`.

    Reference: Taylor 1953, "Cloze procedure: a new tool for measuring readability",
    Journalism Quarterly 30.

    With networks: Devlin, Chang, Lee and Toutanova 2019, "BERT: pre-training of deep
    bidirectional transformers for language understanding", arXiv:1810.04805, section
    3.1.

    Args:
        file: a file with a header, as for `text`, instead of CLINC150.
        text_column: the column of the texts.
        length: tokens of a text, longer ones are cut; by default chosen from the texts.
        reader: the reader of an earlier run; by default one is fitted to these texts.
    """
    if split != "train":
        raise InnerloopError(
            f"cloze has only the split train, got {split!r}: test features on clinc or "
            "text"
        )
    notes: list[str] = []
    if file is None:
        texts = _training_requests()
    else:
        found = read_texts(file, text_column, "label", labels=False)
        texts, left_out = found.texts, found.unreadable
        notes += found.notes
        notes += [f"left out: {some(left_out)}"] if left_out else []
    fitted = _reader(reader, length, texts, text_column=text_column)
    if not isinstance(fitted, TextReader):
        raise InnerloopTypeError(
            "cloze hides tokens, which need a token reader; got the reader "
            f"{fitted.kind!r}: train on the tasks clinc or text"
        )
    x, cut = fitted.encode(texts)
    notes += [fitted.cut_note(cut, len(x))] if cut else []
    return Cloze(x, fitted, note="; ".join(notes))
