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
from innerloop.engine.options import Count, NonNegative, Range
from innerloop.learners.metric.symbol_learner import SymbolLearner, window
from innerloop.learners.metric.symbol_maps import UNIT, SymbolMaps

CERTAINTY = 12.0  # how fast the logit of a match rises with its correlation
EVEN = 0.65  # the correlation at which a match is as likely as not
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
        angles: how many turns of an example are tried, an odd number.
        most_degrees: the largest turn to either side.
        sizes: how many scales are tried, an odd number.
        largest: the largest scale; the smallest is its inverse.
        matches: most places in an image.
    """

    _: KW_ONLY
    angles: Count = 3
    most_degrees: NonNegative = 12.0
    sizes: Count = 3
    largest: Annotated[float, Range(1)] = 1.3
    matches: Count = 32
    likelihood: Likelihood = SymbolMaps()

    def adapt(self, support: Examples) -> Templates:
        ink = window(support.x).amax(1)  # (n, side, side)
        n, side = ink.shape[:2]
        lines = torch.arange(side, device=ink.device)
        dark = ink > 0.5 * ink.amax((1, 2), keepdim=True)
        spans = []
        for axis in (2, 1):  # columns, then rows
            used = dark.any(3 - axis)
            low = torch.where(used, lines, side).amin(1)
            spans.append((low, torch.where(used, lines + 1, 0).amax(1)))
        (left, right), (top, bottom) = spans
        wide = (lines >= left[:, None] - 1) & (lines <= right[:, None])
        high = (lines >= top[:, None] - 1) & (lines <= bottom[:, None])
        box = (high[:, :, None] & wide[:, None]).to(ink)
        boxes = torch.stack([left, top, right, bottom], -1).to(ink) - side / 2
        maps = self._maps().to(ink)  # (t, 2, 2)
        t = len(maps)
        theta = F.pad(torch.linalg.inv(maps), (0, 1)).repeat(n, 1, 1)
        both = torch.stack([ink, box], 1).repeat_interleave(t, 0)
        grid = F.affine_grid(theta, list(both.shape), align_corners=False)
        values, weights = F.grid_sample(both, grid, align_corners=False).unbind(1)
        weights = weights / weights.sum((1, 2), keepdim=True).clamp_min(1e-6)
        corner = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].view(n, 1, 4, 2)
        turned = corner @ maps.mT  # (n, t, 4, 2)
        # an upright box grows less than its corners turn, as a symbol seldom fills them
        grown = torch.cat([turned.amin(2), turned.amax(2)], -1)
        plain = boxes[:, None] * maps.det().sqrt()[:, None]
        return Templates(values, weights, ((grown + plain) / 2).flatten(0, 1))

    def _maps(self) -> Tensor:
        """The turns and scales that are tried, as matrices (t, 2, 2)."""
        angle = (
            torch.linspace(-1, 1, self.angles) if self.angles > 1 else torch.zeros(1)
        )
        angle = angle * self.most_degrees * math.pi / 180
        size = torch.linspace(-1, 1, self.sizes) if self.sizes > 1 else torch.zeros(1)
        scale = (size * math.log(self.largest)).exp()
        one = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1)
        return (one.view(-1, 1, 2, 2) * scale.view(-1, 1, 1)).flatten(0, 1)

    def correlations(self, state: Templates, x: Tensor) -> Tensor:
        """The correlation with every template at every place, (m, k, height, width)."""
        ink, side = x.amax(1, keepdim=True), state.values.shape[-1]
        weights = state.weights
        mean = (weights * state.values).sum((1, 2), keepdim=True)
        apart = state.values - mean
        own = (weights * apart.square()).sum((1, 2))[:, None, None]
        padded = F.pad(ink, (side // 2, side - side // 2 - 1) * 2)
        filters = torch.cat([weights * apart, weights])[:, None]
        common, at = F.conv2d(padded, filters).chunk(2, 1)
        square = F.conv2d(padded.square(), weights[:, None])
        variance = (square - at.square()).clamp_min(0)
        sure = (own > FAINT) & (variance > FAINT)
        return torch.where(sure, common / (own * variance + 1e-12).sqrt(), 0.0)

    def maps(self, state: Templates, x: Tensor) -> Tensor:
        m, height, width = len(x), *x.shape[-2:]
        best, which = self.correlations(state, x).max(1)  # (m, height, width)
        peak = best == F.max_pool2d(best[:, None], 7, 1, 3)[:, 0]
        scores = torch.where(peak, best, -1.0).flatten(1)
        r, place = scores.topk(min(self.matches, scores.shape[1]))  # (m, matches)
        k = which.flatten(1).gather(1, place)
        y, column = place // width, place % width
        side = state.values.shape[-1]
        offset = torch.arange(side, device=x.device) - side // 2
        rows = (y[..., None, None] + offset[:, None]).expand(-1, -1, -1, side)
        columns = (column[..., None, None] + offset).expand(-1, -1, side, -1)
        glyph = state.values[k]  # (m, matches, side, side)
        used = glyph > 0.5 * glyph.amax((2, 3), keepdim=True)
        used &= (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        index = torch.where(used, rows * width + columns, height * width).flatten(1)
        value = torch.where(used, r[..., None, None], -1.0).flatten(1)
        blank = x.new_full((m, height * width + 1), -1.0)
        score = blank.scatter_reduce(1, index, value, "amax")  # (m, pixels + 1)
        # a pixel takes the box of the match that it got its score from
        wins = value == score.gather(1, index)
        at = torch.stack([column, y, column, y], -1).to(x)
        boxes = state.boxes[k] + at  # (m, matches, 4)
        layers = [(CERTAINTY * (score[:, :-1] - EVEN))]
        middle = torch.arange(height * width, device=x.device)
        centers = (middle % width + 0.5, middle // width + 0.5)
        for side_of, sign in ((0, 1.0), (1, 1.0), (2, -1.0), (3, -1.0)):
            edge = boxes[..., side_of, None, None].expand_as(used).flatten(1)
            drawn = torch.full_like(blank, -1e6).scatter_reduce(
                1, index, torch.where(wins, edge, -1e6), "amax"
            )[:, :-1]
            reach = (sign * (centers[side_of % 2] - drawn)).clamp(0.1, 256)
            layers.append((reach / UNIT).expm1().log())
        return torch.stack(layers, 1).unflatten(-1, (height, width))
