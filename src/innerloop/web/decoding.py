"""Decoding of pictures in a process of its own, which can be killed:
`python -m innerloop.web.decoding`. It imports nothing but Pillow and NumPy.

Requests and answers are a length of four bytes and as many bytes. The first answer says
that the process is ready.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings
from contextlib import suppress
from typing import IO, Any

MOST_PIXELS = 40_000_000
MOST_SIDE = 16_384
MEMORY = 2**31  # bytes that the process may use
ALONE = 30  # seconds, after which a decoder ends itself
LENGTH = struct.Struct("<I")
HEAD = struct.Struct("<BII")  # of an answer: channels or 0 for a reason, width, height
WANTED = struct.Struct("<I4s")  # of a request: side, format
_MODES = {1: "L", 3: "RGB"}
CODES = {
    "PNG": b"png ",
    "JPEG": b"jpeg",
    "GIF": b"gif ",
    "BMP": b"bmp ",
    "WEBP": b"webp",
}
_FORMATS = {code: name for name, code in CODES.items()}


def main() -> None:
    """Answer requests from the standard input until it is closed."""
    from PIL import Image

    Image.init()
    _limit_memory()
    warnings.simplefilter("ignore")
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    with suppress(EOFError, OSError, KeyboardInterrupt):
        send(answers, b"ready")
        while True:
            request = receive(requests)
            _alarm(ALONE)  # should nobody be left to end this process
            send(answers, _answer(request))
            _alarm(0)


def send(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(LENGTH.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes:
    """Raises EOFError where the pipe ends before."""
    head = pipe.read(LENGTH.size)
    content = pipe.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""
    if len(head) < LENGTH.size or len(content) < LENGTH.unpack(head)[0]:
        raise EOFError
    return content


def _alarm(seconds: int) -> None:
    if sys.platform != "win32":
        import signal

        signal.alarm(seconds)


def _answer(request: bytes) -> bytes:
    side, code = WANTED.unpack_from(request)
    try:
        image = decoded(request[WANTED.size :], _FORMATS[code], side)
        channels = len(image.getbands())
        return HEAD.pack(channels, *image.size) + image.tobytes()
    except MemoryError:
        return HEAD.pack(0, 0, 0) + b"it needs too much memory"
    except Exception as error:  # decoders raise whatever they like
        line = (str(error).splitlines() or [type(error).__name__])[0][:120]
        return HEAD.pack(0, 0, 0) + line.encode("utf-8", "replace")


def decoded(content: bytes, kind: str, side: int) -> Any:
    """The first frame of a picture as gray or color, upright, on white, and at most
    `side` pixels high and wide.

    Raises ValueError for one with too many pixels, and whatever Pillow raises.
    """
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = None  # the bounds are checked here
    with Image.open(io.BytesIO(content), formats=[kind]) as image:
        width, height = image.size
        if not 1 <= max(width, height) <= MOST_SIDE or width * height > MOST_PIXELS:
            raise ValueError(
                f"it has {width} x {height} pixels; at most {MOST_SIDE:,} on a side "
                f"and {MOST_PIXELS:,} in all are read"
            )
        image.draft("RGB", (2 * side, 2 * side))  # JPEG: a smaller one costs less
        image.load()
        with suppress(Exception):  # damaged EXIF data
            ImageOps.exif_transpose(image, in_place=True)
        found = _flat(image)
    found.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return found


def _flat(image: Any) -> Any:
    """A gray or color image of 8 bits, with white where it is transparent."""
    import numpy as np
    from PIL import Image

    if image.mode[0] in "IF":
        white = 1.0 if image.mode == "F" else 65535.0
        unit = (np.asarray(image).astype(np.float64) / white).clip(0, 1)
        return Image.fromarray((unit * 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert({"La": "LA"}.get(image.mode, image.mode)).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def image_of(answer: bytes) -> Any:
    """The image of an answer. Raises ValueError with the reason where there is none."""
    from PIL import Image

    channels, width, height = HEAD.unpack_from(answer)
    if not channels:
        raise ValueError(answer[HEAD.size :].decode("utf-8", "replace"))
    return Image.frombytes(_MODES[channels], (width, height), answer[HEAD.size :])


def _limit_memory() -> None:
    if sys.platform != "win32":
        import resource

        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
