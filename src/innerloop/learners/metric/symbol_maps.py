"""Symbols in images as maps: which pixels are theirs, and how far their boxes reach."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.likelihood import Likelihood, Metrics
from innerloop.engine.boxes import Boxes, overlaps, suppressed
from innerloop.engine.precision import widened

MAPS = 5  # mask, and the distances to left, top, right and bottom
UNIT = 8.0  # pixels in a unit of the raw distances
SYMBOL, WINDOW = 20, 32  # pixels: the larger side of an example, and around it
OUTSIDE = -8.0  # the logit of a pixel that no match covers
THRESHOLD = 0.3  # of the probability of a mask, as Michaelis et al. 2018


@dataclass(frozen=True)
class SymbolMaps(Likelihood):
    """Outputs are five maps of an image, (5 height width): the logits that a pixel
    belongs to the symbol, and raw distances from the pixel to the left, top, right and
    bottom of the symbol's box (softplus makes them distances in units of 8 pixels).
    Targets are ones and zeros, and distances in pixels, read where there are ones.

    The negative log-likelihood is that of the mask, summed over pixels, plus -ln of the
    intersection over union of predicted and true box, summed over the pixels of
    symbols; divided by their number. Tian, Shen, Chen and He 2019, "FCOS: fully
    convolutional one-stage object detection", arXiv:1904.01355, eq. (2), with all
    pixels of a symbol instead of those of its box, and without the focal loss.

    Args:
        size: height and width of the maps.
    """

    size: tuple[int, int] = (96, 96)
    score = "iou"
    percent = ("iou",)
    higher_is_better = True

    def maps(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (..., 5 height width) as masks (..., height, width) and distances
        (..., 4, height, width).
        """
        maps = values.unflatten(-1, (MAPS, *self.size))
        return maps[..., 0, :, :], maps[..., 1:, :, :]

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        logits, raw = self.maps(widened(outputs))
        mask, true = self.maps(y)
        entropy = F.softplus(logits) - logits * mask
        reach = UNIT * F.softplus(raw)  # (m, 4, height, width)
        both = torch.minimum(reach, true)
        common = (both[:, 0] + both[:, 2]) * (both[:, 1] + both[:, 3])
        sizes = [(d[:, 0] + d[:, 2]) * (d[:, 1] + d[:, 3]) for d in (reach, true)]
        # outside symbols the true distances are 0
        iou = (common + 1e-6) / (sizes[0] + sizes[1] - common + 1e-6)
        total = entropy - mask * iou.clamp_min(1e-6).log()
        return total.sum() / mask.sum().clamp_min(1)

    def metrics(self, outputs: Tensor, y: Tensor) -> Metrics:
        """The intersection over union of the masks, over images with the symbol."""
        found, mask = self.probability(outputs.detach()) > THRESHOLD, self.maps(y)[0]
        both = (found * mask).sum((-2, -1))
        either = found.sum((-2, -1)) + mask.sum((-2, -1)) - both
        holds = (mask.sum((-2, -1)) > 0).to(both)
        iou = both / either.clamp_min(1)
        return {"iou": (iou * holds).sum() / holds.sum().clamp_min(1)}

    def probability(self, outputs: Tensor) -> Tensor:
        """The probability that a pixel is the symbol's (..., height, width)."""
        return self.maps(widened(outputs))[0].sigmoid()

    def mean(self, outputs: Tensor) -> Tensor:
        logits, raw = self.maps(outputs)
        parts = [logits[..., None, :, :].sigmoid(), UNIT * F.softplus(raw)]
        return torch.cat(parts, -3).flatten(-3)

    def boxes(self, outputs: Tensor, least: float = THRESHOLD) -> Boxes:
        """The boxes of an image from its outputs (5 height width): the pixels of a
        symbol vote for its box, each with its probability.

        Args:
            least: smallest probability of a pixel that votes.
        """
        return boxes_of(outputs.unflatten(-1, (MAPS, *self.size)), least)

    def true_boxes(self, y: Tensor) -> Tensor:
        """The boxes (n, 4) in targets (5 height width)."""
        mask, reach = self.maps(y)
        return _around(mask, reach, mask > 0.5)[0].round().unique(dim=0)


def boxes_of(maps: Tensor, least: float = THRESHOLD) -> Boxes:
    """The boxes of an image from its output maps (5, height, width)."""
    mask, reach = widened(maps[0]).sigmoid(), UNIT * F.softplus(widened(maps[1:]))
    return _voted(mask, reach, least)


def ink_boxes(ink: Tensor) -> Tensor:
    """The boxes (n, 4) around what is nearer to the lightest pixel than to black in
    windows (n, height, width), from their middle.
    """
    used = ink > 0.5 * ink.amax((-2, -1), keepdim=True)
    low, high = [], []
    for axis in (-2, -1):  # columns, then rows
        lines, size = used.any(axis), ink.shape[-3 - axis]
        place = torch.arange(size, device=ink.device).to(ink)
        low.append(torch.where(lines, place, size).amin(-1) - size / 2)
        high.append(torch.where(lines, place + 1, 0.0).amax(-1) - size / 2)
    return torch.stack([*low, *high], -1)


def painted(logits: Tensor, covers: Tensor, boxes: Tensor) -> Tensor:
    """Output maps (m, 5, height, width) from the logits (m, t) and boxes (m, t, 4) of
    matches in m images, and the pixels that each covers (m, t, height, width): a pixel
    belongs to the best match that covers it.
    """
    height, width = covers.shape[-2:]
    score, match = torch.where(covers, logits[..., None, None], OUTSIDE).max(1)
    index = match.flatten(1)[..., None].expand(-1, -1, 4)
    left, top, right, bottom = boxes.gather(1, index).unbind(-1)  # (m, pixels)
    pixel = torch.arange(height * width, device=logits.device)
    x, y = pixel % width + 0.5, pixel // width + 0.5
    reach = torch.stack([x - left, y - top, right - x, bottom - y], 1)
    raw = (reach.clamp(0.1, 256) / UNIT).expm1().log()
    return torch.cat([score.flatten(1)[:, None], raw], 1).unflatten(-1, (height, width))


def best_places(scores: Tensor, near: int, most: int) -> tuple[Tensor, Tensor]:
    """The largest of scores (m, height, width) that no score within `near` places
    exceeds, at most `most`: scores (m, t) and places (m, t), row by row.
    """
    wide = F.max_pool2d(scores[:, None], 2 * near + 1, 1, near)[:, 0]
    peaks = torch.where(scores == wide, scores, -1e6).flatten(1)
    return peaks.topk(min(most, peaks.shape[1]))  # pyright: ignore[reportReturnType]


def _around(mask: Tensor, reach: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """The boxes (n, 4) of the pixels that are chosen, and their probabilities (n,)."""
    row, column = where.nonzero(as_tuple=True)
    left, top, right, bottom = reach[:, row, column]
    x, y = column + 0.5, row + 0.5
    boxes = torch.stack([x - left, y - top, x + right, y + bottom], -1)
    return boxes, mask[row, column]


def _voted(mask: Tensor, reach: Tensor, least: float) -> Boxes:
    """Boxes from the probabilities (height, width) and distances (4, height, width) of
    pixels: the likeliest pixel gathers the votes for nearly its box, and so on.
    """
    boxes, weights = _around(mask, reach, mask > least)
    means, scores = [], []
    while len(boxes):
        best = boxes[weights.argmax()]
        share = overlaps(best[None], boxes)[0]
        votes, cast = boxes[share > 0.5], weights[share > 0.5]
        means.append((votes * cast[:, None]).sum(0) / cast.sum())
        # a few stray pixels are less certain than many
        scores.append(cast.sum() / (len(cast) + 8))
        left = share <= 0.3
        left[weights.argmax()] = False
        boxes, weights = boxes[left], weights[left]
    if not means:
        return Boxes(reach.new_zeros(0, 4), mask.new_zeros(0))
    found = Boxes(torch.stack(means), torch.stack(scores))
    kept = suppressed(found)
    return Boxes(found.boxes[kept], found.scores[kept])
