"""Pictures from clients, hostile ones too."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("jsonschema")

from PIL import Image

from innerloop.readers.image import ImageReader
from innerloop.web import pictures
from innerloop.web.drawings import picture
from innerloop.web.http import Refused
from innerloop.web.pictures import Decoders, format_of, png


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    found = Decoders(1)
    yield found
    found.close()


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    memory = io.BytesIO()
    image.save(memory, kind, **options)
    return memory.getvalue()


def photo(width: int = 40, height: int = 30) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * x / width, 255 * y / height, 0 * x + 99], -1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_usual_formats_are_read(decoders: Decoders, kind: str) -> None:
    found = decoders.image(saved(photo(), kind), 256)
    assert found.size == (40, 30)
    difference = np.asarray(found).astype(int) - np.asarray(photo())
    assert np.abs(difference).mean() < 12


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is very large."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000), 9)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


HOSTILE = {
    "nothing": b"",
    "text": b"hello",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "tiff": saved(photo(), "TIFF"),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "psd": b"8BPS\0\1" + bytes(100),
    "truncated png": saved(photo(), "PNG")[:-40],
    "truncated jpeg": saved(photo(), "JPEG")[:300],
    "wrong type": b"\x89PNG\r\n\x1a\n" + saved(photo(), "JPEG"),
    "gif with a png in it": b"GIF89a" + saved(photo(), "PNG"),
    "wide": saved(Image.new("1", (20_000, 2)), "PNG"),
    "bomb": bomb(16_000, 16_000),
    "overflow": bomb(2**31 - 1, 2**31 - 1),
    "webp head": b"RIFF\xff\xff\xff\x7fWEBPVP8 ",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pictures_are_refused_in_one_line(
    decoders: Decoders, name: str
) -> None:
    with pytest.raises(Refused) as caught:
        decoders.image(HOSTILE[name], 256)
    assert caught.value.status == 422
    assert "\n" not in caught.value.message
    assert decoders.image(saved(photo(), "PNG"), 256).size == (40, 30)


def test_other_formats_never_reach_the_decoder() -> None:
    for name in ("svg", "tiff", "eps", "psd", "text", "nothing"):
        assert format_of(HOSTILE[name]) is None


def test_pictures_are_upright_and_on_white_as_a_reader_reads_them(
    decoders: Decoders,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = photo().convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.arange(40, dtype=np.uint8) * 6, (30, 1))))
    deep = Image.fromarray((np.arange(1200).reshape(30, 40) * 54).astype(np.uint16))
    reader = ImageReader(3, (30, 40))
    for content in (
        saved(photo(), "PNG", exif=exif),
        saved(clear, "PNG"),
        saved(deep, "PNG"),
        saved(photo().quantize(8), "PNG", transparency=0),
        saved(photo().convert("L"), "PNG"),
    ):
        found = decoders.image(content, 256)
        expected = reader.file(io.BytesIO(content))
        difference = reader.decode(found).int() - expected.int()
        assert difference.abs().max() <= 1


def test_large_pictures_become_small(decoders: Decoders) -> None:
    found = decoders.image(saved(photo(1200, 600), "JPEG"), 256)
    assert found.size == (256, 128)
    assert decoders.image(saved(photo(1, 1), "PNG"), 256).size == (1, 1)


def test_a_decoder_that_hangs_is_killed_and_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoders = Decoders(1, seconds=0.5)
    good = saved(photo(), "PNG")
    decoders.image(good, 64)
    process = decoders._workers[0]._process
    assert process is not None
    os.kill(process.pid, 19)  # SIGSTOP: it does not answer any more
    begin = time.monotonic()
    with pytest.raises(Refused, match="seconds"):
        decoders.image(good, 64)
    assert process.poll() is not None
    assert time.monotonic() - begin < 30
    decoders.seconds = 30
    assert decoders.image(good, 64).size == (40, 30)
    decoders.close()


def test_decoders_end_with_their_parent() -> None:
    code = (
        "import io, os\nfrom PIL import Image\n"
        "from innerloop.web.pictures import Decoders, png\n"
        "decoders = Decoders(1)\n"
        "decoders.image(png(Image.new('L', (9, 9))), 64)\n"
        "print(decoders._workers[0]._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    child = int(done.stdout)
    for _ in range(100):
        if not running(child):
            return
        time.sleep(0.1)
    pytest.fail("the decoder goes on")


def running(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as opened:
            return opened.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "strokes",
    [
        [[[0.5, 0.5]]],
        [[[0, 0]], [[1, 1]]],
        [[[0.2, 0.2], [0.2, 0.2], [0.2, 0.2]]],
        [[[i % 2, i / 2000] for i in range(2000)]] * 50,
    ],
)
def test_any_drawing_has_a_picture(strokes: list[list[list[float]]]) -> None:
    found = picture(strokes)
    assert found.size == (105, 105)
    pixels = np.asarray(found)
    assert pixels.min() == 0
    assert pixels.max() == 255


def test_a_drawing_looks_as_it_was_drawn() -> None:
    pixels = np.asarray(picture([[[0.1, 0.9], [0.1, 0.1], [0.9, 0.1]]]))
    ink = pixels < 128
    assert ink[:30].mean() > 2 * ink[75:].mean()  # y points down
    assert ink[:, :30].mean() > 2 * ink[:, 75:].mean()
    again = np.asarray(pictures.stored(png(picture([[[0.1, 0.9], [0.1, 0.1]]]))))
    assert again.shape == (105, 105)
