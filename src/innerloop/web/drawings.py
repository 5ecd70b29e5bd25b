"""Strokes on a canvas as pictures like those of Omniglot: ink on paper, 105 x 105
pixels, drawn with one pen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from innerloop.web.http import SHARE, Schema, array, record

SIDE = 105  # pixels
EXTENT = 68.0  # of a character, the median of Omniglot
PEN = 5.5  # pixels, as in Omniglot
SMALLEST = 0.08  # of the canvas: a smaller drawing, such as a dot, stays small
FINE = 4  # times finer, before it is scaled down
SEGMENTS = 4000  # that are drawn; of more, every second, third ... point
MOST_STROKES, MOST_POINTS = 200, 2000

POINT: Schema = {"type": "array", "items": SHARE, "minItems": 2, "maxItems": 2}
DRAWING = record(strokes=array(array(POINT, MOST_POINTS, 1), MOST_STROKES, 1))


def picture(strokes: list[list[list[float]]]) -> Image.Image:
    """The picture of strokes, each a list of points (x, y) in 0..1, y down; of the size
    that characters of Omniglot have, wherever and however large they are drawn.
    """
    lines = [np.asarray(stroke, np.float64) for stroke in strokes]
    every = np.concatenate(lines)
    low, high = every.min(0), every.max(0)
    scale = FINE * EXTENT / max(float((high - low).max()), SMALLEST)
    side = FINE * SIDE
    image = Image.new("L", (side, side), 255)
    pen = ImageDraw.Draw(image)
    step = 1 + len(every) // SEGMENTS
    for line in lines:
        points = (line - (low + high) / 2) * scale + side / 2
        _draw(pen, _thinned(points, step))
    return image.reduce(FINE)


def _draw(pen: ImageDraw.ImageDraw, points: NDArray[np.float64]) -> None:
    radius = FINE * PEN / 2
    at = [(float(x), float(y)) for x, y in points]
    if len(at) > 1:
        pen.line(at, fill=0, width=round(2 * radius))
    for x, y in at:  # round ends and corners
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)


def _thinned(points: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Points without those that lie within half a pixel of the path before, and every
    `step`-th of these; the first and the last stay.
    """
    apart = np.hypot(*np.diff(points, axis=0).T)
    bins = (np.concatenate([[0.0], apart.cumsum()]) / FINE).astype(np.int64)
    kept = np.concatenate([[True], np.diff(bins) > 0])
    index = np.flatnonzero(kept)[::step]
    if index[-1] != len(points) - 1:
        index = np.append(index, len(points) - 1)
    return points[index]
