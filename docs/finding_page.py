"""Draw the page of docs/finding.md, a scanned plan with symbols, and a crop of each
symbol: python docs/finding_page.py FOLDER.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = (1500, 1000)
SIDE, FINE = 56, 4  # pixels of a symbol, and how much finer it is drawn
INK, PAPER = 40, 235


def symbol(name: str) -> Image.Image:
    """Ink on a transparent square, as brightness."""
    side = SIDE * FINE
    image = Image.new("L", (side, side), 0)
    pen, wide = ImageDraw.Draw(image), 4 * FINE
    low, high, half = 3 * FINE, side - 3 * FINE, side // 2
    if name == "lamp":
        pen.ellipse((low, low, high, high), outline=255, width=wide)
        pen.line((0.2 * side, 0.2 * side, 0.8 * side, 0.8 * side), 255, wide)
        pen.line((0.2 * side, 0.8 * side, 0.8 * side, 0.2 * side), 255, wide)
    elif name == "valve":
        pen.polygon((low, 0.2 * side, low, 0.8 * side, half, half), 0, 255, wide)
        pen.polygon((high, 0.2 * side, high, 0.8 * side, half, half), 0, 255, wide)
        pen.line((half, half, half, low), 255, wide)
        pen.line((0.3 * side, low + 6, 0.7 * side, low + 6), 255, wide)
    elif name == "socket":
        pen.arc((low, low, high, high), 180, 360, 255, wide)
        pen.line((low, half, high, half), 255, wide)
        pen.line((half, half, half, high), 255, wide)
    elif name == "motor":
        pen.ellipse((low, low, high, high), outline=255, width=wide)
        points = (0.3, 0.7, 0.3, 0.3, 0.5, 0.55, 0.7, 0.3, 0.7, 0.7)
        pen.line([side * p for p in points], 255, wide, "curve")
    else:
        pen.rectangle((low, 0.3 * side, high, 0.7 * side), outline=255, width=wide)
        pen.line((low, 0.7 * side, high, 0.3 * side), 255, wide)
    return image


def main(folder: Path) -> None:
    rng = np.random.default_rng(4)
    folder.mkdir(parents=True, exist_ok=True)
    ink = Image.new("L", SIZE, 0)
    pen = ImageDraw.Draw(ink)
    for _ in range(16):  # pipes and walls
        x, y = (int(rng.integers(60, side - 60)) for side in SIZE)
        length = int(rng.integers(200, 700))
        end = (x + length, y) if rng.random() < 0.5 else (x, y + length)
        pen.line((x, y, *end), fill=150, width=int(rng.integers(2, 5)))
    names = ("lamp", "valve", "socket", "motor", "heater")
    for row in range(6):
        for column in range(9):
            name = names[int(rng.integers(len(names)))]
            left, top = (int(rng.integers(0, 60)) for _ in range(2))
            place = 40 + column * 160 + left, 40 + row * 158 + top
            text = f"{name[0].upper()}{rng.integers(10, 99)}"
            pen.text((place[0] + 80, place[1] + 50), text, 190, font_size=22)
            side = round(SIDE * 2 ** rng.uniform(-0.4, 0.4))
            turned = symbol(name).resize((side, side), Image.Resampling.BOX)
            turned = turned.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, True)
            pen.rectangle(
                (place[0], place[1], place[0] + turned.width, place[1] + turned.height),
                0,
            )
            ink.paste(turned, place)
    shade = (
        np.linspace(1.0, 0.72, SIZE[0])[None] * np.linspace(0.9, 1.0, SIZE[1])[:, None]
    )
    share = np.asarray(ink.filter(ImageFilter.GaussianBlur(0.9))) / 255
    gray = (PAPER - (PAPER - INK) * share) * shade + rng.normal(0, 7, share.shape)
    Image.fromarray(gray.clip(0, 255).astype(np.uint8)).save(folder / "page.png")
    for name in names[:4]:
        small = symbol(name).resize((SIDE, SIDE), Image.Resampling.BOX)
        crop = PAPER - (PAPER - INK) * (np.asarray(small) / 255)
        Image.fromarray(crop.astype(np.uint8)).save(folder / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
