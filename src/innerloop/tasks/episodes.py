"""Few-shot episodes from a bank of classes: the sampler behind every classification
data set.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.readers.image import to_unit
from innerloop.readers.table import Columns
from innerloop.readers.text import Tokenizer


@dataclass(frozen=True)
class ClassBank:
    """Classes and their examples, held once in memory.

    values: every example (N, *x_shape), bytes for images. starts, counts: where the
    examples of a class lie in it, each (C,).
    groups: the group a class belongs to, an alphabet, say (C,). turns: quarter turns
    applied to the class's images (C,), from 4 on to their mirror images.
    names: what the classes are called. reader: of texts or of a table, what made the
    examples of them.
    """

    values: Tensor
    starts: Tensor
    counts: Tensor
    groups: Tensor
    turns: Tensor
    names: tuple[str, ...]
    reader: Tokenizer | Columns | None = None

    @classmethod
    def of(
        cls,
        values: Tensor,
        counts: list[int],
        names: list[str],
        groups: list[int] | None = None,
        reader: Tokenizer | Columns | None = None,
    ) -> ClassBank:
        """A bank from examples that lie class by class."""
        sizes = torch.tensor(counts)
        groups = groups or [0] * len(counts)
        return cls(
            values,
            sizes.cumsum(0) - sizes,
            sizes,
            torch.tensor(groups),
            torch.zeros_like(sizes),
            tuple(names),
            reader,
        )

    def spec(self, ways: int) -> TaskSpec:
        """The shape of tasks with so many classes."""
        return TaskSpec(
            "classes",
            tuple(self.values.shape[1:]),
            ways,
            vocabulary=self.reader.size if isinstance(self.reader, Tokenizer) else 0,
        )

    def __len__(self) -> int:
        return len(self.names)

    def pick(self, classes: list[int]) -> ClassBank:
        """The bank of some of the classes; the examples themselves are shared, not
        copied.
        """
        at = torch.tensor(classes, dtype=torch.long)
        return replace(
            self,
            starts=self.starts[at],
            counts=self.counts[at],
            groups=self.groups[at],
            turns=self.turns[at],
            names=tuple(self.names[i] for i in classes),
        )

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
        """All classes as often as there are entries: the ending of their names, and how
        they are turned (C,).
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
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Warp:
    """A small random map of an image, every value drawn from +-its field.

    Affine: rotation in degrees, scale, shear and shift as fractions. elastic: how far
    each of 4x4 control points moves beside, with the image between them following
    smoothly, as a fraction of half the image (Simard, Steinkraus and Platt 2003, "Best
    practices for convolutional neural networks applied to visual document analysis",
    section 2).
    """

    degrees: float = 7.0
    scale: float = 0.1
    shear: float = 0.1
    shift: float = 0.06
    elastic: float = 0.1

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Warped images, each by a map of its own; (n, channels, height, width) in and
        out.
        """
        u = torch.rand(len(images), 39, generator=generator).mul_(2).sub_(1)
        angle, shear = u[:, 0] * math.radians(self.degrees), u[:, 1:3] * self.shear
        scale, shift = 1 + u[:, 3:5] * self.scale, u[:, 5:7] * self.shift * 2
        rotation = torch.stack(
            [angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1
        ).view(-1, 2, 2)
        skew = torch.diag_embed(scale)
        skew[:, 0, 1], skew[:, 1, 0] = shear[:, 0], shear[:, 1]
        bend = u[:, 7:].view(-1, 2, 16) * self.elastic
        maps = torch.cat([rotation @ skew, shift[:, :, None], bend], -1)  # (n, 2, 19)
        places = _fields(*images.shape[2:]) @ maps.mT  # (n, height * width, 2)
        return F.grid_sample(
            images, places.view(-1, *images.shape[2:], 2), align_corners=False
        )


@lru_cache(maxsize=8)
def _fields(height: int, width: int) -> Tensor:
    """What a map of the pixels is a sum of (height * width, 19): x, y and 1, then one
    bicubic bump for each of 4x4 control points.
    """
    y, x = (
        torch.linspace(1 / size - 1, 1 - 1 / size, size) for size in (height, width)
    )
    down, across = (
        F.interpolate(
            torch.eye(4)[None, None], (size, 4), mode="bicubic", align_corners=True
        )[0, 0]
        for size in (height, width)
    )
    straight = torch.stack(
        [
            x.expand(height, width),
            y[:, None].expand(height, width),
            torch.ones(height, width),
        ],
        -1,
    )
    bumps = torch.einsum("hi,wj->hwij", down, across)
    return torch.cat([straight.flatten(0, 1), bumps.reshape(height * width, 16)], 1)


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


class Episodes(TaskDistribution):
    """N-way K-shot classification tasks from a bank of classes.

    ways, shots, queries: classes in a task, support and query examples of each.
    groups: 0 draws the classes from everywhere. A number m draws them from m groups,
        `ways / m` of each, rounded up; a group with fewer gives all it has and a
        further one makes up the rest. With 1, only groups of at least `ways` classes
        are drawn.
    warp: a random affine map for every image, or None.
    Labels are dealt anew in every task, support and query are disjoint, both are
    shuffled.

    Raises ValueError where the bank is too small for what is asked.
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
        if min(ways, shots, queries) < 1:
            raise InnerloopError(
                f"ways, shots and queries must be at least 1, got {ways}, {shots}, {queries}"
            )
        enough = [
            i
            for i, count in enumerate(bank.counts.tolist())
            if count >= shots + queries
        ]
        if len(enough) < ways:
            most = int(bank.counts.max()) if len(bank) else 0
            raise InnerloopError(
                f"{ways}-way tasks with {shots} + {queries} examples a class need {ways} classes of at least {shots + queries} examples, "
                f"but only {len(enough)} of {len(bank)} classes have that many (the largest has {most}): "
                "lower the ways, the shots or the queries"
            )
        self.left_out = len(bank) - len(enough)  # classes with too few examples
        if self.left_out:
            self.bank = bank.pick(enough)
        self._even, self._turned = (
            bool((self.bank.counts == self.bank.counts[0]).all()),
            bool(self.bank.turns.any()),
        )
        sizes = torch.bincount(self.bank.groups)
        self._per_group = -(-ways // groups) if groups else 0
        self._drawable = sizes >= ways if groups == 1 else sizes > 0  # (groups,)
        if not self._drawable.any():
            raise InnerloopError(
                f"no alphabet has the {ways} classes that a task within one alphabet needs (the largest has {int(sizes.max())})"
            )
        self.spec = bank.spec(ways)

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
        x = self._images(
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
        # (n, groups) order of the groups
        turn = (
            torch.rand(n, len(self._drawable), generator=generator)
            + (~self._drawable) * 2.0
        )
        # (n, C) place of a class's group
        rank = turn.argsort(-1).argsort(-1)[:, groups]
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

    def examples_of(
        self, classes: Tensor, which: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The inputs (n, k, *x_shape) of the `which`-th (n, k) examples of classes
        (n,) of the bank.
        """
        rows = self.bank.starts[classes][:, None] + which
        return self._images(
            rows, self.bank.turns[classes][:, None].expand_as(rows), generator
        )

    def _images(
        self, rows: Tensor, turns: Tensor, generator: torch.Generator
    ) -> Tensor:
        x = to_unit(self.bank.values.index_select(0, rows.flatten()))
        if self._turned:
            turns = turns.flatten()
            for turn in range(1, 8):
                at = (turns == turn).nonzero()[:, 0]
                x[at] = torch.rot90(x[at].flip(3) if turn >= 4 else x[at], turn, (2, 3))
        if self.warp:
            x = self.warp(x, generator)
        return x.view(*rows.shape, *x.shape[1:])

    def reshaped(self, ways: int, shots: int, queries: int) -> Episodes:
        """Episodes of another size from the same classes."""
        return Episodes(
            self.bank, ways, shots, queries, min(self.groups, ways), self.warp
        )

    def largest(self, ways: int, shots: int, queries: int) -> Episodes:
        """Episodes of the size asked for, or with fewer queries, then fewer ways, where
        the classes do not suffice.

        Raises ValueError where not even two ways and one query are possible.
        """
        usable = self.bank.counts > shots
        if self.groups == 1 and usable.any():
            usable &= (
                self.bank.groups == torch.bincount(self.bank.groups[usable]).argmax()
            )
        counts = self.bank.counts[usable].sort(descending=True).values
        ways = max(2, min(ways, len(counts)))
        return self.reshaped(
            ways,
            shots,
            min(queries, int(counts[ways - 1]) - shots) if len(counts) >= ways else 1,
        )

    def labelled(self, size: int = 64) -> LabelledExamples:
        """The same classes as one many-way problem with labels that never change, for
        learners trained on it as a whole.
        """
        return LabelledExamples(self, size)


class LabelledExamples(TaskDistribution):
    """Ordinary supervised learning seen as tasks: `size` random examples of all
    classes, whose labels never change.

    Support and query are the same examples; `spec.y_dim` is the number of classes in
    the bank.
    """

    prefetch = True

    def __init__(self, episodes: Episodes, size: int):
        self.episodes, self.size = episodes, size
        self.spec = episodes.bank.spec(len(episodes.bank))

    def sample(self, n: int, generator: torch.Generator) -> Task:
        bank = self.episodes.bank
        classes = torch.randint(len(bank), (n, self.size), generator=generator)
        drawn = (
            torch.rand(n, self.size, generator=generator) * bank.counts[classes]
        ).long()
        x = self.episodes._images(
            bank.starts[classes] + drawn, bank.turns[classes], generator
        )
        examples = Examples(x, F.one_hot(classes, len(bank)).float())
        return Task(examples, examples)
