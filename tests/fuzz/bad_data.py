"""Data to train on and to label, good and bad: folders of images, tables, arrays."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.values import NUMBERS, TEXTS, junk, mangled

SMILES = (
    "CCO",
    "c1ccccc1",
    "CC(=O)O",
    "CN",
    "C1CC1",
    "O=C=O",
    "CCN(CC)CC",
    "[Na+].[Cl-]",
)
BAD_SMILES = (
    "C1CC",
    "xyz",
    "",
    "C" * 3000,
    "[U",
    "*",
    "C.C.C",
    "é",
    "C(",
    "[999C]",
    "#",
)
CLASSES = tuple(f"class {i}" for i in range(10))


# ---------------------------------------------------------------------- images


def picture(rng: Random, kind: str = "PNG", mode: str = "L") -> bytes:
    width, height = rng.randint(1, 12), rng.randint(1, 12)
    size = width * height * len(Image.new(mode, (1, 1)).tobytes())
    content = rng.randbytes(size if mode != "1" else (width + 7) // 8 * height)
    memory = io.BytesIO()
    Image.frombytes(mode, (width, height), content).save(memory, kind)
    return memory.getvalue()


def png(width: int, height: int, depth: int = 8, color: int = 0) -> bytes:
    """A PNG whose header says this, with next to no pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 16))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


def _huge(rng: Random) -> bytes:
    sides = (0, 1, 9000, 20_000, 65_535, 2**31 - 1, 2**32 - 1)
    return png(rng.choice(sides), rng.choice(sides), rng.choice((1, 8, 16, 3)))


def _deep(rng: Random) -> bytes:
    """An image of more than 8 bits, or of floating point numbers."""
    kind: Any = rng.choice((np.uint16, np.int32, np.float32))
    pixels = np.frombuffer(rng.randbytes(100 * np.dtype(kind).itemsize), kind)
    if kind is np.float32 and rng.random() < 0.5:
        pixels = np.array([0.5, np.nan, np.inf, 1e30] * 25, np.float32)
    memory = io.BytesIO()
    with np.errstate(all="ignore"):
        Image.fromarray(pixels.reshape(10, 10).copy()).save(memory, "TIFF")
    return memory.getvalue()


def _animated(rng: Random) -> bytes:
    memory = io.BytesIO()
    frames = [Image.new("P", (5, 5), i) for i in range(3)]
    frames[0].save(memory, "GIF", save_all=True, append_images=frames[1:])
    return memory.getvalue()


MODES = ("1", "L", "LA", "RGB", "RGBA", "I;16")
IMAGES: dict[str, Callable[[Random], bytes]] = {
    "empty": lambda rng: b"",
    "text": lambda rng: b"this is not an image",
    "junk": junk,
    "huge header": _huge,
    "deep": _deep,
    "animated": _animated,
    "mode": lambda rng: picture(rng, "PNG", rng.choice(MODES)),
    "cmyk": lambda rng: picture(rng, "JPEG", "CMYK"),
    "other kind": lambda rng: picture(rng, rng.choice(("BMP", "GIF", "TIFF", "WEBP"))),
    "ppm": lambda rng: picture(rng, "PPM"),
    "eps": lambda rng: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "damaged png": lambda rng: mangled(rng, picture(rng))[0],
    "damaged jpeg": lambda rng: mangled(rng, picture(rng, "JPEG", "RGB"))[0],
    "damaged tiff": lambda rng: mangled(rng, picture(rng, "TIFF", "RGB"))[0],
    "damaged gif": lambda rng: mangled(rng, picture(rng, "GIF"))[0],
    "damaged webp": lambda rng: mangled(rng, picture(rng, "WEBP", "RGB"))[0],
    "damaged bmp": lambda rng: mangled(rng, picture(rng, "BMP", "RGB"))[0],
}
IMAGE_NAMES = (
    *("new.png", "new.PNG", "new.jpg", "new.tif", "new.txt", "new", ".hidden.png"),
    *("[b].png", "a b.png", "é.png", "new.gif", "new.heic", "x" * 240 + ".png"),
    *("\x1b[1m.png", "a\nb.png", "new.webp", "-.png", os.fsdecode(b"\xff.png")),
)


def write_pictures(root: Path, rng: Random, classes: int = 10, each: int = 3) -> None:
    for name in CLASSES[:classes]:
        (root / name).mkdir(parents=True)
        for i in range(each):
            (root / name / f"{i}.png").write_bytes(picture(rng))


def bad_pictures(root: Path, rng: Random) -> list[str]:
    """A folder of pictures with something wrong; returns what."""
    classes = rng.choice((10, 10, 10, 2, 1, 0))
    root.mkdir()
    write_pictures(root, rng, classes, rng.choice((3, 3, 3, 1)))
    done = [f"{root.name}: {classes} classes of pictures"]
    for _ in range(rng.randint(1, 3)):
        done.append(f"{root.name}: {_spoil_folder(root, rng)}")
    return done


def _spoil_folder(root: Path, rng: Random) -> str:
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    chosen = rng.choice(folders) if folders else root
    how = rng.choice(("image",) * 6 + ("all", "gone", "named", "link", "fifo", "file"))
    if how in ("image", "all"):
        kind = rng.choice(sorted(IMAGES))
        files = [p for p in sorted(chosen.iterdir()) if p.is_file()]
        named = chosen / rng.choice(IMAGE_NAMES)
        targets = files if how == "all" else [rng.choice([*files, named])]
        for file in targets:
            file.write_bytes(IMAGES[kind](rng))
        return f"{kind} in {[str(f.relative_to(root)) for f in targets]}"
    if how == "gone":
        for file in chosen.iterdir() if chosen != root else ():
            if file.is_file():
                file.unlink()
        return f"{chosen.name} emptied"
    if how == "named":
        name = rng.choice([n for n in (*TEXTS, *NUMBERS) if _fits(n)])
        if chosen != root and not (root / name).exists():
            chosen.rename(root / name)
        return f"{chosen.name} renamed to {name!r}"
    place = chosen / rng.choice(("x.png", "loop.png"))
    if place.exists() or place.is_symlink():
        return "nothing"
    if how == "link":
        target = rng.choice((place, Path("/dev/zero"), Path("/nonexistent"), root))
        place.symlink_to(target)
        return f"{place.name} links to {target.name}"
    if how == "fifo":
        os.mkfifo(place)
        return f"{place.name} is a pipe"
    (root / "stray.png").write_bytes(picture(rng))
    return "a stray picture beside the classes"


def _fits(name: str) -> bool:
    return bool(name) and name not in (".", "..") and "/" not in name and len(name) < 99


# ---------------------------------------------------------------------- tables

COLUMNS = {
    "text": ("text", "label"),
    "table": ("size", "color", "when", "y"),
    "molecules": ("smiles", "label"),
    "programs": ("name", "output"),
    "languages": ("source", "target"),
    "summaries": ("text", "summary"),
}


def rows(kind: str, rng: Random) -> list[list[str]]:
    """The header and the rows of a good table."""
    found = [list(COLUMNS[kind])]
    for c in range(10):
        for i in range(3):
            cells = {
                "text": [f"word{c} thing{i} and {rng.randint(0, 99)}", CLASSES[c]],
                "table": [str(c + i / 10), "red", f"2020-01-0{i + 1}", CLASSES[c]],
                "molecules": [SMILES[(c + i) % len(SMILES)], CLASSES[c % 3]],
                "programs": [f"a{c}-b{i}", f"b{i}" if c < 2 else ""],
                "languages": [f"w{c % 3} w{i}", f"W{c % 3}" if c < 2 else ""],
                "summaries": [f"A b{c}. C is d{i}.", f"b{c}" if c < 2 else ""],
            }[kind]
            found.append(cells)
    return found


def write_table(file: Path, kind: str, rng: Random) -> None:
    lines = [",".join(cells) for cells in rows(kind, rng)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


ODD_CELLS = (
    *TEXTS,
    *NUMBERS,
    *BAD_SMILES,
    *('"', "a,b", '"a""b', "1/2/2020", "2020-13-45", "2020-01-01T00:00:00+99:99"),
    *("12%", "$5", "1 000", "1.000,5", "NaN", "N/A", "null", "#REF!", "9" * 400),
)


def bad_table(file: Path, kind: str, rng: Random) -> list[str]:
    """A table with something wrong; returns what."""
    table = rows(kind, rng)
    done = []
    for _ in range(rng.randint(1, 3)):
        done.append(f"{file.name}: {_spoil_rows(table, kind, rng)}")
    delimiter = rng.choice((",", ",", ",", ";", "\t", "|", " "))
    ending = rng.choice(("\n", "\n", "\r\n", "\r", "\n\n"))
    text = ending.join(delimiter.join(cells) for cells in table) + ending
    encoding = rng.choice(
        ("utf-8",) * 6 + ("utf-8-sig", "utf-16", "utf-16-le", "cp1252", "utf-32")
    )
    content = text.encode(
        encoding, "surrogateescape" if "utf-8" in encoding else "replace"
    )
    done.append(f"{file.name}: {encoding}, {delimiter!r}, {ending!r}")
    how = rng.choice(("",) * 6 + ("mangled", "gzip", "zip", "nul", "magic", "folder"))
    if how == "mangled":
        content, what = mangled(rng, content)
        how = f"mangled: {what}"
    elif how == "gzip":
        content = gzip.compress(content)
        content = content if rng.random() < 0.5 else mangled(rng, content)[0]
    elif how == "zip":
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as opened:
            opened.writestr("xl/workbook.xml", content[:100])
        content = memory.getvalue()
    elif how == "nul":
        place = rng.randrange(len(content) + 1)
        content = content[:place] + b"\0" + content[place:]
    elif how == "magic":
        magic = (b"PAR1", b"\xd0\xcf\x11\xe0", b"PK\x03\x04", b"\xff\xfe", b"\xfe\xff")
        content = rng.choice(magic) + content
    elif how == "folder":
        file.mkdir()
        return [*done, f"{file.name} is a folder"]
    file.write_bytes(content)
    return [*done, f"{file.name}: {how}"] if how else done


def _spoil_rows(table: list[list[str]], kind: str, rng: Random) -> str:
    how = rng.choice(
        ("cell",) * 4 + ("ragged", "column", "none", "header", "names", "long")
    )
    row = rng.randrange(len(table)) if table else 0
    if how == "cell" and table and table[row]:
        place, value = rng.randrange(len(table[row])), rng.choice(ODD_CELLS)
        table[row][place] = value
        return f"cell {row}, {place} is {value!r:.40}"
    if how == "ragged" and table:
        table[row] = table[row][:-1] if rng.random() < 0.5 else [*table[row], "more"]
        return f"row {row} has {len(table[row])} cells"
    if how == "column":
        place, value = rng.randrange(len(COLUMNS[kind])), rng.choice(ODD_CELLS)
        for cells in table[1:]:
            if place < len(cells):
                cells[place] = value
        return f"column {place} is {value!r:.40}"
    if how == "none":
        del table[rng.choice((0, 1, 2, 3)) :]
        return f"only {len(table)} rows"
    if how == "header":
        del table[:1]
        return "no header"
    if how == "names" and table:
        table[0] = [rng.choice((*table[0], *TEXTS)) for _ in table[0]]
        return f"the header is {table[0]!r:.60}"
    if how == "long" and table and table[row:]:
        table[row] = ["y" * rng.choice((300, 20_000, 200_000))] * max(
            1, len(table[row])
        )
        return f"row {row} is very long"
    return "nothing"


# ---------------------------------------------------------------------- arrays


def write_arrays(file: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(10), 3)
    np.savez(file, X=rng.normal(size=(30, 4)).astype(np.float32), y=y)


def bad_arrays(file: Path, rng: Random) -> list[str]:
    """Arrays X, y and task in an .npz with something wrong; returns what."""
    n = 30
    x: Any = np.arange(n * 4, dtype=np.float32).reshape(n, 4)
    y: Any = np.repeat(np.arange(10), 3)
    odd = {
        "nan": lambda: np.where(x == 5, np.nan, x),
        "inf": lambda: np.where(x == 5, np.inf, x),
        "huge": lambda: x.astype(np.float64) * 1e300,
        "complex": lambda: x + 1j,
        "texts": lambda: np.array([["a"] * 4] * n),
        "bytes": lambda: np.array([[b"a\xff"] * 4] * n),
        "objects": lambda: np.array([[None] * 4] * n, dtype=object),
        "dates": lambda: np.full((n, 4), np.datetime64("2020-01-01")),
        "none": lambda: x[:0],
        "no features": lambda: x[:, :0],
        "flat": lambda: x[:, 0],
        "scalar": lambda: np.array(3.0),
        "images": lambda: np.zeros((n, 5, 5), np.uint8),
        "channels": lambda: np.zeros((n, 5, 5, 2), np.float32),
        "five": lambda: np.zeros((n, 1, 2, 2, 2), np.float32),
        "fewer": lambda: x[:-1],
        "bool": lambda: x > 5,
        "uint64": lambda: np.full((n, 4), 2**64 - 1, np.uint64),
        "structured": lambda: np.zeros(n, [("a", "f4"), ("b", "i4")]),
        "half": lambda: x.astype(np.float16) * 1000,
        "good": lambda: x,
    }
    odd_y = {
        "nan": lambda: y.astype(np.float64) * np.nan,
        "floats": lambda: y + 0.5,
        "texts": lambda: np.array([f"c{i}" for i in y]),
        "empty texts": lambda: np.array([""] * n),
        "two columns": lambda: np.stack([y, y], 1),
        "fewer": lambda: y[:-2],
        "none": lambda: y[:0],
        "scalar": lambda: np.array(1),
        "one class": lambda: y * 0,
        "objects": lambda: np.array([{}] * n, dtype=object),
        "complex": lambda: y + 1j,
        "dates": lambda: np.full(n, np.datetime64("NaT")),
        "good": lambda: y,
    }
    name_x, name_y = (
        rng.choice(sorted(odd)),
        rng.choice([*sorted(odd_y), *["good"] * 9]),
    )
    with np.errstate(all="ignore"):
        arrays = {"X": odd[name_x](), "y": odd_y[name_y]()}
    done = [f"{file.name}: X {name_x}, y {name_y}"]
    if rng.random() < 0.3:
        arrays["task"] = odd_y[rng.choice(sorted(odd_y))]()
        done.append(f"{file.name}: with task")
    if rng.random() < 0.15:
        gone = rng.choice(sorted(arrays))
        del arrays[gone]
        done.append(f"{file.name}: without {gone}")
    memory = io.BytesIO()
    np.savez(memory, **arrays)
    content = memory.getvalue()
    if rng.random() < 0.3:
        content, what = mangled(rng, content)
        done.append(f"{file.name}: mangled: {what}")
    file.write_bytes(content)
    return done
