"""Charts as inline SVG, in the colors of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from innerloop.report.html import Html, color, join, tag

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 40
DASHES = ("", "7 4", "2 4", "9 3 2 3")


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: in the tooltips.
        place: of its run: color and dashes.
        points: (x, y), in order.
        half: half the height of the band around each point, or empty.
        marks: whether points are marked.
    """

    name: str
    place: int
    points: Sequence[tuple[float, float]]
    half: Sequence[float] = ()
    marks: bool = True


def short(value: float) -> str:
    """A number in few characters."""
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    if size and size < 1e-3:
        return f"{value:.0e}"
    return f"{value:.4g}"


def percent(value: float) -> str:
    return f"{100 * value:.4g}\u00a0%"  # in one line


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * f for f in (1, 2, 5, 10) if size * f >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


class Scale:
    """From values to places on an axis, by logarithms where that is wanted."""

    def __init__(
        self, low: float, high: float, start: float, end: float, log: bool = False
    ):
        self.log = log
        if not high > low:
            low, high = low - (abs(low) * 0.1 or 1), high + (abs(high) * 0.1 or 1)
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        low, high = self._of(self.low), self._of(self.high)
        share = (self._of(value) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)

    def _of(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self) -> list[float]:
        if not self.log:
            return ticks(self.low, self.high)
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        every = [m * 10.0**e for e in range(low, high + 1) for m in (1, 2, 5)]
        inside = [t for t in every if self.low <= t <= self.high]
        return inside if len(inside) < 7 else inside[:: len(inside) // 5]


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    show: Callable[[float], str] = short,
    log: bool = False,
    from_zero: bool = False,
) -> Html:
    """Lines over a common axis, with bands.

    Args:
        title: what it shows, for who cannot see it.
        show: how values are written.
        log: whether the vertical axis may be logarithmic; it is where the values are of
            several orders.
        from_zero: whether the horizontal axis begins at 0.
    """
    lows, highs = [], []
    for one in series:
        half = one.half or [0.0] * len(one.points)
        lows += [y - h for (_, y), h in zip(one.points, half, strict=True)]
        highs += [y + h for (_, y), h in zip(one.points, half, strict=True)]
    xs = [x for one in series for x, _ in one.points]
    low, high = min(lows), max(highs)
    log = log and low > 0 and high / low > 30
    pad = 0.0 if log else 0.05 * (high - low)
    across = Scale(0 if from_zero else min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = Scale(low - pad, high + pad, HEIGHT - BOTTOM, TOP, log)
    parts = [axes(across, up, x_label, y_label, show)]
    for one in series:
        places = [(across(x), up(y)) for x, y in one.points]
        if one.half:
            parts.append(_band(one, across, up))
        dashes = DASHES[one.place % len(DASHES)] or None
        parts.append(
            tag(
                "path",
                d=path(places),
                class_="line",
                stroke_dasharray=dashes,
                style=color(one.place),
            )
        )
        if one.marks:
            parts.append(_marks(one, places, show))
    return chart(title, parts)


def path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in places)


def _band(one: Series, across: Scale, up: Scale) -> Html:
    pairs = list(zip(one.points, one.half, strict=True))
    upper = [(across(x), up(y + h)) for (x, y), h in pairs]
    lower = [(across(x), up(max(y - h, up.low))) for (x, y), h in reversed(pairs)]
    return tag(
        "path", d=path([*upper, *lower]) + "Z", class_="band", style=color(one.place)
    )


def _marks(
    one: Series, places: Sequence[tuple[float, float]], show: Callable[[float], str]
) -> Html:
    dots = [
        tag(
            "circle",
            tag("title", f"{one.name}: {show(value)} at {short(at)}"),
            cx=x,
            cy=y,
            r=3,
        )
        for (at, value), (x, y) in zip(one.points, places, strict=True)
    ]
    return tag("g", *dots, class_="marks", style=color(one.place))


def axes(
    across: Scale,
    up: Scale,
    x_label: str,
    y_label: str,
    show: Callable[[float], str] = short,
    show_x: Callable[[float], str] = short,
) -> Html:
    """Grid lines, numbers and names of two axes."""
    parts = []
    for value in up.ticks():
        y = up(value)
        parts += [
            tag("line", x1=LEFT, x2=across.end, y1=y, y2=y, class_="grid"),
            tag("text", show(value), x=LEFT - 7, y=y + 4, text_anchor="end"),
        ]
    bottom = up.start
    parts.append(
        tag("line", x1=LEFT, x2=across.end, y1=bottom, y2=bottom, class_="axis")
    )
    for value in across.ticks():
        x = across(value)
        parts.append(
            tag("text", show_x(value), x=x, y=bottom + 16, text_anchor="middle")
        )
    middle = (LEFT + across.end) / 2
    parts += [
        tag(
            "text",
            x_label,
            x=middle,
            y=bottom + 33,
            text_anchor="middle",
            class_="name",
        ),
        tag("text", y_label, x=LEFT, y=TOP - 1, class_="name", dy="-.1em"),
    ]
    return tag("g", *parts, class_="axes")


def chart(
    title: str,
    parts: Sequence[Html],
    width: int = WIDTH,
    height: int = HEIGHT,
    kind: str = "",
) -> Html:
    """A drawing with a name for who cannot see it."""
    return tag(
        "svg",
        join(parts),
        viewBox=f"0 -10 {width} {height + 10}",
        role="img",
        aria_label=title,
        class_=f"chart {kind}".strip(),
    )
