"""Texts and their intents: CLINC150, and a file of one's own."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.readers.text import UNKNOWN, Tokenizer
from innerloop.tasks.download import fetch
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.tasks.folder import group_by_label
from innerloop.tasks.splits import check_split, split_indices

LENGTH = 24  # tokens of a text
# of CLINC150, by split; banking and credit cards, which are near to each other, are both
# unseen
DOMAINS = {
    "train": ("home", "kitchen_and_dining", "meta", "small_talk", "utility", "work"),
    "val": ("auto_and_commute",),
    "test": ("banking", "credit_cards", "travel"),
}
_URL = "https://raw.githubusercontent.com/clinc/oos-eval/master/data/"
_MD5 = {
    "data_full.json": "30c29dc6ab78edf3b5dfa640be204cde",
    "domains.json": "9beee9d0f36e07e914c1e3a626bdcb4a",
}


@lru_cache(maxsize=1)
def requests() -> dict[str, dict[str, list[str]]]:
    """CLINC150: domain to intent to its 150 requests, all in order of name; the
    requests out of scope are left out.
    """
    full, domains = (
        json.loads(
            fetch("clinc150", name, _URL + name, md5).read_text(encoding="utf-8")
        )
        for name, md5 in _MD5.items()
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
def _read(texts: tuple[str, ...], length: int) -> Tokenizer:
    return Tokenizer.trained(texts, length=length)


def _tokenizer(
    reader: Tokenizer | None, length: int | None, texts: Iterable[str]
) -> Tokenizer:
    """The one that is given, if it fits, or else one trained on texts."""
    if reader is None:
        return _read(tuple(texts), length or LENGTH)
    if not isinstance(reader, Tokenizer):
        raise InnerloopError(
            "these are texts, and the network that they are for reads something else"
        )
    if length not in (None, reader.length):
        raise InnerloopError(
            f"the network reads {reader.length} tokens of a text, not {length}"
        )
    return reader


def clinc(
    split: str = "train",
    *,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    groups: int = 0,
    length: int | None = None,
    reader: Tokenizer | None = None,
) -> Episodes:
    """Intents of short requests to an assistant, as tokens; no domain is in two parts.
    groups: how many domains a task's intents come from.

    Larson et al. 2019, "An evaluation dataset for intent classification and
    out-of-scope prediction", arXiv:1909.02027
    10 domains of 15 intents of 150 requests: six domains train, auto and commute
    validates, banking, credit cards and travel test. length: tokens of a request (24);
    what is longer is cut. reader: the tokeniser; if none is given, one is trained on
    the training split.
    Raises ValueError for a reader of something else, or of another length.
    """
    check_split(split)
    found = requests()
    tokenizer = _tokenizer(
        reader,
        length,
        (
            text
            for domain in DOMAINS["train"]
            for some in found[domain].values()
            for text in some
        ),
    )
    chosen = {
        intent: (some, group)
        for group, domain in enumerate(DOMAINS[split])
        for intent, some in found[domain].items()
    }
    values = tokenizer.read_all([text for some, _ in chosen.values() for text in some])
    bank = ClassBank.of(
        values,
        [len(some) for some, _ in chosen.values()],
        list(chosen),
        [group for _, group in chosen.values()],
        tokenizer,
    )
    return Episodes(bank, ways, shots, queries, groups)


def read_texts(file: Path | str, label: bool = True) -> tuple[list[str], list[str]]:
    """Texts and their labels, from the columns `text` and `label` of a .csv with a
    header; without `label` the texts alone.

    Raises FileNotFoundError for a missing file and ValueError for one without these
    columns, or with an empty text.
    """
    file, wanted = Path(file), {"text", "label"} if label else {"text"}
    if not file.is_file():
        raise InnerloopFileError(f"there is no file {file}")
    with file.open(newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.DictReader(opened))
    if not rows or not wanted <= set(rows[0]):
        raise InnerloopError(
            f"{file} needs a header with the column{'s text and label' if label else ' text'}, and rows"
        )
    texts, labels = (
        [row["text"] or "" for row in rows],
        [row.get("label") or "" for row in rows],
    )
    for number, (text, name) in enumerate(zip(texts, labels, strict=True), 2):
        if not text.strip() or (label and not name.strip()):
            raise InnerloopError(
                f"{file} has an empty text{' or label' if label else ''} in line {number}"
            )
    return texts, labels


def text(
    split: str = "train",
    *,
    file: Path | str,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    length: int | None = None,
    reader: Tokenizer | None = None,
) -> Episodes:
    """Texts of one's own, as tokens: a .csv with the columns text and label. 64, 16 and
    20 % of the labels, fixed by name, train, validate and test.

    length: tokens of a text (24); what is longer is cut. reader: the tokeniser; if none
    is given, one is trained on the training split. Raises ValueError for a reader of
    something else, or of another length.
    """
    texts, labels = read_texts(file)
    names, order, counts = group_by_label(labels)
    training = {names[i] for i in split_indices(names, "train")}
    tokenizer = _tokenizer(
        reader,
        length,
        (text for text, label in zip(texts, labels, strict=True) if label in training),
    )
    bank = ClassBank.of(
        tokenizer.read_all(texts)[order], counts, names, reader=tokenizer
    )
    return Episodes(bank.pick(split_indices(names, split)), ways, shots, queries)


class Cloze(TaskDistribution):
    """Texts of which a token is missing, and reads as unknown: which is it? Every token
    is a class, and labels never change.

    `size` texts x (n, size, length) and the tokens y (n, size, tokens); support and
    query are the same.
    """

    prefetch = True

    def __init__(self, values: Tensor, reader: Tokenizer, size: int = 64):
        self.values, self.reader, self.size = values[values[:, 0] > 0], reader, size
        self.spec = TaskSpec(
            "classes", (reader.length,), reader.size, vocabulary=reader.size
        )

    def labelled(self, size: int = 64) -> Cloze:
        """The same with `size` texts, for learners trained on all classes at once."""
        return Cloze(self.values, self.reader, size)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        # (n, size, length)
        x = self.values[
            torch.randint(len(self.values), (n, self.size), generator=generator)
        ]
        place = (
            torch.rand(n, self.size, 1, generator=generator)
            * (x > 0).sum(-1, keepdim=True)
        ).long()
        y = F.one_hot(x.gather(-1, place)[..., 0].long(), self.reader.size).float()
        examples = Examples(x.scatter(-1, place, UNKNOWN), y)
        return Task(examples, examples)


def cloze(
    split: str = "train",
    *,
    file: Path | str | None = None,
    length: int | None = None,
    reader: Tokenizer | None = None,
) -> Cloze:
    """Texts with a gap, to learn features of texts without labels: those of CLINC150's
    training domains, or the column text of a .csv.

    Taylor 1953, "Cloze procedure: a new tool for measuring readability"; for networks:
    Devlin et al. 2019, arXiv:1810.04805, section 3.1 length: tokens of a text (24);
    what is longer is cut. reader: the tokeniser; if none is given, one is trained on
    these texts.
    Raises ValueError for another split than "train": what such features are worth, other
    tasks tell.
    """
    check_split(split)
    if split != "train":
        raise InnerloopError(
            "texts with a gap are to learn features from, and have no other split than train: test what they are worth on clinc or text"
        )
    texts = (
        read_texts(file, label=False)[0]
        if file
        else [
            text
            for name in DOMAINS["train"]
            for some in requests()[name].values()
            for text in some
        ]
    )
    tokenizer = _tokenizer(reader, length, texts)
    return Cloze(tokenizer.read_all(texts), tokenizer)
