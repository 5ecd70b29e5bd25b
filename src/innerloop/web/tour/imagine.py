"""Imagined variations of a character, from one drawing or a few."""

from __future__ import annotations

import base64
from typing import Any, cast

import torch
from torch import Tensor

from innerloop.core.task import Examples
from innerloop.learners.generative.meta_vae import MetaVAE
from innerloop.readers.image import ImageReader
from innerloop.web.drawings import DRAWING, picture
from innerloop.web.http import COUNT, array, record
from innerloop.web.tour.piece import SEED, Piece, ready

VARIATIONS, DRAWINGS = 16, 3


def run(body: dict[str, Any]) -> dict[str, Any]:
    """Variations of the character in the drawings, and the drawings as they are read;
    every image as the bytes of its pixels.
    """
    learner = cast(MetaVAE, ready("imagine"))
    reader = cast(ImageReader, learner.reader)
    x = reader.convert([picture(each["strokes"]) for each in body["drawings"]])
    support = Examples(x, torch.ones(len(x), 1))
    rng = torch.Generator().manual_seed(body["seed"])
    made = learner.generate(support, VARIATIONS, rng)[0]
    return {
        "side": x.shape[-1],
        "read": [encoded(image) for image in x],
        "images": [encoded(image) for image in made],
    }


def encoded(image: Tensor) -> str:
    values = (255 * image[0].clamp(0, 1)).round().to(torch.uint8)
    return base64.b64encode(values.numpy().tobytes()).decode()


IMAGES = array({"type": "string"})
PIECE = Piece(
    "imagine",
    "Variations of a drawn character that a variational autoencoder imagines.",
    run,
    record(drawings=array(DRAWING, DRAWINGS, 1), seed=SEED),
    record(side=COUNT, read=IMAGES, images=IMAGES),
)
