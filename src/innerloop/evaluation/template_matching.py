"""Template matching: the baseline of finding symbols, which needs no training."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.likelihood import Likelihood
from innerloop.core.task import Examples
from innerloop.engine.boxes import Boxes, suppressed
from innerloop.engine.options import Count, Fraction, NonNegative, Range
from innerloop.learners.metric.symbol_learner import SymbolLearner, window
from innerloop.learners.metric.symbol_maps import (
    THRESHOLD,
    SymbolMaps,
    best_places,
    ink_boxes,
    painted,
)

CERTAINTY = 12.0  # how fast the logit of a match rises with its correlation
FAINT = 2e-3  # a smaller variance counts as an empty place


class Templates(NamedTuple):
    """Turned and scaled examples (k, side, side); the weight of their pixels, with sum
    1 (k, side, side); and the boxes around them (k, 4), from the middle of a template.
    """

    values: Tensor
    weights: Tensor
    boxes: Tensor


class TemplateMatching(SymbolLearner):
    """Template matching: finds a symbol by normalized cross-correlation.

    r(u) = cov(template, image at u) / (std(template) std(image at u)), the best over
    examples, turns and scales

    Reference: Lewis 1995, "Fast normalized cross-correlation", Vision Interface, eq.
    (2).

    State: the templates, see `Templates`.

    Args:
        angles: how many turns of an example are tried.
        most_degrees: the largest turn to either side.
        sizes: how many scales are tried.
        largest: the largest scale; the smallest is its inverse.
        even: the correlation at which a match is as likely as not.
        matches: most places in an image.
    """

    _: KW_ONLY
    angles: Count = 3
    most_degrees: NonNegative = 12.0
    sizes: Count = 5
    largest: Annotated[float, Range(1)] = 1.35
    even: Fraction = 0.65
    matches: Count = 64
    likelihood: Likelihood = SymbolMaps()

    def adapt(self, support: Examples) -> Templates:
        ink = window(support.x).amax(1)  # (n, height, width)
        n, height, width = ink.shape
        boxes = ink_boxes(ink)
        left, top, right, bottom = (side[:, None, None] for side in boxes.unbind(-1))
        x = torch.arange(width).to(ink) - width / 2 + 0.5
        y = (torch.arange(height).to(ink) - height / 2 + 0.5)[:, None]
        # with a pixel of paper around it
        box = (x > left - 1) & (x < right + 1) & (y > top - 1) & (y < bottom + 1)
        maps = self._maps().to(ink)  # (t, 2, 2)
        t = len(maps)
        theta = F.pad(torch.linalg.inv(maps), (0, 1)).repeat(n, 1, 1)
        both = torch.stack([ink, box.to(ink)], 1).repeat_interleave(t, 0)
        grid = F.affine_grid(theta, list(both.shape), align_corners=False)
        values, weights = F.grid_sample(both, grid, align_corners=False).unbind(1)
        weights = weights / weights.sum((1, 2), keepdim=True).clamp_min(1e-6)
        corners = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].view(n, 1, 4, 2) @ maps.mT
        turned = torch.cat([corners.amin(2), corners.amax(2)], -1)  # (n, t, 4)
        # the box grows less than its corners turn, as a symbol seldom fills them
        scaled = boxes[:, None] * maps.det().sqrt()[:, None]
        return Templates(values, weights, ((turned + scaled) / 2).flatten(0, 1))

    def _maps(self) -> Tensor:
        """The turns and scales that are tried, as matrices (t, 2, 2)."""
        angle = _spread(self.angles) * self.most_degrees * math.pi / 180
        scale = (_spread(self.sizes) * math.log(self.largest)).exp()
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1)
        return (turn.view(-1, 1, 2, 2) * scale.view(-1, 1, 1)).flatten(0, 1)

    def correlations(self, state: Templates, x: Tensor) -> Tensor:
        """The correlation with every template at every place, (m, k, height, width)."""
        ink, weights = x.amax(1, keepdim=True), state.weights
        height, width = weights.shape[1:]
        apart = state.values - (weights * state.values).sum((1, 2), keepdim=True)
        own = (weights * apart.square()).sum((1, 2))[:, None, None]
        around = (width // 2, (width - 1) // 2, height // 2, (height - 1) // 2)
        padded = F.pad(ink, around)
        filters = torch.cat([weights * apart, weights])
        common, mean = correlated(padded, filters).chunk(2, 1)
        square = correlated(padded.square(), weights)
        variance = (square - mean.square()).clamp_min(0)
        sure = (own > FAINT) & (variance > FAINT)
        return torch.where(sure, common / (own * variance + 1e-12).sqrt(), 0.0)

    def _matched(
        self, state: Templates, x: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The matches in images: their logits and templates (m, t), and row and column
        of their middle (m, t).
        """
        best, which = self.correlations(state, x).max(1)  # (m, height, width)
        r, place = best_places(best, 3, self.matches)  # (m, t)
        k = which.flatten(1).gather(1, place)
        width = x.shape[-1]
        return CERTAINTY * (r - self.even), k, place // width, place % width

    def boxes(self, state: Templates, x: Tensor) -> list[Boxes]:
        logits, k, row, column = self._matched(state, x)
        middle = torch.stack([column, row, column, row], -1).to(x)
        found = []
        for boxes, scores in zip(
            state.boxes[k] + middle, logits.sigmoid(), strict=True
        ):
            sure = scores > THRESHOLD
            some = Boxes(boxes[sure], scores[sure])
            kept = suppressed(some)
            found.append(Boxes(some.boxes[kept], some.scores[kept]))
        return found

    def maps(self, state: Templates, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        logits, k, row, column = self._matched(state, x)
        high, wide = state.values.shape[1:]
        # where pixels lie in the template of a match
        y = torch.arange(height, device=x.device) - row[..., None] + high // 2
        at = torch.arange(width, device=x.device) - column[..., None] + wide // 2
        index = (
            y.clamp(0, high - 1)[..., None] * wide + at.clamp(0, wide - 1)[..., None, :]
        )
        inside = ((y >= 0) & (y < high))[..., None] & ((at >= 0) & (at < wide))[
            ..., None, :
        ]
        glyphs = state.values[k].flatten(2)  # (m, t, high wide)
        ink = glyphs.gather(2, index.flatten(2)).unflatten(-1, (height, width))
        covers = inside & (ink > 0.5 * glyphs.amax(-1)[..., None, None])
        middle = torch.stack([column, row, column, row], -1).to(x)
        return painted(logits, covers, state.boxes[k] + middle)


def correlated(x: Tensor, filters: Tensor) -> Tensor:
    """The sums of products of images x (m, 1, height, width) with filters (k, high,
    wide) at every place where they fit, (m, k, places down, places across), by the
    Fourier transform: filters are large.
    """
    (height, width), (high, wide) = x.shape[-2:], filters.shape[-2:]
    # of small prime factors, which is far faster
    size = [-(-side // 32) * 32 for side in (height, width)]
    spectrum = torch.fft.rfft2(x, size) * torch.fft.rfft2(filters, size).conj()
    sums = torch.fft.irfft2(spectrum, size)
    return sums[..., : height - high + 1, : width - wide + 1]


def _spread(count: int) -> Tensor:
    """Numbers from -1 to 1, or 0 alone."""
    return torch.linspace(-1, 1, count) if count > 1 else torch.zeros(1)
