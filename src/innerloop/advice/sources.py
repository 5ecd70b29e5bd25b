"""Known tasks that are like a user's, as far as their data are on this machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from innerloop.encoders.frozen import stored_only
from innerloop.engine.errors import InnerloopError
from innerloop.readers.base import Reader
from innerloop.readers.encoded import EncodedImages, EncodedTexts
from innerloop.readers.image import to_unit
from innerloop.readers.text import Texts
from innerloop.registry import find
from innerloop.tasks.download import offline
from innerloop.tasks.episodes import ClassBank, Episodes

KNOWN = {
    "image": ("cifar-fs", "fc100", "emoji", "omniglot"),
    "text": ("clinc",),
}
CLASSES, ITEMS = 20, 10  # of a source that are compared
SINKHORN = 200  # steps
SMOOTHING = 0.02  # of the mean cost


class Source(NamedTuple):
    """A known task source.

    Args:
        name: its name.
        bank: vectors of all its training classes, or of a sample.
        complete: whether they are all.
    """

    name: str
    bank: ClassBank
    complete: bool


def known_sources(reader: Reader | None, seed: int) -> Iterator[Source | str]:
    """The sources for what a pretrained encoder reads: those whose data are on this
    machine, and for others why they are not. Nothing is downloaded.

    Vectors that were stored earlier are all used; else a sample is embedded.
    """
    if not isinstance(reader, EncodedImages | EncodedTexts):
        return
    for name in KNOWN[reader.what]:
        try:
            with offline():
                yield _source(name, _plain(reader), seed)
        except (InnerloopError, OSError) as error:
            yield f"{name} is not compared: {str(error).split(':')[0]:.120}"


def _plain(reader: Reader) -> Any:
    """The reader's encoder, with the usual columns and sizes."""
    cls = type(reader)
    return cls(encoder=reader.encoder, weights=reader.weights)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]


def _source(name: str, reader: Any, seed: int) -> Source:
    make = find("tasks", name).factory
    smallest = {"ways": 2, "shots": 1, "queries": 1}
    try:
        with stored_only():
            whole: Episodes = make("train", reader=reader, **smallest)
        return Source(name, whole.bank, True)
    except InnerloopError:
        pass
    if isinstance(reader, EncodedTexts):
        noted = _Noted(reader.text_column, reader.label_column)
        part = sample(make("train", reader=noted, **smallest).bank, seed)
        texts = [noted.texts[int(i)] for i in part.values[:, 0]]
        values = reader.encode(texts)[0]
    else:
        part = sample(make("train", augment=False, **smallest).bank, seed)
        images = (to_unit(part.values) * 255).round().to(torch.uint8)
        values = reader.convert(images.expand(-1, 3, -1, -1))
    return Source(name, replace(part, values=values, reader=reader), False)


@dataclass(frozen=True)
class _Noted(Texts):
    """A reader that keeps texts, and returns their places."""

    text_column: str = "text"
    label_column: str = "label"

    texts: list[str] = field(default_factory=list)

    def encode(self, texts: Any) -> tuple[Tensor, int]:
        begin = len(self.texts)
        self.texts.extend(texts)
        return torch.arange(begin, len(self.texts), dtype=torch.float64)[:, None], 0

    def cut_note(self, cut: int, of: int) -> str:
        return ""


def sample(
    bank: ClassBank, seed: int, classes: int = CLASSES, items: int = ITEMS
) -> ClassBank:
    """A bank of random classes and some random items of each."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(bank), generator=generator)[:classes].tolist()
    rows, counts = [], []
    for c in chosen:
        count = int(bank.counts[c])
        some = torch.randperm(count, generator=generator)[:items]
        rows.append(int(bank.starts[c]) + some)
        counts.append(len(some))
    return ClassBank.of(
        bank.values[torch.cat(rows)],
        counts,
        [bank.names[c] for c in chosen],
        reader=bank.reader,
        title=bank.title,
    )


def distance(first: ClassBank, second: ClassBank) -> float:
    """The optimal transport distance of two data sets of unit vectors, by their classes
    as Gaussians with one variance in all directions.

    The cost of a pair of classes is the squared Wasserstein distance
    |m - m'|^2 + (s - s')^2 of their Gaussians, m the mean and s the square root of the
    total variance; classes have equal weights, and items do not move one by one.

    Reference: Alvarez-Melis and Fusi 2020, "Geometric dataset distances via optimal
    transport", arXiv:2002.02923, section 4.
    """
    (m, s), (other_m, other_s) = _gaussians(first), _gaussians(second)
    cost = torch.cdist(m, other_m).square() + (s[:, None] - other_s).square()
    kernel = -cost / (SMOOTHING * cost.mean().clamp_min(1e-12))
    a = -math.log(len(m)) * torch.ones(len(m), dtype=m.dtype)
    b = -math.log(len(other_m)) * torch.ones(len(other_m), dtype=m.dtype)
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    for _ in range(SINKHORN):
        f = a - (kernel + g).logsumexp(1)
        g = b - (kernel + f[:, None]).logsumexp(0)
    plan = (f[:, None] + kernel + g).exp()
    return float((plan * cost).sum().clamp_min(0).sqrt())


def _gaussians(bank: ClassBank) -> tuple[Tensor, Tensor]:
    """The mean (C, d) and the deviation (C,) of the unit vectors of every class."""
    means, deviations = [], []
    for start, count in zip(bank.starts.tolist(), bank.counts.tolist(), strict=True):
        z = bank.values[start : start + count].flatten(1).double()
        z = torch.nn.functional.normalize(z, dim=-1)
        mean = z.mean(0)
        total = (z - mean).square().sum() / max(count - 1, 1)
        means.append(mean)
        deviations.append(total.sqrt())
    return torch.stack(means), torch.stack(deviations)
