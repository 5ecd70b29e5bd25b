"""Support images and generated images, side by side."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# pixels between the images; images of a class that are shown, of either sort
GAP, SHOWN = 2, 8


def picture(image: Tensor) -> Image.Image:
    """An image (channels, height, width) in 0..1 as Pillow holds it."""
    pixels = (image * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    gray = pixels.shape[-1] == 1
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if gray else pixels))


def contact_sheet(support: list[Tensor], generated: Tensor) -> Tensor:
    """A row for each class: its support images (n, channels, height, width), a bright
    line, and its generated images; (channels, height, width) in all.
    """
    channels, height, width = generated.shape[2:]
    left = min(SHOWN, max(len(images) for images in support))
    right = min(SHOWN, generated.shape[1])
    middle = left * (width + GAP)
    size = (len(generated) * (height + GAP), middle + 2 * GAP + right * (width + GAP))
    sheet = generated.new_full((channels, *size), 0.35)
    sheet[..., middle : middle + GAP] = 1.0
    for row, (shown, made) in enumerate(zip(support, generated, strict=True)):
        top = row * (height + GAP)
        for images, count, begin in ((shown, left, 0), (made, right, middle + 2 * GAP)):
            for i, image in enumerate(images[:count]):
                at = begin + i * (width + GAP)
                sheet[:, top : top + height, at : at + width] = image
    return sheet
