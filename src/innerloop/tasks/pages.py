"""Pages with many characters, on which the occurrences of one are to be found."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.task import Examples, Task
from innerloop.engine.options import Count, Range
from innerloop.learners.metric.symbol_maps import SYMBOL
from innerloop.tasks.episodes import Episodes
from innerloop.tasks.omniglot import omniglot
from innerloop.tasks.scenes import (
    SIDE,
    Scenes,
    bounds,
    examples,
    pasted,
    targets,
    turns,
    warped,
)
from innerloop.tasks.splits import task_source
from innerloop.tasks.strokes import FreshEpisodes, strokes

WAYS, DRAWINGS = 8, 4  # characters on the pages of a task, and drawings of each
CELLS = 4  # places for characters along a side
PATCH = 48  # pixels; a character is smaller, also when turned
LINES = 3  # most lines on a page


class Pages(Scenes):
    """Pages of 4 x 4 places with the symbol, other characters, lines and noise.

    Args:
        characters: where they come from, 8 in a task.
        exact: whether every task has exactly as many examples as these have; otherwise
            each batch has a random number of them, from 1 up to it.
        queries: pages of a task.
    """

    def __init__(self, characters: Episodes | FreshEpisodes, exact: bool, queries: int):
        super().__init__()
        self.characters, self.exact, self.queries = characters, exact, queries

    def describe(self) -> str:
        shots = f"{'' if self.exact else 'up to '}{self.characters.shots}"
        return (
            f"tasks to find a character on {self.queries} pages of {SIDE}x{SIDE} pixels"
            f" from {shots} examples"
        )

    def sample(self, n: int, generator: torch.Generator) -> Task:
        drawn = self.characters.sample(n, generator)
        shown, others = (_by_class(part) for part in drawn)  # (n, ways, m, 28, 28)
        shots = shown.shape[2]
        if not self.exact:
            shots = int(torch.randint(1, shots + 1, (), generator=generator))
        # in half of the tasks all occurrences are the same drawing, as in print
        printed = torch.rand(n, 1, generator=generator) < 0.5
        same = shown[:, :, :1].expand_as(others)
        others = torch.where(printed[..., None, None, None], same, others)
        support = self._examples(shown[:, 0, :shots], generator)
        return Task(support, self._pages(others, generator))

    def _examples(self, glyphs: Tensor, generator: torch.Generator) -> Examples:
        n, shots = glyphs.shape[:2]
        flat = glyphs.flatten(0, 1)
        angle = _uniform(-5, 5, (n * shots,), generator) * math.pi / 180
        patches, boxes = _patches(flat, angle, torch.ones(n * shots, 2))
        corners = (SIDE - (boxes[:, 2:] - boxes[:, :2])) // 2
        ink, top = pasted(patches[:, None], boxes[:, None], corners[:, None])
        x = self._printed(ink, generator, 0.5)[:, None]
        return examples(x.unflatten(0, (n, shots)), (top > 0).unflatten(0, (n, shots)))

    def _pages(self, glyphs: Tensor, generator: torch.Generator) -> Examples:
        """The pages of n tasks from drawings (n, ways, m, 28, 28), the first of which
        is the symbol.
        """
        n, ways, drawings = glyphs.shape[:3]
        pages, places = n * self.queries, CELLS * CELLS
        # the order in which places are filled: with the symbol, then with others
        order = torch.rand(pages, places, generator=generator).argsort(-1)
        first = torch.arange(self.queries).repeat(n) == 0  # has the symbol surely
        count = torch.randint(0, 4, (pages,), generator=generator)
        count = torch.where(first, count.clamp_min(1), count)[:, None]
        more = torch.randint(3, 12, (pages, 1), generator=generator)
        wanted, used = order < count, order < count + more
        which = torch.randint(1, ways, (pages, places), generator=generator)
        which = torch.where(wanted, 0, which)
        drawing = torch.randint(drawings, (pages, places), generator=generator)
        task = torch.arange(n).repeat_interleave(self.queries)[:, None]
        chosen = glyphs[task, which, drawing] * used[..., None, None]
        tilt = _uniform(-8, 8, (pages, 1), generator)
        angle = (tilt + _uniform(-7, 7, (pages, places), generator)) * math.pi / 180
        scale = _uniform(-0.5, 0.5, (pages, places, 1), generator).exp2()
        stretch = _uniform(-0.15, 0.15, (pages, places, 2), generator).exp2()
        patches, boxes = _patches(
            chosen.flatten(0, 1), angle.flatten(), (scale * stretch).flatten(0, 1)
        )
        patches, boxes = (t.unflatten(0, (pages, places)) for t in (patches, boxes))
        size = boxes[..., 2:] - boxes[..., :2]
        cell, step = torch.arange(places), SIDE // CELLS
        center = torch.stack([cell % CELLS, cell // CELLS], -1) * step + step // 2
        jitter = torch.randint(-5, 6, (pages, places, 2), generator=generator)
        corners = center + jitter - size // 2
        ink, top = pasted(patches, boxes, corners)
        inside = torch.cat([corners, corners + size], -1).clamp(0, SIDE)
        x = self._printed(self._lined(ink, generator), generator, 1.0)
        y = targets(top, wanted, inside)
        shape = (n, self.queries)
        return Examples(x[:, None].unflatten(0, shape), y.unflatten(0, shape))

    def _lined(self, ink: Tensor, generator: torch.Generator) -> Tensor:
        """Canvases (b, side, side) with up to 3 lines, most level or upright."""
        b = len(ink)
        angle = torch.randint(0, 2, (b, LINES), generator=generator) * (math.pi / 2)
        spread = torch.where(
            torch.rand(b, LINES, generator=generator) < 0.3, math.pi / 4, 0.03
        )
        angle = angle + spread * torch.randn(b, LINES, generator=generator)
        at = torch.arange(SIDE) - SIDE / 2 + 0.5
        offset = _uniform(-SIDE / 2, SIDE / 2, (b, LINES, 1, 1), generator)
        away = (
            angle.cos()[..., None, None] * at
            + angle.sin()[..., None, None] * at[:, None]
            - offset
        ).abs()
        width = _uniform(0.3, 1.2, (b, LINES, 1, 1), generator)
        strength = _uniform(0.3, 1.0, (b, LINES), generator)
        drawn = torch.rand(b, LINES, generator=generator) < 0.4
        lines = (1 + width - away).clamp(0, 1) * (strength * drawn)[..., None, None]
        return torch.maximum(ink, lines.amax(1))

    def _printed(self, ink: Tensor, generator: torch.Generator, noise: float) -> Tensor:
        """Canvases (b, side, side) with paler ink, blur, uneven paper and noise."""
        b = len(ink)
        blurred = F.avg_pool2d(ink[:, None], 3, 1, 1)[:, 0]
        share = _uniform(0, 0.8, (b, 1, 1), generator)
        ink = torch.lerp(ink, blurred, share) * _uniform(0.5, 1, (b, 1, 1), generator)
        rough = torch.rand(b, 1, 5, 5, generator=generator)
        paper = F.interpolate(rough, ink.shape[1:], mode="bilinear")[:, 0]
        paper = paper * _uniform(0, 0.2 * noise, (b, 1, 1), generator)
        grain = torch.randn(ink.shape, generator=generator)
        grain = grain * _uniform(0, 0.12 * noise, (b, 1, 1), generator)
        return (ink + paper * (1 - ink) + grain).clamp(0, 1)

    def class_keys(self) -> frozenset[str]:
        return self.characters.class_keys()

    def class_names(self) -> tuple[str, ...]:
        return self.characters.class_names()

    def item_keys(self) -> frozenset[str]:
        return self.characters.item_keys()


def _uniform(
    low: float, high: float, shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _by_class(part: Examples) -> Tensor:
    """The drawings of an episode (n, ways * m, 1, s, s) by class (n, ways, m, s, s)."""
    ways, (n, count, _, *size) = part.y.shape[-1], part.x.shape
    order = part.y.argmax(-1).argsort(stable=True)
    return part.x[torch.arange(n)[:, None], order, 0].view(
        n, ways, count // ways, *size
    )


def _patches(glyphs: Tensor, angle: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Drawings (n, s, s), turned and scaled so that the larger side of their ink is
    `SYMBOL` pixels times `scale` (n, 2), as patches, with the boxes around their ink.
    """
    box = bounds(glyphs)
    larger = (box[:, 2:] - box[:, :2]).amax(-1, keepdim=True).clamp_min(1)
    matrices = turns(angle, torch.zeros_like(angle), scale * SYMBOL / larger)
    patches = warped(glyphs, matrices, PATCH, "bilinear")
    return patches, bounds(patches)


@task_source
def pages(
    split: str = "train",
    *,
    shots: Annotated[int, Range(1, 5)] = 1,
    queries: Count = 2,
    of: Literal["strokes", "omniglot"] = "strokes",
) -> Pages:
    """Pages: find every occurrence of a character on small pages.

    Each task is a character with a few examples, and pages of 96x96 pixels with up to
    three occurrences among other characters of up to two alphabets, with lines, uneven
    paper and noise. Occurrences are turned by up to 15 degrees and are 0.7 to 1.4 times
    as large as the example, whose larger side has 20 pixels. In half of the tasks all
    are the same drawing, as in print; in the others they are drawn anew. Characters of
    test tasks are of alphabets that training does not have.

    A test measures the mean average precision of boxes at an intersection over union of
    0.5, and that of the masks, beside template matching.

    Reference: Fan, Zhuo, Tang and Tai 2020, "Few-shot object detection with
    attention-RPN and multi-relation detector", arXiv:1908.01998: the task, with
    photographs.

    Args:
        shots: examples of the character; in training, from 1 up to so many.
        queries: pages of a task; the first has the character, others may not.
        of: source of the characters.
    """
    source = strokes if of == "strokes" else partial(omniglot, holdout=True)
    characters = source(split, ways=WAYS, shots=shots, queries=DRAWINGS, groups=2)
    return Pages(characters, split != "train", queries)
