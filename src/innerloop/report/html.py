"""Pieces of HTML. Every text is escaped here, in `text`, or by `table`."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from innerloop.measurements import Report, Table

SIDE = 64  # largest side of a picture, in pixels
COLORS = 12


class Html(str):
    """A text that is HTML already."""

    __slots__ = ()


def text(value: Any) -> Html:
    """Any value as HTML."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def tag(name: str, *content: Any, **attributes: Any) -> Html:
    """An element. An underscore at the end of an attribute's name is left out, others
    stand for a hyphen; attributes that are None or False are left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            spelled = key.rstrip("_").replace("_", "-")
            words.append(
                spelled if value is True else f'{spelled}="{escape(str(value))}"'
            )
    return Html(f"<{' '.join(words)}>{''.join(map(text, content))}</{name}>")


def join(parts: Iterable[Any]) -> Html:
    return Html("".join(map(text, parts)))


def paragraph(*content: Any, class_: str | None = None) -> Html:
    return tag("p", *content, class_=class_)


def soft(*content: Any) -> Html:
    """A remark."""
    return paragraph(*content, class_="soft")


def table(
    caption: Any,
    head: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    *,
    class_: str | None = None,
    hidden: bool = False,
) -> Html:
    """A table whose first column names its rows.

    Args:
        hidden: whether only screen readers see the caption.
    """
    columns = [tag("th", cell, scope="col") for cell in head]
    body = [
        tag("tr", tag("th", first, scope="row"), *(tag("td", c) for c in cells))
        for first, *cells in rows
    ]
    shown = tag(
        "table",
        tag("caption", caption, class_="visually-hidden" if hidden else None),
        tag("thead", tag("tr", *columns)),
        tag("tbody", *body),
        class_=class_,
    )
    return tag(
        "div", shown, class_="scroll", tabindex=0, role="region", aria_label="table"
    )


def measured(found: Table) -> Html:
    """A table of a result."""
    head, *rows = found.cells()
    return table(found.title, head, rows)


def result(report: Report, tables: int | None = None) -> Html:
    """The tables of a result and its notes; those after `tables` can be opened."""
    shown = [measured(found) for found in report.tables if found.rows]
    further = shown[tables:] if tables is not None else []
    more = details("Further tables", *further) if further else ""
    return join([*shown[:tables], more, *map(soft, dict.fromkeys(report.notes))])


def details(summary: Any, *content: Any) -> Html:
    return tag("details", tag("summary", summary), *content)


def badge(place: int) -> Html:
    """The letter of a run in its color."""
    return tag("span", letter(place), class_="badge", style=color(place))


def letter(place: int) -> str:
    """A, B, ..., Z, A1, B1, ..."""
    turn = place // 26
    return chr(ord("A") + place % 26) + (str(turn) if turn else "")


def dot(place: int, name: str = "") -> Html:
    """The number of a class in its color."""
    hidden = tag("span", name, class_="visually-hidden") if name else ""
    number = tag("span", place + 1, aria_hidden="true")
    return tag("span", number, hidden, class_="dot", style=color(place))


def trimmed(text: str, most: int = 18) -> str:
    """A text without its middle, where it is long."""
    if len(text) <= most:
        return text
    left = (most - 1) // 2
    return f"{text[:left]}…{text[left + 1 - most :]}"


def code(*content: Any) -> Html:
    return tag("code", *content)


def color(place: int) -> str:
    """The style of what belongs to a run or a class."""
    return f"--c: var(--c{place % COLORS})"


def pixels(x: Tensor) -> Image.Image:
    """An input (channels, h, w) in 0..1 as an image."""
    array = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    if array.shape[2] not in (1, 3):
        array = array[..., :1]
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def picture(image: Image.Image, alt: str, side: int = SIDE, **attributes: Any) -> Html:
    """An image as inline PNG, at most `side` pixels wide and high."""
    image = image.copy()
    image.thumbnail((side, side))
    return png(encoded(image), alt, image.size, **attributes)


def encoded(image: Image.Image) -> bytes:
    memory = io.BytesIO()
    image.save(memory, "PNG", optimize=True)
    return memory.getvalue()


def png(content: bytes, alt: str, size: tuple[int, int], **attributes: Any) -> Html:
    source = "data:image/png;base64," + base64.b64encode(content).decode()
    width, height = size
    words = tag("img", src=source, alt=alt, width=width, height=height, **attributes)
    return Html(words.removesuffix("</img>"))
