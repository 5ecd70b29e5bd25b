"""Files that someone might send to harm a server: damaged, huge, disguised."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np
from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script>'
    b'<image href="file:///etc/passwd"/></svg>'
)
XML_BOMB = (
    b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(
        b'<!ENTITY %c "%s">' % (97 + n, b"&%c;" % (96 + n) * 10) for n in range(1, 9)
    )
    + b"]><svg>&i;</svg>"
)
NAMES = (
    *("a.png", "", ".", "..", "../../../etc/passwd", "/etc/passwd", "C:\\x.png"),
    *("a\x00.png", "x" * 4000 + ".png", "é猫\u202egnp.exe", "a\r\nx: y.png", "a.csv"),
    *("con.png", "a/b/c.png", '"; filename="b.png', "%2e%2e%2fx.png", "-rf.png"),
)


class Upload(NamedTuple):
    """A file to send: what it is, its name, content and media type."""

    what: str
    name: str
    content: bytes
    kind: str


def image(kind: str, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> bytes:
    memory = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(memory, kind)
    return memory.getvalue()


def chunk(name: bytes, data: bytes, checksum: int | None = None) -> bytes:
    """A part of a PNG."""
    right = zlib.crc32(name + data)
    return (
        struct.pack(">I", len(data))
        + name
        + data
        + struct.pack(">I", right if checksum is None else checksum)
    )


def png(width: int, height: int, data: bytes, depth: int = 8, color: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def squeezed(length: int) -> bytes:
    """So many zeros, compressed."""
    packer = zlib.compressobj(9)
    zeros, parts = bytes(2**20), []
    for _ in range(length // 2**20):
        parts.append(packer.compress(zeros))
    parts.append(packer.compress(bytes(length % 2**20)) + packer.flush())
    return b"".join(parts)


def bombs() -> Iterator[tuple[str, bytes]]:
    """Pictures that are small as files."""
    for side in (2**16, 2**20, 2**31 - 1):
        yield f"PNG of {side} x {side}", png(side, side, squeezed(2**20))
    yield "PNG of 30,000 x 30,000, whole", png(30000, 30000, squeezed(30001 * 3750), 1)
    yield "PNG of 6,000 x 6,000, whole", png(6000, 6000, squeezed(6001 * 6000))
    yield "PNG without width", png(0, 5, squeezed(100))
    yield "PNG of 20,000 x 1", png(20000, 1, squeezed(20001))
    yield "PNG of 20,000 x 100", png(20000, 100, squeezed(20001 * 100))
    yield "PNG of 1 x 20,000", png(1, 20000, squeezed(2 * 20000))
    text = b"Comment\0\0" + squeezed(2**26)
    whole = image("PNG")
    yield "PNG with a text of 64 MiB", whole[:33] + chunk(b"zTXt", text) + whole[33:]
    profile = b"x\0\0" + squeezed(2**26)
    yield (
        "PNG with a profile of 64 MiB",
        whole[:33] + chunk(b"iCCP", profile) + whole[33:],
    )
    many = b"".join(chunk(b"tEXt", b"a\0b") for _ in range(20_000))
    yield "PNG with 20,000 texts", whole[:33] + many + whole[33:]
    gif = bytearray(image("GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    yield "GIF of 65,535 x 65,535", bytes(gif)
    frames = [Image.new("P", (300, 300), n % 250) for n in range(400)]
    memory = io.BytesIO()
    frames[0].save(memory, "GIF", save_all=True, append_images=frames[1:])
    yield "GIF of 400 frames", memory.getvalue()
    bmp = bytearray(image("BMP"))
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    yield "BMP of 60,000 x 60,000", bytes(bmp)
    bmp[18:26] = struct.pack("<ii", -(2**31), -1)
    yield "BMP of negative size", bytes(bmp)
    jpeg = bytearray(image("JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    yield "JPEG of 65,535 x 65,535", bytes(jpeg)
    scans = jpeg[jpeg.index(b"\xff\xda") : -2]
    yield "JPEG of 2,000 scans", bytes(jpeg[:-2] + scans * 2000 + jpeg[-2:])
    yield "WebP of 16,383 x 16,383", _wide_webp()


def _wide_webp() -> bytes:
    whole = bytearray(image("WEBP"))
    at = whole.find(b"\x9d\x01\x2a")
    if at >= 0:
        whole[at + 3 : at + 7] = b"\xff\x3f\xff\x3f"
    return bytes(whole)


def polyglots() -> Iterator[tuple[str, bytes]]:
    """Files that are two things at once, or claim to be another."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as opened:
        opened.writestr("a.txt", "text")
    archive = memory.getvalue()
    for kind in FORMATS:
        whole = image(kind)
        yield f"{kind} and zip", whole + archive
        yield f"{kind} and HTML", whole + b"<script>alert(1)</script>"
        yield f"the start of {kind} and SVG", whole[:12] + SVG
        yield f"zip and {kind}", archive + whole
    yield "SVG", SVG
    yield "SVG bomb", XML_BOMB
    yield "PDF", b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript>>>>endobj"
    yield "EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"
    yield "pickle", b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n."
    yield "ELF", b"\x7fELF" + bytes(100)
    yield "PHP", b"GIF89a<?php system($_GET['c']); ?>"
    yield "zip", archive
    yield "TIFF", image("TIFF")
    yield "ICO", image("ICO", (16, 16))
    yield "PPM", b"P6 99999 99999 255 " + bytes(10)
    yield "empty", b""
    yield "one byte", b"\x89"
    yield "zeros", bytes(10_000)
    yield "text", "drawing,label\n猫,1\n".encode("utf-16")
    yield "1 x 1", image("PNG", (1, 1))


def damaged(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Pictures that end early, or in which bytes are changed, without end."""
    wholes = {
        f"{kind} {mode}": image(kind, (64, 48), mode)
        for kind in FORMATS
        for mode in ("RGB", "L", "P", "1")
        if (kind, mode) not in {("JPEG", "P"), ("WEBP", "1"), ("JPEG", "1")}
    }
    for name, whole in cycle(wholes.items()):
        yield f"{name}, truncated", whole[: int(rng.integers(1, len(whole)))]
        changed = np.frombuffer(whole, np.uint8).copy()
        at = rng.integers(0, min(len(whole), 200), int(rng.integers(1, 8)))
        changed[at] = rng.integers(0, 256, len(at))
        yield f"{name}, changed", changed.tobytes()


def pictures(count: int) -> list[Upload]:
    """So many uploads in the place of pictures."""
    rng = np.random.default_rng(0)
    contents = [*bombs(), *polyglots()]
    contents += islice(damaged(rng), max(0, count - len(contents)))
    kinds = ("image/png", "image/jpeg", "image/svg+xml", "text/html", "")
    return [
        Upload(what, NAMES[n % len(NAMES)], content, kinds[n % len(kinds)])
        for n, (what, content) in enumerate(contents)
    ]


def archives(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Project files, made of a right one."""
    with zipfile.ZipFile(io.BytesIO(whole)) as opened:
        right = {name: opened.read(name) for name in opened.namelist()}

    def packed(changes: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w", method) as opened:
            for name, content in {**right, **changes}.items():
                opened.writestr(name, content)
        return memory.getvalue()

    state = right["project.json"]
    zeros = bytes(2**26)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield f"bomb {method}", packed({"examples/e1.png": zeros}, method)
    yield "bomb as project.json", packed({"project.json": b" " * 2**26 + state})
    yield "bomb as a table", packed({"examples.csv": b"," * 2**26})
    many = {f"examples/x{n}.png": b"" for n in range(50_000)}
    yield "50,000 files", packed(many)
    for name in ("../out.txt", "/tmp/out.txt", "..\\out.txt", "a/../../out.txt", "C:x"):
        yield f"file {name}", packed({name: b"x", "examples/e1.png": b"x"})
    nested = {"project.json": b"[" * 50_000, "examples.csv": b""}
    yield "nested JSON", packed(nested)
    for text in (b"", b"null", b"[]", b"{}", b"\xff", state[:-5], state * 2):
        yield f"project.json {text[:9]!r}", packed({"project.json": text})
    for old, new in _changes():
        yield f"{old!r} to {new!r}", packed({"project.json": state.replace(old, new)})
    pickled = b"\x80\x04cos\nsystem\n(S'touch /tmp/pwned'\ntR."
    yield "pickle as weights", packed({"estimator.safetensors": pickled})
    header = struct.pack("<Q", 2**62) + b"{}"
    yield "header of weights", packed({"estimator.safetensors": header})
    for what, content in [*bombs()][:8]:
        yield f"{what} as an example", packed({"examples/e1.png": content})
    rng = np.random.default_rng(1)
    for _ in range(30):
        yield "truncated", whole[: int(rng.integers(0, len(whole)))]
        changed = np.frombuffer(whole, np.uint8).copy()
        changed[rng.integers(0, len(whole), 4)] = rng.integers(0, 256, 4)
        yield "changed", changed.tobytes()
    link = zipfile.ZipInfo("examples/e1.png")
    link.external_attr = 0o120777 << 16
    memory = io.BytesIO(packed({}))
    with zipfile.ZipFile(memory, "a") as opened:
        opened.writestr(link, "/etc/passwd")
    yield "link", memory.getvalue()
    overlap = bytearray(whole)  # a zip whose file says it is larger
    at = overlap.rindex(b"PK\x01\x02")
    overlap[at + 24 : at + 28] = struct.pack("<I", 2**31)
    yield "wrong sizes", bytes(overlap)


def _changes() -> list[tuple[bytes, bytes]]:
    return [
        (b'"drawings"', b'"../../etc"'),
        (b'"drawings"', b'"photographs"'),
        (b'"drawings"', b"7"),
        (b'"e1"', b'"../../../etc/passwd"'),
        (b'"e1"', b'"e2"'),
        (b'"e1"', b"{}"),
        (b'"name"', b'"nom"'),
        (b'"class 0"', b'"' + b"x" * 100_000 + b'"'),
        (b'"class 0"', b'"class 1"'),
        (b'"class 0"', b'"\\ud800"'),
        (b"true", b"1e999"),
        (b"1", b"-1"),
        (b"1", b"99999999999999999999"),
        (b"null", b"[]"),
    ]


def tables() -> list[tuple[str, bytes]]:
    """Tables in place of examples and inputs."""
    make: Callable[[str], bytes] = str.encode
    return [
        ("formula", make('text,label\n"=cmd|calc",a\n')),
        ("one line of 4 MiB", make("text,label\n" + "x" * 2**22 + ",a\n")),
        ("a million lines", make("text,label\n" + "a,b\n" * 1_000_000)),
        ("no end of quotes", make('text,label\n"' + "a\n" * 10_000)),
        ("50,000 columns", make(",".join(map(str, range(50_000))) + "\n1\n")),
        ("NUL", b"text,label\n\0,\0\n"),
        ("UTF-16", "text,label\na,b\n".encode("utf-16")),
        ("only a head", make("text,label\n")),
        ("other head", make("x,y\n1,2\n")),
        (
            "100,000 classes",
            make("text,label\n" + "".join(f"a,{n}\n" for n in range(100_000))),
        ),
    ]
