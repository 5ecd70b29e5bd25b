"""Images to tensors: one way of reading them for every image data set, for users' own
folders and for arrays in memory.
"""

from __future__ import annotations

import io
import math
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import track
from torch import Tensor

from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.readers.archives import Member
from innerloop.readers.base import Inputs, Reader
from innerloop.readers.files import shown
from innerloop.readers.sources import File, FileKind, Found, find

STROKE_MARGIN = 1.12  # from the center to the edge, relative to the farthest stroke
# the decoders that may run: never the programs that Pillow starts for other formats
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
READABLE = "PNG, JPEG, BMP, GIF, TIFF and WebP"
_OTHER_IMAGES = (
    *(".avif", ".heic", ".heif", ".jxl", ".jp2", ".svg", ".eps", ".psd", ".ico"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".tga", ".ppm", ".pgm", ".pbm"),
)
IMAGES = FileKind(
    "image",
    frozenset(
        {
            *(".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".dib", ".gif"),
            *(".tif", ".tiff", ".webp"),
        }
    ),
    READABLE,
    {s: f"{s} is not read: convert it to PNG or JPEG" for s in _OTHER_IMAGES},
    ("image", "file", "path", "filename", "file_name", "image_path"),
)
MAX_PIXELS = 89_478_485  # of one image; Pillow's limit for suspicious files
# values of white that cameras and scanners use: 8, 10, 12, 14, 16 and 31 bits
_INTEGER_WHITES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0, 2.0**31 - 1)
_FLOAT_WHITES = (1.0, *_INTEGER_WHITES[:-1])
_DEEP_MODES = ("I", "F")  # first letter of the modes with more than 8 bits


@dataclass(frozen=True)
class ImageReader(Reader):
    """Image: files, arrays and Pillow images as tensors of one size.

    Pixels become numbers from 0 (black) to 1 (white). The white of a pixel type is a
    property of the reader and never depends on the images that are read together:
    255 for 8 bits, 65535 for 16 bits, 1 for floating point numbers, unless the reader
    says otherwise.

    Args:
        channels: 1 (gray) or 3 (color).
        size: height and width in pixels.
        dark_background: invert images with a light border (ink on paper), so that
            strokes are light on dark.
        normalize_strokes: for drawings on a dark background: move the center of mass of
            the strokes to the middle and scale them to fill the image.
        integer_white: the value of white in integer images of more than 8 bits, such as
            4095 for 12 bits; None for the largest number of the pixel type.
        float_white: the value of white in floating point images; None for 1.
        image_column: column of the paths in a table; None for image, file, path,
            filename, file_name or image_path.
        label_column: column of the labels in a table; None for label, class or y.
    """

    kind: ClassVar[str] = "image"
    what: ClassVar[str] = "image"
    # how images are scaled to a smaller and to a larger size
    smaller: ClassVar[Image.Resampling] = Image.Resampling.BOX
    larger: ClassVar[Image.Resampling] = Image.Resampling.BILINEAR
    channels: int = 3
    size: tuple[int, int] = (84, 84)
    dark_background: bool = False
    normalize_strokes: bool = False
    integer_white: float | None = None
    float_white: float | None = None
    image_column: str | None = None
    label_column: str | None = None

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InnerloopError(
                f"channels of an ImageReader must be 1 or 3; got {self.channels!r}"
            )
        size = self.size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        if len(sides) != 2 or not all(
            isinstance(side, int) and 1 <= side <= 4096 for side in sides
        ):
            raise InnerloopError(
                "size of an ImageReader must be one or two integers from 1 to 4096; "
                f"got {size!r}"
            )
        for name in ("integer_white", "float_white"):
            white = getattr(self, name)
            if white is not None and not 0 < white < math.inf:
                raise InnerloopError(
                    f"{name} of an ImageReader must be greater than 0; got {white!r}"
                )
        object.__setattr__(self, "size", sides)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of a decoded image (channels, height, width)."""
        return (self.channels, *self.size)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self.image_shape

    @property
    def side(self) -> int:
        return max(self.size)

    def preprocessing(self) -> dict[str, Any]:
        resampling = {"smaller": self.smaller.name, "larger": self.larger.name}
        return {**super().preprocessing(), **resampling, "white": 255}

    @property
    def drawn(self) -> bool:
        return self.dark_background and self.normalize_strokes

    def scan(self, path: Path | str, *, labels: bool) -> Found:
        """The image files of a data set, see `sources.find`."""
        return find(
            path,
            IMAGES,
            labels=labels,
            file_column=self.image_column,
            label_column=self.label_column,
        )

    def read(self, path: Path | str, *, labels: bool) -> Inputs:
        """Read a folder PATH/CLASS/image, a table with a column of paths, or an archive
        of either; with `labels=False` also an image, or images at any depth.

        Files that cannot be read are left out and named in `unreadable`.
        """
        return self.read_found(path, self.scan(path, labels=labels))

    def read_found(self, path: Path | str, found: Found) -> Inputs:
        """What `read` returns, from the files that were found."""
        values, unreadable = self.pixels(found.files, found.names)
        failed = {index for index, _ in unreadable}
        kept = [i for i in range(len(found.files)) if i not in failed]
        messages = tuple(f"{found.names[i]}: {why}" for i, why in unreadable)
        if not kept:
            raise InnerloopError(
                f"{shown(path)} holds no image that can be read ({READABLE})"
                + "".join(f"; {line[:160]}" for line in (*messages, *found.other)[:1])
            )
        return Inputs(
            to_unit(values),
            [found.names[i] for i in kept],
            [found.labels[i] for i in kept] if found.labels else None,
            (*messages, *found.other),
            found.note,
            tuple(found.files[i] for i in kept),
        )

    def convert(self, X: Any) -> Tensor:
        """Images as float32 in 0..1 (n, channels, height, width).

        X: an array or tensor (n, h, w), (n, h, w, channels) or (n, channels, h, w), or
        a list of arrays, tensors, Pillow images or paths, which may differ in size.
        Floating point images of exactly the reader's shape are taken as prepared
        already: they are neither inverted nor moved.
        """
        return torch.stack(
            [
                self._one(image, f"X[{place}]")
                for place, image in enumerate(self._images(X))
            ]
        )

    def thumbnail(self, file: File, side: int) -> bytes | None:
        return thumbnail(file, side)

    def for_data(self, files: Sequence[File]) -> Self:
        """The same reader, with the white of deep images (more than 8 bits, or floating
        point) fixed by training images: the smallest usual white that none of them
        exceeds.
        """
        integer, floating = self.integer_white, self.float_white
        if integer is not None and floating is not None:
            return self
        largest = {"I": 0.0, "F": 0.0}
        with _quiet():
            for values in _mapped(_deep_maximum, files):
                if values is not None:
                    largest[values[0]] = max(largest[values[0]], values[1])
        if integer is None and largest["I"]:
            integer = next(w for w in _INTEGER_WHITES if w >= largest["I"])
        if floating is None and largest["F"]:
            floating = next(
                (w for w in _FLOAT_WHITES if w * 1.001 >= largest["F"]), None
            )
        return replace(self, integer_white=integer, float_white=floating)

    def pixels(
        self, files: Sequence[File | IO[bytes]], names: Sequence[str]
    ) -> tuple[Tensor, list[tuple[int, str]]]:
        """The inputs from files (n, *x_shape), here bytes of images that are read in
        parallel; and the indices of those that could not be read, with the reason. The
        tensor holds only the others. A subclass may return features in float32.
        """
        values = torch.empty((len(files), *self.image_shape), dtype=torch.uint8)
        unreadable, count = [], 0
        found = _mapped(self._try_file, files)
        with _quiet():
            for i, (image, why) in enumerate(reading_progress(found, len(files))):
                if image is None:
                    unreadable.append((i, why))
                else:
                    values[count] = image
                    count += 1
        return values[:count], unreadable

    def file(self, file: File | IO[bytes]) -> Tensor:
        """The image in a file as bytes (channels, height, width).

        Raises InnerloopError where it cannot be read.
        """
        with _quiet():
            image, why = self._try_file(file)
        if image is None:
            name = shown(file) if isinstance(file, Path) else "the file"
            raise InnerloopError(f"cannot read {name} as an image: {why}")
        return image

    def whole(self, file: File | IO[bytes]) -> Image.Image:
        """The image in a file at its own size, in gray or color.

        Raises InnerloopError where it cannot be read.
        """
        try:
            with _quiet(), _opened(file) as image:
                return self.flat(image)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever they like
            name = shown(file) if isinstance(file, Path) else "the file"
            raise InnerloopError(
                f"cannot read {name} as an image: {_reason(error)}"
            ) from error

    def _try_file(self, file: File | IO[bytes]) -> tuple[Tensor | None, str]:
        """The image, or None and the reason why it cannot be read."""
        try:
            with _opened(file) as image:
                return self.decode(image), ""
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever they like
            return None, _reason(error)

    def flat(self, image: Image.Image) -> Image.Image:
        """A Pillow image with 8 bits in gray or color. Transparent parts become white;
        a photo is turned as its EXIF data say.
        """
        image, kind = _upright(image), image.format
        if image.mode[0] in _DEEP_MODES:
            image = self._eight_bits(image, kind)
        elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or (
            "transparency" in image.info
        ):
            image = image.convert({"La": "LA"}.get(image.mode, image.mode))
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        if image.mode not in ("1", "L", "P", "RGB"):
            image = image.convert("RGB")
        return image.convert("L" if self.channels == 1 else "RGB")

    def decode(self, image: Image.Image) -> Tensor:
        """A Pillow image as bytes (channels, height, width), see `flat`."""
        image = self.flat(image)
        if self.dark_background and _light_border(np.asarray(image)):
            image = ImageOps.invert(image)
        height, width = self.size
        if self.normalize_strokes:
            image, box = _around_strokes(image)
            image = image.resize((width, height), Image.Resampling.HAMMING, box)
        else:
            image = image.resize(
                (width, height),
                self.smaller if image.width > width else self.larger,
            )
        pixels = np.array(image)
        return torch.from_numpy(
            pixels[None]
            if self.channels == 1
            else np.ascontiguousarray(pixels.transpose(2, 0, 1))
        )

    def _eight_bits(self, image: Image.Image, kind: str | None) -> Image.Image:
        """An image of more than 8 bits as gray; a transparent value becomes white."""
        values = np.asarray(image).astype(np.float64)
        if image.mode == "F":
            white = self.float_white or 1.0
        elif self.integer_white is not None:
            white = self.integer_white
        elif image.mode != "I" or kind == "PNG":
            white = 65535.0
        else:
            raise InnerloopError(
                "32-bit integer pixels have no fixed white: set integer_white of the "
                "ImageReader, such as 65535"
            )
        gray = _scaled(values, white)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int | float):
            gray[values == transparent] = 255
        return Image.fromarray(gray)

    def _images(self, X: Any) -> Iterator[Any]:
        """The single images of X; refuses one image where several are expected."""
        one = "pass a list of images, [image], for one image"
        if isinstance(X, Image.Image | str | os.PathLike):
            raise InnerloopTypeError(f"X must be several images; got one: {one}")
        if hasattr(X, "toarray"):
            raise InnerloopTypeError("X must be dense; got a sparse matrix")
        if isinstance(X, Tensor):
            X = _array(X)
        if isinstance(X, np.ndarray) and X.dtype != object:
            if X.ndim == 3 and (
                X.shape[2] in (1, 3, 4)
                or (
                    X.shape[0] == 3 and (self.channels == 3 or X.shape[1:] != self.size)
                )
            ):
                raise InnerloopError(
                    f"X of shape {X.shape} is one image: {one}, or gray images as "
                    "(n, 1, height, width)"
                )
            if X.ndim not in (3, 4):
                raise InnerloopError(
                    "X must have the shape (n, height, width), (n, height, width, "
                    f"channels) or (n, channels, height, width); got {X.shape}"
                )
        if not len(X):
            raise InnerloopError("X must hold at least one image; got none")
        return iter(X)

    def _one(self, image: Any, name: str) -> Tensor:
        """One image of X as float32 (channels, height, width)."""
        try:
            if isinstance(image, str | os.PathLike):
                return to_unit(self.file(Path(image)))
            if isinstance(image, Image.Image):
                return to_unit(self.decode(image))
            return self._from_array(_array(image))
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever they like
            raise InnerloopError(
                f"cannot read {name} as an image: {_reason(error)}"
            ) from error

    def _from_array(self, pixels: NDArray[Any]) -> Tensor:
        """An array (h, w), (h, w, channels) or (channels, h, w)."""
        floating = pixels.dtype.kind == "f"
        if floating:
            white = self.float_white or 1.0
        elif pixels.dtype == bool:
            white = 1.0
        elif pixels.dtype == np.uint16 or (
            self.integer_white is not None and pixels.dtype != np.uint8
        ):
            white = self.integer_white or 65535.0
        else:
            white = 255.0
        if pixels.ndim not in (2, 3) or 0 in pixels.shape:
            raise InnerloopError(
                "it must have the shape (height, width), (height, width, channels) or "
                f"(channels, height, width); got {pixels.shape}"
            )
        if floating and pixels.shape == self.image_shape:
            unit = _unit(pixels.astype(np.float64), white)
            return torch.from_numpy(unit.astype(np.float32))
        if pixels.ndim == 3 and (
            pixels.shape == self.image_shape or pixels.shape[2] not in (1, 2, 3, 4)
        ):
            pixels = pixels.transpose(1, 2, 0)
        if pixels.ndim == 3 and pixels.shape[2] not in (1, 2, 3, 4):
            raise InnerloopError(f"it must have 1, 3 or 4 channels; got {pixels.shape}")
        if pixels.dtype != np.uint8:
            pixels = _scaled(pixels.astype(np.float64), white)
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[..., 0]
        return to_unit(self.decode(Image.fromarray(np.ascontiguousarray(pixels))))


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of decoders: what cannot be read is named."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _opened(file: File | IO[bytes]) -> Image.Image:
    if isinstance(file, Member):
        file = file.open()
    if isinstance(file, Path) and not stat.S_ISREG(os.stat(file).st_mode):
        raise InnerloopError("it is not a regular file")
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise InnerloopError(
            f"it has {image.width} x {image.height} pixels, more than the "
            f"{MAX_PIXELS:,} that are allowed"
        )
    return image


def thumbnail(file: File | IO[bytes], side: int) -> bytes:
    """The image in a file as a JPEG of at most `side` pixels in height and width; a
    gray one where it cannot be read.
    """
    memory = io.BytesIO()
    try:
        with _quiet(), _opened(file) as opened:
            image = _upright(opened).convert("RGB")
            image.thumbnail((side, side))
    except Exception:  # decoders raise whatever they like
        image = Image.new("RGB", (side, side), "gray")
    image.save(memory, "JPEG", quality=80)
    return memory.getvalue()


def _reason(error: Exception) -> str:
    """Why a file could not be decoded, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is not one of {READABLE}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:200]


_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image) -> Image.Image:
    """A photo as the camera was held; damaged EXIF data are ignored."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow's parser raises struct.error and others
        turn = None
    return image if turn is None else image.transpose(turn)


def _light_border(pixels: NDArray[np.uint8]) -> bool:
    edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    return bool(np.median(np.concatenate(edges)) > 127)


def _around_strokes(
    image: Image.Image,
) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """The image with dark margins, and the square in it that has the strokes' center of
    mass in the middle and the farthest stroke near its edge.

    Strokes are the pixels nearer to the lightest than to the darkest.
    """
    gray = np.asarray(image.convert("L"), dtype=np.float32)
    rows, columns = np.nonzero(gray > (gray.min() + gray.max()) / 2)
    if not len(rows):  # all pixels are alike
        return image, (0, 0, image.width, image.height)
    middle = float(columns.mean()) + 0.5, float(rows.mean()) + 0.5
    reach = max(
        float(np.abs(columns + 0.5 - middle[0]).max()),
        float(np.abs(rows + 0.5 - middle[1]).max()),
    )
    half = max(STROKE_MARGIN * reach, 0.15 * max(image.size))  # a dot stays a dot
    margin = math.ceil(half)
    left, top = middle[0] + margin - half, middle[1] + margin - half
    return ImageOps.expand(image, margin), (left, top, left + 2 * half, top + 2 * half)


def _deep_maximum(file: File) -> tuple[str, float] | None:
    """The largest value of an image of more than 8 bits, after "I" or "F" for integers
    or floating point numbers; None for other images and for unreadable ones.
    """
    try:
        with _opened(file) as image:
            if image.mode[0] not in _DEEP_MODES:
                return None
            return image.mode[0], float(np.asarray(image).max())
    except MemoryError:
        raise
    except Exception:  # `pixels` names it
        return None


def _array(image: Any) -> NDArray[Any]:
    """An array from an array, a tensor or nested lists."""
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
    array = np.asarray(image)
    if array.dtype.kind not in "buif":
        raise InnerloopTypeError(f"pixels must be real numbers; got {array.dtype}")
    return array


def _unit(values: NDArray[np.float64], white: float) -> NDArray[np.float64]:
    """Values from 0 (black) to `white` as numbers in 0..1."""
    if not np.isfinite(values).all():
        raise InnerloopError("its pixels must be finite numbers")
    low, high = float(values.min()), float(values.max())
    if low < -1e-3 * white or high > 1.001 * white:
        raise InnerloopError(
            f"its pixels must lie between 0 and {white:g} (white); got {low:g} to "
            f"{high:g}: scale them, or set integer_white or float_white of the reader"
        )
    return (values / white).clip(0, 1)


def _scaled(values: NDArray[np.float64], white: float) -> NDArray[np.uint8]:
    return (_unit(values, white) * 255).round().astype(np.uint8)


def _mapped(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """The results in order, computed in threads: decoding releases Python's lock."""
    workers = min(os.cpu_count() or 1, len(items) // 8)
    if workers < 2:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(function, items)
    finally:  # Ctrl-C does not wait for the rest
        pool.shutdown(cancel_futures=True)


def reading_progress(
    results: Iterable[Any], total: int, label: str = "reading images", least: int = 500
) -> Iterable[Any]:
    """The results, with a progress bar on a terminal where there are at least
    `least`.
    """
    return track(
        results,
        label,
        total,
        console=Console(stderr=True),
        transient=True,
        disable=total < least or not sys.stderr.isatty(),
    )


def to_unit(images: Tensor) -> Tensor:
    """Bytes 0..255 as float32 in 0..1; other types stay as they are."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images
