"""Image files to tensors: one way of reading them, shared by every image data set and by users' own folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Preprocess:
    """How an image file becomes a tensor; saved with every run, so that later images are read the same way.

    channels: 1 (grey) or 3 (colour). size: height and width in pixels.
    dark_background: turn an image whose border is light (ink on paper) into light ink on dark.
    """

    channels: int = 3
    size: tuple[int, int] = (84, 84)
    dark_background: bool = False

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels, not {self.channels}")
        object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))

    def read(self, file: Path | IO[bytes]) -> Tensor:
        """The image in `file` as bytes (channels, height, width). Raises ValueError where it cannot be read."""
        try:
            with Image.open(file) as opened:
                return self.convert(opened)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"cannot read {file} as an image: {error}") from error

    def convert(self, image: Image.Image) -> Tensor:
        """A Pillow image as bytes (channels, height, width); transparent parts become white paper."""
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        if image.mode.startswith("I"):  # sixteen bits of grey
            image = Image.fromarray((np.asarray(image) / 257.0).round().clip(0, 255).astype(np.uint8))
        image = image.convert("L" if self.channels == 1 else "RGB")
        height, width = self.size
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BOX if image.width > width else Image.Resampling.BILINEAR))
        pixels = np.array(pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1))
        if self.dark_background:
            border = np.concatenate([pixels[:, 0].ravel(), pixels[:, -1].ravel(), pixels[:, :, 0].ravel(), pixels[:, :, -1].ravel()])
            if np.median(border) > 127:
                pixels = 255 - pixels
        return torch.from_numpy(pixels)

    def read_all(self, files: Iterable[Path]) -> Tensor:
        """The images of several files as bytes (n, channels, height, width)."""
        return torch.stack([self.read(file) for file in files])

    def settings(self) -> dict[str, Any]:
        return asdict(self)


def image_files(folder: Path) -> list[Path]:
    """The image files directly inside `folder`, in order of name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def to_unit(images: Tensor) -> Tensor:
    """Bytes 0..255 as float32 in 0..1; what is no bytes as it is."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images
