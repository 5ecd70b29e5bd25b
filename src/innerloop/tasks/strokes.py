"""Strokes: synthetic alphabets that resemble handwriting, without a download.

A character is a few pen strokes. Each stroke is a chain of moves (straight lines,
bends, hooks, zigzags or curls) that begins anywhere or on an earlier stroke. The
characters of an alphabet share strokes, and some are variants of others, as in real
scripts. Every drawing of a character varies its moves, strokes, slant and proportions
at random. Similar to the generative model of Lake et al. 2015 (Science 350), but not
fitted to data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, CountOrZero, Range
from innerloop.readers.image import STROKE_MARGIN, ImageReader
from innerloop.tasks.episodes import (
    ClassBank,
    Episodes,
    SupervisedExamples,
    few_shot_settings,
)
from innerloop.tasks.pictures import as_html, episode_picture
from innerloop.tasks.splits import task_source

STROKES, KNOTS, SAMPLES, SIZE = 4, 7, 64, 28
READER = ImageReader(1, (SIZE, SIZE), dark_background=True, normalize_strokes=True)
PEN = 0.035  # standard deviation of a pen's line, in the units of the knots
_SEEDS = {"train": 11, "val": 12, "test": 13}
_FIXED = {"train": 100, "val": 10, "test": 20}  # alphabets in the fixed bank of a split
_LETTERS, _DRAWINGS = 26, 20
# straight, arc, S, hook, zigzag, curl, ring, square corners
_KINDS = torch.tensor([0.26, 0.24, 0.08, 0.13, 0.08, 0.06, 0.08, 0.07])


@dataclass(frozen=True)
class Programs:
    """Characters as pen programs, n of them.

    Args:
        knots: the points that a stroke passes (n, strokes, knots, 2), in a box of about
            -1 to 1.
        present: which strokes exist (n, strokes).
        angular: which strokes turn at corners instead of curves (n, strokes).
    """

    knots: Tensor
    present: Tensor
    angular: Tensor

    def __getitem__(self, index: Tensor) -> Programs:
        return Programs(*(getattr(self, f.name)[index] for f in fields(self)))


def _uniform(
    low: float, high: float, shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def stroke_shapes(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`n` strokes: their knots from the origin (n, knots, 2), and whether they are
    angular (n,).
    """
    moves = KNOTS - 1
    kind = torch.multinomial(_KINDS, n, True, generator=generator)
    sign = torch.randint(0, 2, (n, 1), generator=generator) * 2.0 - 1
    place = torch.arange(moves).expand(n, moves)
    bend = _uniform(0.15, 0.75, (n, 1), generator)
    corner = torch.randint(1, moves, (n, 1), generator=generator)
    sharp = _uniform(1.0, 2.5, (n, 1), generator)
    every = torch.randint(1, 3, (n, 1), generator=generator)
    turns = (
        torch.stack(
            [
                torch.zeros(n, moves),
                bend.expand(n, moves),
                bend * 1.4 * torch.where(place < corner, 1.0, -1.0),
                sharp * (place == corner) + 0.25 * bend * (place > corner),
                sharp
                * (place % (every + 1) == 0)
                * torch.where((place // (every + 1)) % 2 == 0, 1.0, -1.0)
                * (place > 0),
                (0.6 + 0.7 * bend).expand(n, moves),
                torch.full((n, moves), 2 * math.pi / moves),
                (math.pi / 2) * ((place - corner) % every == 0) * (place > 0),
            ]
        )[kind, torch.arange(n)]
        * sign
    )  # (n, moves)
    turns = (
        turns
        + torch.randn(n, moves, generator=generator)
        * torch.where(kind >= 6, 0.05, 0.12)[:, None]
    )
    compass = (
        torch.randint(0, 8, (n, 1), generator=generator) * (math.pi / 4)
        + torch.randn(n, 1, generator=generator) * 0.25
    )
    heading = compass + turns.cumsum(1)
    length = torch.exp(
        torch.randn(n, moves, generator=generator)
        * torch.where(kind == 6, 0.1, 0.35)[:, None]
    )
    path = torch.stack([heading.cos(), heading.sin()], -1) * length[..., None]
    knots = torch.cat([torch.zeros(n, 1, 2), path.cumsum(1)], 1)
    extent = (knots.amax(1) - knots.amin(1)).amax(-1)[:, None, None]
    knots = (
        knots
        / extent
        * torch.exp(torch.randn(n, 1, 1, generator=generator) * 0.45 + 0.1)
    )
    # dots
    knots = knots * torch.where(
        torch.rand(n, 1, 1, generator=generator) < 0.07, 0.12, 1.0
    )
    angular = (
        ((torch.rand(n, generator=generator) < 0.35) & (kind != 6))
        | (kind == 4)
        | (kind == 7)
    )
    return knots, angular


def programs(alphabets: int, letters: int, generator: torch.Generator) -> Programs:
    """The characters of `alphabets` new alphabets, `letters` in each, alphabet by
    alphabet.
    """
    n = alphabets * letters
    stock_size = 8
    stock, stock_angular = stroke_shapes(alphabets * stock_size, generator)
    fresh, fresh_angular = stroke_shapes(n * STROKES, generator)
    borrowed = (
        torch.randint(stock_size, (n, STROKES), generator=generator)
        + (torch.arange(n) // letters * stock_size)[:, None]
    )
    borrow = torch.rand(n, STROKES, generator=generator) < 0.5
    shapes = torch.where(
        borrow[..., None, None], stock[borrowed], fresh.view(n, STROKES, KNOTS, 2)
    )
    angular = torch.where(
        borrow, stock_angular[borrowed], fresh_angular.view(n, STROKES)
    )
    # simple or intricate scripts
    usual = _uniform(0.0, 1.0, (alphabets, 1), generator).repeat_interleave(letters, 0)
    weights = (
        torch.tensor([0.40, 0.35, 0.17, 0.08]) * (1 - usual)
        + torch.tensor([0.12, 0.33, 0.32, 0.23]) * usual
    )
    count = torch.multinomial(weights, 1, generator=generator)[:, 0] + 1

    # where strokes begin: anywhere, or at the start, the end or inside of the stroke
    # before; sometimes crossing it
    how = torch.multinomial(
        torch.tensor([0.30, 0.15, 0.20, 0.35]), n * STROKES, True, generator=generator
    ).view(n, STROKES)
    placed = [shapes[:, 0] - shapes[:, 0].mean(1, keepdim=True)]
    rows = torch.arange(n)
    for s in range(1, STROKES):
        before = (
            placed[int(torch.randint(s, (), generator=generator))]
            if s > 1
            else placed[0]
        )
        inside = before[rows, torch.randint(1, KNOTS - 1, (n,), generator=generator)]
        anywhere = torch.randn(n, 2, generator=generator) * 0.5 + before.mean(1)
        at = torch.stack([anywhere, before[:, 0], before[:, -1], inside])[
            how[:, s], rows
        ]
        cross = (torch.rand(n, generator=generator) < 0.35) & (
            (how[:, s] == 3) | (how[:, s] == 0)
        )
        anchor = torch.where(cross[:, None], shapes[:, s, KNOTS // 2], shapes[:, s, 0])
        placed.append(shapes[:, s] + (at - anchor)[:, None])
    knots = torch.stack(placed, 1)  # (n, strokes, knots, 2)
    size = _uniform(0.25, 1.0, (n, 1), generator).sqrt()
    knots, present, angular, size = _siblings(
        knots, count, angular, size, letters, generator
    )

    seen = torch.where(present[..., None, None], knots, torch.nan).flatten(1, 2)
    low, high = seen.nan_to_num(math.inf).amin(1), seen.nan_to_num(-math.inf).amax(1)
    half = (high - low).clamp_min(1e-3) / 2
    even = half.amax(-1, keepdim=True)
    fit = size / torch.exp(
        torch.lerp(
            half.clamp_min(0.2 * even).log(),
            even.log(),
            _uniform(0.5, 1.0, (n, 1), generator),
        )
    )
    knots = (knots - ((low + high) / 2)[:, None, None]) * fit[:, None, None]
    return Programs(knots, present, angular)


def _siblings(
    knots: Tensor,
    count: Tensor,
    angular: Tensor,
    size: Tensor,
    letters: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Near half of an alphabet's characters become variants of others: a stroke
    exchanged, one more, one less, or the whole mirrored.
    """
    n = len(knots)
    parent = torch.arange(n) // letters * letters + torch.randint(
        letters, (n,), generator=generator
    )
    variant = torch.rand(n, generator=generator) < 0.45
    how = torch.multinomial(
        torch.tensor([0.45, 0.25, 0.15, 0.15]), n, True, generator=generator
    )
    exchanged = (torch.rand(n, generator=generator) * count[parent]).long()
    # (n, strokes)
    own = ~variant[:, None] | (
        (how == 0)[:, None] & (torch.arange(STROKES) == exchanged[:, None])
    )
    flips = torch.tensor([[-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])[
        torch.randint(3, (n,), generator=generator)
    ]
    flips = torch.where((variant & (how == 3))[:, None], flips, 1.0)
    more = torch.where(how == 1, 1, torch.where(how == 2, -1, 0))
    counts = torch.where(variant, (count[parent] + more).clamp(1, STROKES), count)
    return (
        torch.where(own[..., None, None], knots, knots[parent]) * flips[:, None, None],
        torch.arange(STROKES) < counts[:, None],
        torch.where(own, angular, angular[parent]),
        torch.where(variant[:, None], size[parent], size),
    )


@lru_cache(maxsize=1)
def _curves() -> tuple[Tensor, Tensor]:
    """Matrices (samples, knots) from knots to points along a stroke: with corners, and
    as a Catmull-Rom curve.
    """
    t = torch.linspace(0, KNOTS - 1, SAMPLES)
    corners = (1 - (t[:, None] - torch.arange(KNOTS)).abs()).clamp_min(0)
    i = t.floor().clamp_max(KNOTS - 2).long()
    u = (t - i)[:, None]
    basis = (
        torch.cat(
            [
                -u + 2 * u**2 - u**3,
                2 - 5 * u**2 + 3 * u**3,
                u + 4 * u**2 - 3 * u**3,
                -(u**2) + u**3,
            ],
            1,
        )
        / 2
    )
    smooth = torch.zeros(SAMPLES, KNOTS)
    for offset in range(4):
        smooth.scatter_add_(
            1,
            (i + offset - 1).clamp(0, KNOTS - 1)[:, None],
            basis[:, offset : offset + 1],
        )
    return corners, smooth


def draw(characters: Programs, generator: torch.Generator) -> Tensor:
    """One drawing of every character, as floats in 0..1 (n, 1, 28, 28)."""
    n = len(characters.knots)
    noise = torch.randn(n, STROKES, KNOTS, 2, generator=generator)
    # neighboring knots move together
    drift = F.avg_pool1d(
        noise.flatten(0, 1).mT, 3, 1, 1, count_include_pad=False
    ).mT.view(n, STROKES, KNOTS, 2)
    # some drawings are neater than others
    care = torch.exp(torch.randn(n, 1, 1, 1, generator=generator) * 0.35)
    knots = characters.knots + care * (0.085 * drift + 0.015 * noise)
    center = knots.mean(2, keepdim=True)
    bend = 1 + 0.07 * torch.randn(n, STROKES, 1, 2, generator=generator)
    turn = 0.07 * torch.randn(n, STROKES, 1, 1, generator=generator)
    offset = (knots - center) * bend
    offset = offset + turn * torch.stack([-offset[..., 1], offset[..., 0]], -1)
    knots = (
        center
        + offset
        + care * 0.035 * torch.randn(n, STROKES, 1, 2, generator=generator)
    )

    # the whole letter: turned, slanted, stretched
    angle = 0.10 * torch.randn(n, generator=generator)
    matrix = torch.stack(
        [angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1
    ).view(n, 2, 2)
    skew = torch.diag_embed(torch.exp(0.13 * torch.randn(n, 2, generator=generator)))
    skew[:, 0, 1] = 0.15 * torch.randn(n, generator=generator)
    knots = knots @ (matrix @ skew).mT[:, None]

    corners, smooth = _curves()
    # (n, strokes, samples, 2)
    points = torch.where(
        characters.angular[..., None, None], corners @ knots, smooth @ knots
    )
    step = F.pad((points[:, :, 1:] - points[:, :, :-1]).norm(dim=-1), (1, 0)) + 0.02
    ink = step * characters.present[..., None]
    return _ink(
        points.flatten(1, 2),
        ink.flatten(1, 2),
        _uniform(0.75, 1.25, (n, 1, 1, 1), generator),
    )


def _ink(points: Tensor, ink: Tensor, pressure: Tensor) -> Tensor:
    """Points (n, p, 2) with their ink (n, p) as images (n, 1, 28, 28).

    They are centered and scaled as by an image reader with `normalize_strokes`, so that
    a small character has a wide pen; then added up on a finer grid, spread to the width
    of the pen, and saturated.
    """
    n, fine = len(points), 2 * SIZE
    middle = (points * ink[..., None]).sum(1, keepdim=True) / ink.sum(1)[:, None, None]
    points = points - middle
    half = (
        (points.abs() * (ink > 0)[..., None]).amax((1, 2)) * STROKE_MARGIN
    ).clamp_min(0.35)[:, None, None]
    at = ((points / half + 1) * SIZE - 0.5).clamp(0, fine - 1.001)
    corner = at.floor()
    frac = at - corner
    corner = corner.long()
    image = torch.zeros(n, fine * fine)
    for dx in (0, 1):
        for dy in (0, 1):
            share = (frac[..., 0] if dx else 1 - frac[..., 0]) * (
                frac[..., 1] if dy else 1 - frac[..., 1]
            )
            image.scatter_add_(
                1, (corner[..., 1] + dy) * fine + corner[..., 0] + dx, ink * share
            )
    width = PEN * SIZE / half  # standard deviation of the pen, (n, 1, 1)
    # (n, fine)
    fading = (
        torch.exp(-torch.arange(fine).square() / (2 * width[:, 0] ** 2)) / width[:, 0]
    )
    # a product with it is far faster than a one-channel convolution
    spread = fading.index_select(1, _apart(fine)).view(n, fine, fine)
    image = spread @ image.view(n, fine, fine) @ spread
    return F.avg_pool2d(
        image[:, None]
        .mul_(pressure)
        .mul_((SIZE / half * width)[:, None])
        .mul_(0.85)
        .clamp_max_(1),
        2,
    )


@lru_cache(maxsize=1)
def _apart(size: int) -> Tensor:
    """How far apart two pixels of an axis lie (size * size,)."""
    return (torch.arange(size)[:, None] - torch.arange(size)).abs().flatten()


class FreshEpisodes(TaskDistribution):
    """Episodes of new characters: every task has its own, each drawn anew.

    Args:
        ways: classes in a task.
        shots: support examples of each class.
        queries: query examples of each class.
        groups: how many alphabets the classes of a task come from; 0 takes every class
            from an alphabet of its own.
    """

    prefetch = True
    reader = READER  # of images that look like these

    def __init__(
        self, ways: int = 5, shots: int = 1, queries: int = 15, groups: int = 0
    ):
        if min(ways, shots, queries) < 1 or groups < 0:
            raise InnerloopError(
                "ways, shots and queries must be at least 1 and groups at least 0; got "
                f"{ways}, {shots}, {queries} and {groups}"
            )
        self.ways, self.shots, self.queries = ways, shots, queries
        self.groups = min(groups or ways, ways)
        self.spec = TaskSpec("classes", (1, SIZE, SIZE), ways)

    def describe(self) -> str:
        shape = f"{self.ways}-way {self.shots}-shot tasks with {self.queries} queries"
        return f"{shape} per class from characters made of random pen strokes"

    def sample(self, n: int, generator: torch.Generator) -> Task:
        letters = -(-self.ways // self.groups)
        characters = programs(n * self.groups, letters, generator)
        first = torch.arange(n)[:, None] * self.groups * letters
        chosen = (
            first
            + torch.rand(n, self.groups * letters, generator=generator).argsort(-1)[
                :, : self.ways
            ]
        )
        parts = []
        for drawings in (self.shots, self.queries):
            labels = torch.arange(self.ways).repeat(drawings).expand(n, -1)
            labels = labels.gather(
                1, torch.rand(labels.shape, generator=generator).argsort(-1)
            )
            x = draw(characters[chosen.gather(1, labels).flatten()], generator)
            parts.append(
                Examples(
                    x.view(n, -1, 1, SIZE, SIZE), F.one_hot(labels, self.ways).float()
                )
            )
        return Task(*parts)

    def test_settings(self, fixed_ways: int | None) -> list[dict[str, Any]]:
        return few_shot_settings(fixed_ways, self.shots)

    def for_supervised(self, batch: int) -> SupervisedExamples:
        """A fixed stock of training characters as one problem with all classes."""
        return SupervisedExamples(Episodes(bank("train"), self.ways, 1, 1), batch)

    def show(self, seed: int = 0) -> Image.Image:
        """A picture of one task: a row for each class, support and query examples."""
        return episode_picture(self, seed)

    def _repr_html_(self) -> str:
        return as_html(self, self.show())


@lru_cache(maxsize=3)
def bank(split: str) -> ClassBank:
    """The fixed characters of a split, each drawn 20 times."""
    generator = torch.Generator().manual_seed(_SEEDS[split])
    characters = programs(_FIXED[split], _LETTERS, generator)
    classes = _FIXED[split] * _LETTERS
    rows = torch.arange(classes).repeat_interleave(_DRAWINGS)
    images = torch.cat(
        [
            (draw(characters[some], generator) * 255).round().to(torch.uint8)
            for some in rows.split(2000)
        ]
    )
    names = [
        f"{split}{i // _LETTERS:03d}/character{i % _LETTERS + 1:02d}"
        for i in range(classes)
    ]
    return ClassBank.of(
        images,
        [_DRAWINGS] * classes,
        names,
        [i // _LETTERS for i in range(classes)],
        READER,
        f"the {split} split of drawn strokes",
    )


@task_source
def strokes(
    split: str = "train",
    *,
    ways: Annotated[int, Range(2)] = 5,
    shots: Count = 1,
    queries: Count = 15,
    groups: CountOrZero = 0,
) -> FreshEpisodes | Episodes:
    """Strokes: endless synthetic characters made of strokes; no download.

    Validation and test have 10 and 20 fixed alphabets of 26 characters, 20 drawings of
    each.

    Args:
        ways: classes in a task.
        shots: support examples of each class.
        queries: query examples of each class.
        groups: the number of alphabets that the classes of a task come from; 0 for any.
    """
    if split == "train":
        return FreshEpisodes(ways, shots, queries, groups)
    return Episodes(bank(split), ways, shots, queries, groups)
