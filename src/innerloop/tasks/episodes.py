"""Few-shot episodes from a bank of classes: the sampler behind every classification
data set.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.augmentation import Warp
from innerloop.engine.errors import InnerloopError
from innerloop.readers.base import Reader
from innerloop.readers.image import to_unit
from innerloop.tasks.pictures import as_html, episode_picture


@dataclass(frozen=True)
class ClassBank:
    """Classes and their examples, held once in memory.

    Args:
        values: every example (N, *x_shape), bytes for images.
        starts, counts: the position of the first example of a class in `values`, and
            the number of its examples; each (C,).
        groups: the number of the group that a class belongs to, such as its alphabet
            (C,).
        turns: quarter turns that are applied to the images of a class (C,); from 4 on,
            of their mirror images.
        names: what the classes are called.
        reader: what made the examples from files, texts or rows, or None.
        title: what the data are, in words, such as "Omniglot".
        note: what was left out when the data were read, or "".
    """

    values: Tensor
    starts: Tensor
    counts: Tensor
    groups: Tensor
    turns: Tensor
    names: tuple[str, ...]
    reader: Reader | None = None
    title: str = "the data"
    note: str = ""

    @classmethod
    def of(
        cls,
        values: Tensor,
        counts: list[int],
        names: list[str],
        groups: list[int] | None = None,
        reader: Reader | None = None,
        title: str = "the data",
        note: str = "",
    ) -> ClassBank:
        """A bank from examples that lie class by class."""
        sizes = torch.tensor(counts, dtype=torch.long)
        groups = groups or [0] * len(counts)
        return cls(
            values,
            sizes.cumsum(0) - sizes,
            sizes,
            torch.tensor(groups, dtype=torch.long),
            torch.zeros_like(sizes),
            tuple(names),
            reader,
            title,
            note,
        )

    def spec(self, ways: int) -> TaskSpec:
        """The shape of tasks with this number of classes."""
        vocabulary = self.reader.vocabulary if self.reader is not None else 0
        return TaskSpec(
            "classes", tuple(self.values.shape[1:]), ways, vocabulary=vocabulary
        )

    @property
    def has_images(self) -> bool:
        """Whether the examples are images, which can be turned and distorted."""
        return self.values.dim() == 4

    def class_keys(self) -> frozenset[str]:
        """A key of each class: a hash of its unturned examples in any order."""
        return frozenset(
            _hash(b"".join(sorted(keys))).hex() for keys in self._hashes().values()
        )

    def item_keys(self) -> frozenset[str]:
        """A key of each example: a hash of it, unturned."""
        return frozenset(key.hex() for keys in self._hashes().values() for key in keys)

    def _hashes(self) -> dict[tuple[int, int], list[bytes]]:
        """The hashes of the examples of every class, by where they lie; turned classes
        share theirs.
        """
        places = set(zip(self.starts.tolist(), self.counts.tolist(), strict=True))
        rows = self.values.flatten(1).numpy()
        return {
            (start, count): [
                _hash(row.tobytes()) for row in rows[start : start + count]
            ]
            for start, count in places
        }

    def __len__(self) -> int:
        return len(self.names)

    def pick(self, classes: list[int]) -> ClassBank:
        """The bank of some of the classes; examples are shared, not copied."""
        at = torch.tensor(classes, dtype=torch.long)
        return replace(
            self,
            starts=self.starts[at],
            counts=self.counts[at],
            groups=self.groups[at],
            turns=self.turns[at],
            names=tuple(self.names[i] for i in classes),
        )

    def augments(self, augment: bool | None, split: str) -> bool:
        """Whether images are distorted: by default those of the training split.

        Raises InnerloopError where the examples are no images and `augment` is true.
        """
        if augment and not self.has_images:
            raise InnerloopError(
                "only images can be distorted or turned; the reader gives inputs of "
                f"shape {tuple(self.values.shape[1:])}: set augment to false"
            )
        return self.has_images and split == "train" if augment is None else augment

    def turned(self) -> ClassBank:
        """Every class at four quarter turns, each turn a class of its own and each
        turned group a group of its own.
        """
        return self._variants(
            {
                f"/rot{90 * turn:03d}": self.turns // 4 * 4 + (self.turns + turn) % 4
                for turn in range(4)
            }
        )

    def mirrored(self) -> ClassBank:
        """Every class and its mirror image, each a class of its own, in groups of their
        own; for a bank that is not mirrored yet.
        """
        return self._variants({"": self.turns, "/mirrored": self.turns + 4})

    def _variants(self, turns: dict[str, Tensor]) -> ClassBank:
        """All classes once for each entry: the ending of their names, and how they are
        turned (C,).
        """
        groups = int(self.groups.max()) + 1
        return replace(
            self,
            starts=self.starts.repeat(len(turns)),
            counts=self.counts.repeat(len(turns)),
            groups=torch.cat([self.groups + i * groups for i in range(len(turns))]),
            turns=torch.cat(list(turns.values())),
            names=tuple(f"{name}{ending}" for ending in turns for name in self.names),
        )

    def fingerprint(self) -> str:
        """A hash of the class names: two runs with the same one saw the same split."""
        return _hash("\n".join(self.names).encode()).hex()[:16]


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def random_subset(
    scores_shape: tuple[int, ...],
    k: int,
    generator: torch.Generator,
    allowed: Tensor | None = None,
) -> Tensor:
    """`k` different indices along the last axis, in random order; only where `allowed`
    is true.
    """
    scores = torch.rand(scores_shape, generator=generator)
    if allowed is not None:
        scores = torch.where(allowed, scores, -1.0)
    return scores.topk(k).indices


def few_shot_settings(fixed_ways: int | None, shots: int) -> list[dict[str, Any]]:
    """The ways and shots that papers report, or those of a learner of fixed ways."""
    sizes = [(5, 1), (5, 5), (20, 1), (20, 5)]
    return [
        {"ways": ways, "shots": number}
        for ways, number in ([(fixed_ways, shots)] if fixed_ways else sizes)
    ]


class Episodes(TaskDistribution):
    """N-way K-shot classification tasks from a bank of classes.

    Labels are assigned anew in every task, support and query are disjoint, both are
    shuffled.

    Args:
        bank: the classes.
        ways: classes in a task.
        shots: support examples of each class.
        queries: query examples of each class.
        groups: 0 draws the classes from all groups. A number m draws them from m
            groups, `ways / m` of each, rounded up; where a group has fewer, a further
            one supplies the rest. With 1, only groups of at least `ways` classes are
            drawn.
        warp: a random distortion of every image, or None.

    Raises InnerloopError where the bank is too small.
    """

    prefetch = True

    def __init__(
        self,
        bank: ClassBank,
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        groups: int = 0,
        warp: Warp | None = None,
    ):
        self.bank, self.ways, self.shots, self.queries = bank, ways, shots, queries
        self.groups, self.warp = groups, warp
        self.reader, self.note = bank.reader, bank.note
        if min(ways, shots, queries) < 1 or groups < 0:
            raise InnerloopError(
                "ways, shots and queries must be at least 1 and groups at least 0; got "
                f"{ways}, {shots}, {queries} and {groups}"
            )
        needed = shots + queries
        enough = [i for i, count in enumerate(bank.counts.tolist()) if count >= needed]
        if len(enough) < ways:
            largest = int(bank.counts.max()) if len(bank) else 0
            raise InnerloopError(
                f"{ways}-way tasks with {shots} + {queries} examples per class need "
                f"{ways} classes of at least {needed} examples; {len(enough)} of "
                f"{len(bank)} classes have that many (the largest has {largest}): "
                "lower ways, shots or queries"
            )
        self.left_out = len(bank) - len(enough)  # classes with too few examples
        if self.left_out:
            self.bank = bank.pick(enough)
        self._even = bool((self.bank.counts == self.bank.counts[0]).all())
        self._turned = bool(self.bank.turns.any())
        sizes = torch.bincount(self.bank.groups)
        self._per_group = -(-ways // groups) if groups else 0
        self._drawable = sizes >= ways if groups == 1 else sizes > 0  # (groups,)
        if not self._drawable.any():
            raise InnerloopError(
                f"tasks within one group need a group of {ways} classes; the largest "
                f"has {int(sizes.max())}: lower ways, or use groups=0"
            )
        self.spec = bank.spec(ways)

    def describe(self) -> str:
        shape = f"{self.ways}-way {self.shots}-shot tasks with {self.queries} queries"
        text = f"{shape} per class from {len(self.bank)} classes of {self.bank.title}"
        if self.left_out:
            fewer = self.shots + self.queries
            text += f"; {self.left_out} classes with fewer than {fewer} examples unused"
        return text

    def sample(self, n: int, generator: torch.Generator) -> Task:
        classes = self._draw_classes(n, generator)  # (n, ways)
        per_class, most = self.shots + self.queries, int(self.bank.counts.max())
        # (n, ways, most)
        allowed = (
            None
            if self._even
            else torch.arange(most) < self.bank.counts[classes][..., None]
        )
        drawn = random_subset((n, self.ways, most), per_class, generator, allowed)
        # (n, ways * per_class)
        rows = (self.bank.starts[classes][..., None] + drawn).flatten(1)
        sizes = self.ways * self.shots, self.ways * self.queries
        # support, then query, each shuffled
        orders = [random_subset((n, size), size, generator) for size in sizes]
        # (n, ways * per_class)
        labels = torch.cat(
            [
                order // k
                for order, k in zip(orders, (self.shots, self.queries), strict=True)
            ],
            1,
        )
        within = torch.cat(
            [orders[0] % self.shots, orders[1] % self.queries + self.shots], 1
        )
        x = self.examples(
            rows.gather(1, labels * per_class + within),
            self.bank.turns[classes].gather(1, labels),
            generator,
        )
        y = torch.eye(self.ways)[labels]
        return Task(*map(Examples, x.split(sizes, 1), y.split(sizes, 1)))

    def _draw_classes(self, n: int, generator: torch.Generator) -> Tensor:
        if not self.groups:
            return random_subset((n, len(self.bank)), self.ways, generator)
        groups = self.bank.groups
        # (n, groups) by which the groups are ordered
        score = (
            torch.rand(n, len(self._drawable), generator=generator)
            + (~self._drawable) * 2.0
        )
        # (n, C) rank of a class's group
        rank = score.argsort(-1).argsort(-1)[:, groups]
        within = torch.rand(n, len(groups), generator=generator)
        # (n, C) classes, group by group, shuffled inside a group
        order = (rank + within).argsort(-1)
        rank = rank.gather(1, order)
        first = torch.searchsorted(rank, rank)  # (n, C) where a class's group begins
        # (n, C) more than a group's share
        surplus = torch.arange(len(groups)) - first >= self._per_group
        chosen = (
            (surplus.long() * len(groups) + torch.arange(len(groups)))
            .topk(self.ways, largest=False)
            .indices
        )
        return order.gather(1, chosen).gather(
            1, random_subset((n, self.ways), self.ways, generator)
        )

    def examples(
        self, rows: Tensor, turns: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Examples by their index in the bank (n, m), as floats, turned (n, m) and
        distorted: (n, m, *x_shape).
        """
        x = to_unit(self.bank.values.index_select(0, rows.flatten()))
        if self._turned:
            turns = turns.flatten()
            for turn in range(1, 8):
                at = (turns == turn).nonzero()[:, 0]
                x[at] = torch.rot90(x[at].flip(3) if turn >= 4 else x[at], turn, (2, 3))
        if self.warp:
            x = self.warp(x, generator)
        return x.view(*rows.shape, *x.shape[1:])

    def examples_of(
        self, classes: Tensor, which: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The `which`-th (n, k) examples of classes (n,): (n, k, *x_shape)."""
        rows = self.bank.starts[classes][:, None] + which
        turns = self.bank.turns[classes][:, None].expand_as(rows)
        return self.examples(rows, turns, generator)

    def with_ways(self, ways: int) -> Episodes:
        """The same episodes with another number of classes."""
        return self.reshaped(ways, self.shots, self.queries)

    def reshaped(self, ways: int, shots: int, queries: int) -> Episodes:
        """Episodes of another size from the same classes."""
        return Episodes(
            self.bank, ways, shots, queries, min(self.groups, ways), self.warp
        )

    def feasible(self, preferred: dict[str, int]) -> dict[str, int]:
        """The preferred sizes, or fewer queries, then fewer ways, where the classes do
        not suffice. `groups` is left out where the classes have no groups.

        Raises InnerloopError where not even two ways and one query are possible.
        """
        ways, shots = (
            preferred.get("ways", self.ways),
            preferred.get("shots", self.shots),
        )
        queries = preferred.get("queries", self.queries)
        groups = preferred.get("groups", self.groups)
        bank = self.bank
        usable = bank.counts > shots
        if groups == 1 and usable.any():
            usable &= bank.groups == torch.bincount(bank.groups[usable]).argmax()
        counts = bank.counts[usable].sort(descending=True).values
        ways = max(2, min(ways, len(counts)))
        most = int(counts[ways - 1]) - shots if len(counts) >= ways else 1
        number = len(bank.groups.unique())
        groups = min(groups, ways, number)
        found = Episodes(bank, ways, shots, min(queries, most), groups)
        sizes = {"ways": found.ways, "shots": found.shots, "queries": found.queries}
        if "groups" in preferred and number > 1:
            sizes["groups"] = groups
        return sizes

    def test_settings(self, fixed_ways: int | None) -> list[dict[str, Any]]:
        return few_shot_settings(fixed_ways, self.shots)

    def for_supervised(self, batch: int) -> SupervisedExamples:
        return SupervisedExamples(self, batch)

    def class_keys(self) -> frozenset[str]:
        return self.bank.class_keys()

    def class_names(self) -> tuple[str, ...]:
        return self.bank.names

    def item_keys(self) -> frozenset[str]:
        return self.bank.item_keys()

    def show(self, seed: int = 0) -> Image.Image:
        """A picture of one task of images: a row for each class, with its support
        examples and, after a gap, its query examples.

        Raises InnerloopError for tasks without images.
        """
        return episode_picture(self, seed)

    def _repr_html_(self) -> str:
        return as_html(self, self.show() if self.spec.is_image else None)


class SupervisedExamples(TaskDistribution):
    """Ordinary supervised learning as tasks: random examples of all classes, whose
    labels never change.

    Support and query are the same examples; `spec.y_dim` is the number of classes in
    the bank.

    Args:
        episodes: the classes.
        size: examples of a task.
    """

    prefetch = True

    def __init__(self, episodes: Episodes, size: int):
        self.episodes, self.size, self.reader = episodes, size, episodes.reader
        self.spec = episodes.bank.spec(len(episodes.bank))

    def describe(self) -> str:
        bank = self.episodes.bank
        return f"{len(bank)} classes of {bank.title} at once, {self.size} examples each"

    def sample(self, n: int, generator: torch.Generator) -> Task:
        bank = self.episodes.bank
        classes = torch.randint(len(bank), (n, self.size), generator=generator)
        drawn = (
            torch.rand(n, self.size, generator=generator) * bank.counts[classes]
        ).long()
        x = self.episodes.examples(
            bank.starts[classes] + drawn, bank.turns[classes], generator
        )
        examples = Examples(x, F.one_hot(classes, len(bank)).float())
        return Task(examples, examples)

    def for_supervised(self, batch: int) -> SupervisedExamples:
        return SupervisedExamples(self.episodes, batch)

    def class_keys(self) -> frozenset[str]:
        return self.episodes.class_keys()

    def item_keys(self) -> frozenset[str]:
        return self.episodes.item_keys()
