"""Every occurrence of a symbol on a page, from a few crops of it: with a trained
network or by template matching.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.boxes import Boxes, suppressed
from innerloop.engine.errors import InnerloopError
from innerloop.engine.progress import report_progress
from innerloop.evaluation.template_matching import TemplateMatching
from innerloop.experiment import load
from innerloop.learners.metric.symbol_learner import SymbolLearner
from innerloop.learners.metric.symbol_maps import MAPS, SYMBOL, WINDOW
from innerloop.readers.files import csv_text
from innerloop.readers.image import ImageReader
from innerloop.readers.sources import File

READER = ImageReader(channels=1)
TILE, EDGE = 256, 48  # pixels of a page that are searched at once, and overlap
SMALLEST = 6  # pixels: the larger side of an example
MOST_PIXELS = 40_000_000  # of a page, as it is searched
COVERED = 2.0  # the ratio of sizes that learners find at one scale of the page
COLORS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")
Picture = File | str | Image.Image


@dataclass(frozen=True)
class Occurrence:
    """A symbol on a page.

    Args:
        name: of the symbol.
        box: left, top, right and bottom in pixels of the upright page, right and bottom
            being the first outside.
        score: from 0 to 1, the better the surer; no probability.
    """

    name: str
    box: tuple[int, int, int, int]
    score: float


def find(
    page: Picture,
    examples: Mapping[str, Sequence[Picture]],
    *,
    run: Path | str | None = None,
    smallest: float = 0.5,
    largest: float = 2.0,
    least: float = 0.5,
) -> list[Occurrence]:
    """The occurrences of symbols on a page, the surest first.

    Args:
        page: a scan, photograph or drawing, of any size; ink darker or lighter than the
            paper.
        examples: by the name of a symbol, crops of it, cut closely, at the size that it
            has on the page.
        run: the folder of a SiameseUNet; without it, templates are matched.
        smallest, largest: sizes of occurrences, relative to the examples.
        least: smallest score.

    Raises InnerloopError where an image cannot be read, an example shows nothing or is
    too small, and where the run is none of a learner that finds symbols.
    """
    return Finder(examples, run, smallest, largest, least)(page)


class Finder:
    """`find` for many pages: examples are learned once."""

    def __init__(
        self,
        examples: Mapping[str, Sequence[Picture]],
        run: Path | str | None = None,
        smallest: float = 0.5,
        largest: float = 2.0,
        least: float = 0.5,
    ):
        if not any(examples.values()):
            raise InnerloopError("there is no example of a symbol: at least one crop")
        if not 0 < smallest <= largest < math.inf:
            raise InnerloopError(
                "smallest and largest must be greater than 0, in this order; got "
                f"{smallest:g} and {largest:g}"
            )
        self.least = least
        self.learner = template_matching() if run is None else _trained(run)
        assert self.learner.spec is not None
        self.channels = self.learner.spec.x_shape[0]
        steps = max(1, math.ceil(math.log(largest / smallest, COVERED) - 1e-6))
        ratio = (largest / smallest) ** (1 / steps)
        self.levels = [smallest * ratio ** (i + 0.5) for i in range(steps)]
        self.symbols = {
            name: self._learned(name, crops) for name, crops in examples.items()
        }

    @torch.no_grad()
    def _learned(self, name: str, crops: Sequence[Picture]) -> tuple[Any, float]:
        """The state of a symbol, and the usual larger side of its examples."""
        found = [
            example(_opened(crop), f"{name}, example {i}")
            for i, crop in enumerate(crops, 1)
        ]
        x = torch.stack([ink for ink, _ in found])[:, None]
        x = x.expand(-1, self.channels, -1, -1)
        y = x.new_zeros(len(x), MAPS * WINDOW**2)
        sides = sorted(side for _, side in found)
        return self.learner.adapt(Examples(x, y)), sides[(len(sides) - 1) // 2]

    def __call__(self, page: Picture) -> list[Occurrence]:
        """The occurrences of the symbols on a page."""
        picture = _opened(page)
        searched = [
            (name, state, side * level)
            for name, (state, side) in self.symbols.items()
            for level in self.levels
        ]
        parts, names = [], []
        for done, (name, state, side) in enumerate(searched, 1):
            boxes, scores = self._searched(state, picture, side)
            sure = scores >= self.least
            parts.append(Boxes(boxes[sure], scores[sure]))
            names += [name] * int(sure.sum())
            report_progress(done, len(searched))
        every = Boxes(*map(torch.cat, zip(*parts, strict=True)))
        found = []
        for i in suppressed(every):  # whatever symbols they are
            left, top, right, bottom = every.boxes[i].round().long().tolist()
            left, right = max(left, 0), min(right, picture.width)
            top, bottom = max(top, 0), min(bottom, picture.height)
            if left < right and top < bottom:
                box = left, top, right, bottom
                found.append(Occurrence(names[i], box, float(every.scores[i])))
        return found

    @torch.no_grad()
    def _searched(self, state: Any, page: Image.Image, side: float) -> Boxes:
        """The boxes of a symbol whose larger side has `side` pixels on the page."""
        factor = SYMBOL / side
        width, height = (max(1, round(size * factor)) for size in page.size)
        if width * height > MOST_PIXELS:
            raise InnerloopError(
                f"the page has {page.width} x {page.height} pixels, too many for a "
                f"symbol of {side:.0f}: crop the page, or raise smallest"
            )
        ink = page_ink(page, (width, height), side)
        boxes, scores = [torch.zeros(0, 4)], [torch.zeros(0)]
        for x, y, tile in _tiles(ink):
            images = tile.expand(1, self.channels, -1, -1).contiguous()
            found = self.learner.boxes(state, images)[0]
            middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
            core = ((middle >= EDGE) & (middle < TILE - EDGE)).all(1)
            boxes.append(found.boxes[core] + torch.tensor([x, y, x, y]) - EDGE)
            scores.append(found.scores[core])
        scale = torch.tensor([page.width / width, page.height / height] * 2)
        return Boxes(torch.cat(boxes) * scale, torch.cat(scores))


def template_matching() -> SymbolLearner:
    """The learner without a run."""
    spec = TaskSpec("maps", (1, WINDOW, WINDOW), MAPS * WINDOW**2)
    return TemplateMatching.build(spec)


def _trained(run: Path | str) -> SymbolLearner:
    learner = load(run)
    if not isinstance(learner, SymbolLearner):
        raise InnerloopError(
            f"{run} is a run of {type(learner).__name__}, which does not find symbols: "
            "train siameseunet on pages, or leave out the run to match templates"
        )
    return learner


def _opened(picture: Picture) -> Image.Image:
    """A picture in gray, as the camera was held."""
    return _read(picture, READER)


def _read(picture: Picture, reader: ImageReader) -> Image.Image:
    if isinstance(picture, Image.Image):
        return reader.flat(picture)
    return reader.whole(Path(picture) if isinstance(picture, str) else picture)


def _gray(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).float() / 255


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    smaller = size[0] * size[1] < picture.width * picture.height
    how = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
    return picture.resize(size, how)


def example(crop: Image.Image, name: str) -> tuple[Tensor, float]:
    """The ink of a crop in the middle of a window (32, 32), its larger side 20 pixels
    long; and how many it has in the crop.

    Raises InnerloopError for a crop without ink, or with ink that is too small.
    """
    gray = _gray(crop)
    border = torch.cat([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    # a stroke may cross the border, but most of it is paper
    middle = (gray.min() + gray.max()) / 2
    light = bool((border > middle).float().mean() >= 0.5)
    paper = float(np.quantile(gray, 0.9 if light else 0.1))
    ink = (paper - gray if light else gray - paper).clamp_min(0)
    if float(ink.max()) < 0.05:
        raise InnerloopError(f"{name} shows nothing: it is of one color")
    rows, columns = (ink > 0.4 * ink.max()).nonzero(as_tuple=True)
    box = (
        int(columns.min()),
        int(rows.min()),
        int(columns.max()) + 1,
        int(rows.max()) + 1,
    )
    width, height = box[2] - box[0], box[3] - box[1]
    side = max(width, height)
    if side < SMALLEST:
        raise InnerloopError(
            f"{name} is {width} x {height} pixels, and at least {SMALLEST} are needed: "
            "scan the page at a higher resolution"
        )
    factor = SYMBOL / side
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = _resized(
        Image.fromarray((ink / ink.max() * 255).byte().numpy()).crop(box), size
    )
    values = _gray(small)
    left, top = (WINDOW - size[0]) // 2, (WINDOW - size[1]) // 2
    shape = (left, WINDOW - left - size[0], top, WINDOW - top - size[1])
    return F.pad(_stretched(values, 0.98), shape), float(side)


def page_ink(page: Image.Image, size: tuple[int, int], side: float) -> Tensor:
    """The ink of a page in 0..1 (height, width), scaled to `size`: what differs from
    the paper around, in the direction that most ink has.

    side: pixels of a symbol on the page.
    """
    # the paper is the median of some symbols' surroundings
    coarse = max(1.0, side / 5)
    width, height = (max(1, round(s / coarse)) for s in page.size)
    small = page.resize((width, height), Image.Resampling.BOX)
    paper = small.filter(ImageFilter.MedianFilter(15)).resize(
        size, Image.Resampling.BILINEAR
    )
    apart = _gray(paper) - _gray(_resized(page, size))
    light = float(apart.pow(3).sum()) >= 0
    return _stretched((apart if light else -apart).clamp_min(0), 0.99)


def _stretched(ink: Tensor, share: float) -> Tensor:
    """Ink with its dark parts at 1: those that the given share of its pixels that are
    no paper do not exceed.
    """
    used = ink[ink > 0.3 * ink.max()]
    top = used.sort().values[int(share * (len(used) - 1))] if len(used) else ink.max()
    return (ink / top.clamp_min(0.05)).clamp(0, 1)


def _tiles(ink: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Squares of a page with an edge that others share, and where their cores begin."""
    step = TILE - 2 * EDGE
    height, width = ink.shape
    down, right = -(-height // step) * step, -(-width // step) * step
    padded = F.pad(ink, (EDGE, EDGE + right - width, EDGE, EDGE + down - height))
    for y in range(0, height, step):
        for x in range(0, width, step):
            tile = padded[y : y + TILE, x : x + TILE]
            if float(tile.max()) > 0:
                yield x, y, tile


def examples_in(paths: Sequence[str]) -> dict[str, list[Picture]]:
    """Crops by the name of their symbol, from words FILE or NAME=FILE, or folders
    DIR/NAME/FILE.

    Raises InnerloopError for a path that is missing or holds no images.
    """
    found: dict[str, list[Picture]] = {}
    for word in paths:
        name, equals, file = word.partition("=")
        if not equals or Path(word).exists():
            name, file = "", word
        if not name and Path(file).is_dir():
            images = READER.scan(file, labels=True)
            for crop, label in zip(images.files, images.labels or [], strict=True):
                found.setdefault(label, []).append(crop)
            continue
        images = READER.scan(file, labels=False)
        found.setdefault(name or Path(file).stem, []).extend(images.files)
    return found


def table(pages: Sequence[str], found: Sequence[Sequence[Occurrence]]) -> str:
    """The occurrences on pages as the text of a .csv, a row for each."""
    return csv_text(
        [
            ["page", "name", "left", "top", "right", "bottom", "score"],
            *(
                [page, one.name, *one.box, f"{one.score:.4f}"]
                for page, some in zip(pages, found, strict=True)
                for one in some
            ),
        ]
    )


def drawn(page: Picture, found: Sequence[Occurrence]) -> Image.Image:
    """The page in color with the boxes, each symbol in a color of its own."""
    picture = _read(page, ImageReader()).copy()
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 500))
    names = sorted({occurrence.name for occurrence in found})
    for occurrence in found:
        color = COLORS[names.index(occurrence.name) % len(COLORS)]
        left, top, right, bottom = occurrence.box
        pen.rectangle((left, top, right - 1, bottom - 1), outline=color, width=width)
        text = f"{occurrence.name} {occurrence.score:.2f}"
        size = max(10, 6 * width)
        pen.text((left, max(0, top - size - 2)), text, fill=color, font_size=size)
    return picture
