"""Image files to tensors: one way of reading them, shared by every image data set and
by users' own folders.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from innerloop.engine.errors import InnerloopError

INK_MARGIN = 1.12  # from the middle to the edge, by the reach of the ink
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Preprocess:
    """How an image file becomes a tensor; saved with every run, so that later images
    are read the same way.

    channels: 1 (grey) or 3 (colour). size: height and width in pixels.
    dark_background: turn an image whose border is light (ink on paper) into light ink
    on dark.
    normalize_strokes: for drawings on a dark background: move the ink's centre of mass to the
    middle and scale the ink to fill the image.
    """

    channels: int = 3
    size: tuple[int, int] = (84, 84)
    dark_background: bool = False
    normalize_strokes: bool = False

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InnerloopError(f"images have 1 or 3 channels, not {self.channels}")
        object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))

    def read(self, file: Path | IO[bytes]) -> Tensor:
        """The image in `file` as bytes (channels, height, width). Raises ValueError
        where it cannot be read.
        """
        try:
            with Image.open(file) as opened:
                return self.convert(opened)
        except (
            UnidentifiedImageError,
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
        ) as error:
            raise InnerloopError(f"cannot read {file} as an image: {error}") from error

    def convert(self, image: Image.Image) -> Tensor:
        """A Pillow image as bytes (channels, height, width); transparent parts become
        white paper.
        """
        image = ImageOps.exif_transpose(image)  # phones store how they were held
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        if image.mode.startswith("I"):  # sixteen bits of grey
            image = Image.fromarray(
                (np.asarray(image) / 257.0).round().clip(0, 255).astype(np.uint8)
            )
        image = image.convert("L" if self.channels == 1 else "RGB")
        if self.dark_background:
            pixels = np.asarray(image)
            border = np.concatenate(
                [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
            )
            if np.median(border) > 127:
                image = ImageOps.invert(image)
        height, width = self.size
        if self.normalize_strokes:
            image, box = _around_ink(image)
            image = image.resize((width, height), Image.Resampling.HAMMING, box)
        else:
            image = image.resize(
                (width, height),
                Image.Resampling.BOX
                if image.width > width
                else Image.Resampling.BILINEAR,
            )
        pixels = np.array(image)
        return torch.from_numpy(
            pixels[None]
            if self.channels == 1
            else np.ascontiguousarray(pixels.transpose(2, 0, 1))
        )

    def convert_all(self, images: NDArray[Any]) -> Tensor:
        """Bytes (n, h, w), (n, h, w, channels) or (n, channels, h, w) of any size as
        bytes (n, channels, height, width).
        """
        if (
            images.ndim == 4
            and images.shape[1] in (1, 3, 4)
            and images.shape[3] not in (1, 3, 4)
        ):
            images = images.transpose(0, 2, 3, 1)
        if images.ndim == 4 and images.shape[3] == 1:
            images = images[..., 0]
        return torch.stack(
            [
                self.convert(Image.fromarray(np.ascontiguousarray(image)))
                for image in images
            ]
        )

    def read_all(self, files: Iterable[Path]) -> Tensor:
        """The images of several files as bytes (n, channels, height, width)."""
        return torch.stack([self.read(file) for file in files])

    def settings(self) -> dict[str, Any]:
        return asdict(self)


def _around_ink(
    image: Image.Image,
) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """The image with dark margins, and the square in it that has the ink's centre of
    mass in the middle and the farthest ink near its edge.

    Ink is what is nearer to the lightest pixel than to the darkest.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    rows, columns = np.nonzero(grey > (grey.min() + grey.max()) / 2)
    if not len(rows):  # an even image
        return image, (0, 0, image.width, image.height)
    middle = float(columns.mean()) + 0.5, float(rows.mean()) + 0.5
    reach = max(
        float(np.abs(columns + 0.5 - middle[0]).max()),
        float(np.abs(rows + 0.5 - middle[1]).max()),
    )
    half = max(INK_MARGIN * reach, 0.15 * max(image.size))  # a dot stays a dot
    margin = math.ceil(half)
    left, top = middle[0] + margin - half, middle[1] + margin - half
    return ImageOps.expand(image, margin), (left, top, left + 2 * half, top + 2 * half)


def image_files(folder: Path) -> list[Path]:
    """The image files directly inside `folder`, in order of name."""
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )


def to_unit(images: Tensor) -> Tensor:
    """Bytes 0..255 as float32 in 0..1; what is no bytes as it is."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images
