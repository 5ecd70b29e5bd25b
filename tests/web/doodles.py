"""Doodles as people draw them: shapes, digits and letters as pen strokes."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

Strokes = list[list[list[float]]]  # strokes of points (x, y) in 0..1, y down


def _arc(x: float, y: float, w: float, h: float, a: float, b: float) -> NDArray:
    """Points of an ellipse around (x, y) from the angle a to b, in turns."""
    t = np.linspace(a, b, 24) * 2 * math.pi
    return np.stack([x + w * np.cos(t), y + h * np.sin(t)], 1)


def _line(*points: tuple[float, float]) -> NDArray:
    """Points along straight lines."""
    parts = [
        np.linspace(first, second, 10) for first, second in itertools.pairwise(points)
    ]
    return np.concatenate(parts)


def _star(spikes: int) -> NDArray:
    angles = [
        (-0.25 + k * (spikes // 2) / spikes) * 2 * math.pi for k in range(spikes + 1)
    ]
    return _line(*((0.5 + 0.4 * math.cos(a), 0.5 + 0.4 * math.sin(a)) for a in angles))


SHAPES: dict[str, list[NDArray]] = {
    "circle": [_arc(0.5, 0.5, 0.35, 0.35, 0, 1)],
    "cross": [_line((0.2, 0.2), (0.8, 0.8)), _line((0.8, 0.2), (0.2, 0.8))],
    "plus": [_line((0.5, 0.1), (0.5, 0.9)), _line((0.1, 0.5), (0.9, 0.5))],
    "square": [_line((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8), (0.2, 0.2))],
    "triangle": [_line((0.5, 0.15), (0.85, 0.8), (0.15, 0.8), (0.5, 0.15))],
    "star": [_star(5)],
    "heart": [
        np.concatenate(
            [
                _line((0.5, 0.85), (0.16, 0.42)),
                _arc(0.33, 0.32, 0.17, 0.17, 0.45, 1.0),
                _arc(0.67, 0.32, 0.17, 0.17, 0.5, 1.05),
                _line((0.84, 0.42), (0.5, 0.85)),
            ]
        )
    ],
    "arrow": [
        _line((0.1, 0.5), (0.9, 0.5)),
        _line((0.65, 0.25), (0.9, 0.5), (0.65, 0.75)),
    ],
    "smile": [
        _arc(0.5, 0.5, 0.4, 0.4, 0, 1),
        _line((0.36, 0.35), (0.36, 0.42)),
        _line((0.64, 0.35), (0.64, 0.42)),
        _arc(0.5, 0.52, 0.2, 0.18, 0.05, 0.45),
    ],
    "house": [
        _line((0.2, 0.9), (0.2, 0.45), (0.8, 0.45), (0.8, 0.9), (0.2, 0.9)),
        _line((0.15, 0.45), (0.5, 0.1), (0.85, 0.45)),
    ],
    "spiral": [
        np.stack(
            [
                [0.5 + 0.4 * t * math.cos(5 * math.pi * t) for t in np.linspace(0, 1)],
                [0.5 + 0.4 * t * math.sin(5 * math.pi * t) for t in np.linspace(0, 1)],
            ],
            1,
        )
    ],
    "wave": [
        np.stack(
            [
                np.linspace(0.1, 0.9),
                0.5 + 0.15 * np.sin(np.linspace(0, 5 * math.pi)),
            ],
            1,
        )
    ],
}
DIGITS: dict[str, list[NDArray]] = {
    "0": [_arc(0.5, 0.5, 0.25, 0.38, -0.25, 0.75)],
    "1": [_line((0.35, 0.3), (0.52, 0.12), (0.52, 0.88))],
    "2": [
        np.concatenate(
            [
                _arc(0.5, 0.32, 0.25, 0.2, -0.5, 0.1),
                _line((0.7, 0.45), (0.25, 0.88), (0.78, 0.88)),
            ]
        )
    ],
    "3": [
        np.concatenate(
            [
                _arc(0.48, 0.31, 0.22, 0.19, -0.45, 0.25),
                _arc(0.48, 0.69, 0.25, 0.19, -0.25, 0.45),
            ]
        )
    ],
    "4": [_line((0.6, 0.88), (0.6, 0.12), (0.22, 0.62), (0.8, 0.62))],
    "5": [
        np.concatenate(
            [
                _line((0.72, 0.14), (0.35, 0.14), (0.31, 0.45)),
                _arc(0.48, 0.64, 0.26, 0.23, -0.35, 0.4),
            ]
        )
    ],
    "6": [
        np.concatenate(
            [
                _line((0.65, 0.12), (0.35, 0.45)),
                _arc(0.5, 0.66, 0.22, 0.22, -0.5, 0.52),
            ]
        )
    ],
    "7": [_line((0.25, 0.14), (0.76, 0.14), (0.42, 0.88))],
    "8": [
        np.concatenate(
            [
                _arc(0.5, 0.31, 0.19, 0.18, 0.25, -0.75),
                _arc(0.5, 0.69, 0.23, 0.2, -0.25, 0.75),
            ]
        )
    ],
    "9": [
        np.concatenate(
            [
                _arc(0.5, 0.33, 0.2, 0.2, 0, -1),
                _line((0.7, 0.33), (0.66, 0.88)),
            ]
        )
    ],
}
LETTERS: dict[str, list[NDArray]] = {
    "A": [
        _line((0.2, 0.88), (0.5, 0.12), (0.8, 0.88)),
        _line((0.32, 0.6), (0.68, 0.6)),
    ],
    "B": [
        _line((0.3, 0.12), (0.3, 0.88)),
        np.concatenate(
            [
                _arc(0.3, 0.31, 0.32, 0.19, -0.25, 0.25),
                _arc(0.3, 0.69, 0.38, 0.19, -0.25, 0.25),
            ]
        ),
    ],
    "C": [_arc(0.55, 0.5, 0.32, 0.38, -0.12, -0.88)],
    "E": [
        _line((0.75, 0.12), (0.28, 0.12), (0.28, 0.88), (0.75, 0.88)),
        _line((0.28, 0.5), (0.66, 0.5)),
    ],
    "H": [
        _line((0.25, 0.12), (0.25, 0.88)),
        _line((0.75, 0.12), (0.75, 0.88)),
        _line((0.25, 0.5), (0.75, 0.5)),
    ],
    "K": [
        _line((0.28, 0.12), (0.28, 0.88)),
        _line((0.75, 0.12), (0.28, 0.52), (0.78, 0.88)),
    ],
    "M": [_line((0.15, 0.88), (0.22, 0.12), (0.5, 0.6), (0.78, 0.12), (0.85, 0.88))],
    "S": [
        np.concatenate(
            [
                _arc(0.5, 0.31, 0.24, 0.19, -0.1, -0.75),
                _arc(0.5, 0.69, 0.24, 0.19, -0.25, 0.42),
            ]
        )
    ],
    "T": [_line((0.15, 0.14), (0.85, 0.14)), _line((0.5, 0.14), (0.5, 0.88))],
    "Z": [_line((0.2, 0.14), (0.8, 0.14), (0.2, 0.86), (0.82, 0.86))],
}
KINDS = {"shapes": SHAPES, "digits": DIGITS, "letters": LETTERS}


def doodle(name: str, rng: np.random.Generator) -> Strokes:
    """One drawing: somewhere on the canvas, of some size, turned a little, slanted, and
    with a hand that trembles.
    """
    strokes = {**SHAPES, **DIGITS, **LETTERS}[name]
    angle, slant = rng.normal(0, 0.12), rng.normal(0, 0.12)
    turn = np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    scale = rng.uniform(0.35, 0.95) * np.exp(rng.normal(0, 0.12, 2))
    matrix = turn @ np.array([[1, slant], [0, 1]]) @ np.diag(scale)
    ends = np.concatenate(strokes)
    middle = (ends.min(0) + ends.max(0)) / 2
    room = np.abs((ends - middle) @ matrix.T).max(0)
    place = rng.uniform(np.minimum(room + 0.04, 0.5), np.maximum(0.96 - room, 0.5))
    found = []
    for stroke in strokes:
        # a slow drift of the hand along the stroke, and a fast tremble
        t = np.linspace(0, 1, len(stroke))
        drift = sum(
            rng.normal(0, 0.028, 2)
            * np.sin(math.pi * k * t + rng.uniform(0, 6))[:, None]
            for k in (1, 2, 3)
        )
        tremble = rng.normal(0, 0.006, stroke.shape)
        shift = rng.normal(0, 0.015, 2)
        points = (stroke - middle + drift + tremble + shift) @ matrix.T + place
        found.append(points.clip(0, 1).tolist())
    return found
