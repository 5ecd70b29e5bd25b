"""Pictures from clients: told apart by their content, and decoded in processes that are
killed when they take too long.
"""

from __future__ import annotations

import io
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from PIL import Image

import innerloop
from innerloop.web.decoding import CODES, WANTED, image_of, receive, send
from innerloop.web.http import Refused

SECONDS = 5.0  # that a picture may take
START = 60.0  # seconds that a process may take to start
PROCESSES = 2
READABLE = "PNG, JPEG, WebP, GIF and BMP"
_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
)


def format_of(content: bytes) -> str | None:
    """The format of a picture by its first bytes, None for all that is not read."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    return next((name for start, name in _STARTS if content.startswith(start)), None)


class _Worker:
    """A process that decodes, started when it is first needed. It ends when its input
    is closed, and so with this process.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: bytes, seconds: float) -> bytes:
        """Raises EOFError or OSError where the process died, or was killed because it
        took longer than `seconds`.
        """
        process = self._started()
        try:
            with _killed_after(process, seconds):
                send(_pipe(process.stdin), request)
                return receive(_pipe(process.stdout))
        except BaseException:
            self.stop()
            raise

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            root = str(Path(innerloop.__file__).parents[1])
            places = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "innerloop.web.decoding"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
            )
            with _killed_after(self._process, START):
                receive(_pipe(self._process.stdout))
        return self._process

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    _pipe(pipe).close()
            process.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


@contextmanager
def _killed_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Decoders:
    """A few processes that decode pictures.

    Args:
        processes: how many.
        seconds: that one picture may take, from when its process is ready.
    """

    def __init__(self, processes: int = PROCESSES, seconds: float = SECONDS):
        self.seconds = seconds
        self._workers = [_Worker() for _ in range(processes)]
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._closed = threading.Event()
        for worker in self._workers:
            self._free.put(worker)

    def image(self, content: bytes, side: int) -> Image.Image:
        """A picture as gray or color, upright, on white, and at most `side` pixels high
        and wide.

        Raises Refused for what is no picture, or has too many pixels, or takes too
        long.
        """
        kind = format_of(content)
        if kind is None:
            raise _unreadable(f"pictures are {READABLE}; this is none of them")
        with self._worker() as worker:
            try:
                answer = worker.ask(
                    WANTED.pack(side, CODES[kind]) + content, self.seconds
                )
            except (EOFError, OSError):
                raise _unreadable(
                    f"it cannot be decoded within {self.seconds:g} seconds"
                ) from None
        try:
            return image_of(answer)
        except ValueError as error:
            raise _unreadable(f"it is no {kind} that can be read: {error}") from None

    @contextmanager
    def _worker(self) -> Iterator[_Worker]:
        worker = self._free.get()
        try:
            yield worker
        finally:
            if self._closed.is_set():
                worker.stop()
            self._free.put(worker)

    def close(self) -> None:
        """End the processes."""
        self._closed.set()
        for worker in self._workers:
            worker.stop()


def png(image: Image.Image) -> bytes:
    """An image as PNG, without metadata."""
    memory = io.BytesIO()
    image.save(memory, "PNG", compress_level=6)
    return memory.getvalue()


def stored(content: bytes) -> Image.Image:
    """An image that `png` wrote."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        image.load()
        return image


def _unreadable(reason: str) -> Refused:
    return Refused(422, "picture", reason)
