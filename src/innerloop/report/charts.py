"""The charts of a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from innerloop.core.task import Task
from innerloop.measurements import Estimate, Report
from innerloop.report.html import Html, color, join, tag
from innerloop.report.svg import (
    BOTTOM,
    DASHES,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    Series,
    axes,
    chart,
    line_chart,
    path,
    percent,
    short,
)

Log = Sequence[Mapping[str, Any]]
SQUARE = 320
GRID = 160  # places of a curve


def legend(names: Mapping[int, str], lines: bool = True) -> Html:
    """Which line is whose, by the number of a run."""
    entries = []
    for place, name in names.items():
        line = tag(
            "line",
            x1=1,
            x2=39,
            y1=8,
            y2=8,
            class_="line",
            stroke_dasharray=DASHES[place % len(DASHES)] or None,
        )
        box = tag("rect", x=6, y=2, width=24, height=12, rx=3, class_="bar")
        shown = tag(
            "svg",
            line if lines else box,
            viewBox="0 0 40 16",
            aria_hidden="true",
            style=color(place),
        )
        entries.append(tag("li", shown, name))
    return tag("ul", *entries, class_="legend")


def training_chart(
    logs: Mapping[int, tuple[str, Log]],
    value: str,
    by: str,
    title: str,
    show: Callable[[float], str] = short,
) -> Html | None:
    """A number of the logs over steps or seconds, or None where no log holds it.

    Args:
        logs: name and log of the runs, by their number.
        value: "loss" or "validation".
        by: "step" or "seconds".
    """
    series = []
    for place, (name, log) in logs.items():
        lines = [r for r in log if _finite(r.get(value)) and _finite(r.get(by))]
        points = [(float(r[by]), float(r[value])) for r in lines]
        half = [float(r.get(f"{value}_interval") or 0.0) for r in lines]
        half = half if value == "validation" else []
        if points:
            series.append(Series(name, place, points, half))
    if not series:
        return None
    label = {"step": "meta-steps", "seconds": "seconds of training"}[by]
    log = value == "loss"
    return line_chart(f"{title} by {label}", series, label, title, show, log, True)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def adaptation_chart(
    curves: Mapping[int, tuple[str, Sequence[Estimate]]], score: str, unit: str
) -> Html:
    """The score after every gradient step."""
    series = [
        Series(
            name,
            place,
            [(float(i), e.mean) for i, e in enumerate(curve)],
            [e.interval or 0.0 for e in curve],
        )
        for place, (name, curve) in curves.items()
    ]
    show = percent if unit == "%" else short
    title = f"{score} on queries"
    return line_chart(title, series, "gradient steps", title, show)


def interval_bar(estimate: Estimate, place: int, reach: float) -> Html:
    """A difference with its interval, on an axis from -reach to reach."""
    across = Scale(-reach, reach, 6, 202)
    low, high = (estimate.mean + s * (estimate.interval or 0.0) for s in (-1, 1))
    y = 12
    return tag(
        "svg",
        tag("line", x1=across(0), x2=across(0), y1=0, y2=24, class_="zero"),
        tag("line", x1=across(low), x2=across(high), y1=y, y2=y, class_="whisker"),
        tag("circle", cx=across(estimate.mean), cy=y, r=5),
        viewBox="0 0 208 24",
        class_="interval",
        aria_hidden="true",
        style=color(place),
    )


def reliability_chart(name: str, place: int, report: Report) -> Html:
    """How often predictions of a confidence are correct."""
    rows = report.tables[1].rows
    across = Scale(0.0, 1.0, LEFT, SQUARE - 2 * RIGHT)
    up = Scale(0.0, 1.0, SQUARE - BOTTOM, TOP)
    parts = [axes(across, up, "confidence", "accuracy", percent, percent)]
    for row in rows:
        span = str(row.labels["confidence of"])
        low, high = (float(v) / 100 for v in span.removesuffix(" %").split("-"))
        share, confidence, accuracy = (value.mean for value in row.values)
        left, right = across(low) + 1, across(high) - 1
        words = f"{span}: {percent(accuracy)} correct, {percent(share)} of predictions"
        at = up(confidence)
        parts += [
            tag(
                "rect",
                tag("title", words),
                x=left,
                y=up(accuracy),
                width=max(right - left, 1),
                height=round(up(0) - up(accuracy), 1),
                rx=2,
                class_="bar",
                style=f"opacity: {0.3 + 0.6 * min(1.0, 3 * share):.2f}",
            ),
            tag("line", x1=left, x2=right, y1=at, y2=at, class_="target"),
        ]
    parts.append(
        tag("line", x1=across(0), y1=up(0), x2=across(1), y2=up(1), class_="diagonal")
    )
    title = f"Reliability of {name}: accuracy by confidence"
    return chart(
        title, [tag("g", *parts, style=color(place))], SQUARE, SQUARE, "square"
    )


def curve_chart(
    number: int, task: Task, bands: Mapping[int, tuple[str, Tensor, Tensor]], x: Tensor
) -> Html:
    """A regression task: its points, and the prediction of every run at x (m,).

    Args:
        bands: name, mean (m,) and standard deviation (m,) of the runs, by number.
    """
    points = torch.cat([task.support.y, task.query.y])[:, 0].cpu()
    heights = torch.cat([points, *(m.cpu() for _, m, _ in bands.values())])
    low, high = float(heights.min()), float(heights.max())
    pad = 0.08 * (high - low or 1.0)
    across = Scale(float(x.min()), float(x.max()), LEFT, WIDTH - RIGHT)
    up = Scale(low - pad, high + pad, HEIGHT - BOTTOM, TOP)
    parts = [axes(across, up, "x", "y")]
    places = x.tolist()
    for place, (_, mean, deviation) in bands.items():
        if float(deviation.max()) > 0:
            edges = [
                [
                    (across(a), up(min(max(m + s * 2 * d, up.low), up.high)))
                    for a, m, d in zip(
                        places, mean.tolist(), deviation.tolist(), strict=True
                    )
                ]
                for s in (1, -1)
            ]
            parts.append(
                tag(
                    "path",
                    d=path([*edges[0], *reversed(edges[1])]) + "Z",
                    class_="band",
                    style=color(place),
                )
            )
        line = [(across(a), up(m)) for a, m in zip(places, mean.tolist(), strict=True)]
        parts.append(
            tag(
                "path",
                d=path(line),
                class_="line",
                style=color(place),
                stroke_dasharray=DASHES[place % len(DASHES)] or None,
            )
        )
    for examples, kind, r in ((task.query, "query", 3), (task.support, "support", 4.5)):
        for a, b in zip(
            examples.x.flatten().tolist(), examples.y[:, 0].tolist(), strict=True
        ):
            parts.append(tag("circle", cx=across(a), cy=up(b), r=r, class_=kind))
    names = " and ".join(name for name, _, _ in bands.values())
    title = f"Task {number}: {len(task.support.x)} support points and the curve that "
    return chart(f"{title}{names} predict", [join(parts)])
