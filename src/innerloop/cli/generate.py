"""`innerloop imagine`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from innerloop.cli.fields import check_device
from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopError
from innerloop.learners.generative.example_generator import ExampleGenerator
from innerloop.readers.image import Preprocess, to_unit
from innerloop.runs import Run, RunError
from innerloop.tasks.folder import read_classes

SHEET = "sheet.png"
# pixels between the images of the sheet; images of a class on it, support and imagined
# each
GAP, SHOWN = 2, 8


def run(options: argparse.Namespace) -> None:
    console = Console()
    folder = Run(options.run)
    settings = folder.settings()
    if settings.preprocess is None:
        raise RunError(f"{options.run} was not trained on images")
    learner = folder.learner()
    if not isinstance(learner, ExampleGenerator):
        raise RunError(
            f"{options.run} is a run of {settings.learner}, which imagines nothing: train metavae, metagan or gtn"
        )
    learner = learner.to(check_device(options.device))
    classes = read_classes(options.support, Preprocess(**settings.preprocess))
    ways = len(classes)
    if not type(learner).any_ways(settings.fields) and ways > settings.spec["y_dim"]:
        raise InnerloopError(
            f"this {settings.learner} was trained for {settings.spec['y_dim']} classes and {options.support} has {ways}"
        )
    labels = torch.arange(ways).repeat_interleave(classes.counts)
    support = Examples(to_unit(classes.values), torch.eye(ways)[labels])
    device = next(learner.parameters()).device
    generator = torch.Generator().manual_seed(options.seed)
    with torch.no_grad():
        made = (
            learner.imagine(
                Examples(*(t.to(device) for t in support)), options.count, generator
            )
            .cpu()
            .clamp(0, 1)
        )
    out = Path(options.out)
    width = len(str(options.count))
    for name, images in zip(classes.names, made, strict=True):
        (out / name).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images, 1):
            picture(image).save(out / name / f"imagined-{i:0{width}d}.png")
    picture(sheet([support.x[labels == k] for k in range(ways)], made)).save(
        out / SHEET
    )
    console.print(
        f"imagined {options.count} images of each of {ways} classes from {len(labels)} examples: {out}; side by side in {out / SHEET}",
        soft_wrap=True,
        highlight=False,
    )


def picture(image: Tensor) -> Image.Image:
    """An image (channels, height, width) in 0..1 as Pillow has it."""
    pixels = (image * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    return Image.fromarray(
        np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    )


def sheet(support: list[Tensor], made: Tensor) -> Tensor:
    """A contact sheet (channels, height, width): a row for each class, its examples, a
    bright line, and what was imagined.
    """
    channels, height, width = made.shape[2:]
    columns = (
        min(SHOWN, max(len(images) for images in support)),
        min(SHOWN, made.shape[1]),
    )
    whole = made.new_full(
        (channels, len(made) * (height + GAP), sum(columns) * (width + GAP) + 2 * GAP),
        0.35,
    )
    whole[..., columns[0] * (width + GAP) : columns[0] * (width + GAP) + GAP] = 1.0
    for row, parts in enumerate(zip(support, made, strict=True)):
        for images, count, left in zip(
            parts, columns, (0, columns[0] * (width + GAP) + 2 * GAP), strict=True
        ):
            for i, image in enumerate(images[:count]):
                top, begin = row * (height + GAP), left + i * (width + GAP)
                whole[:, top : top + height, begin : begin + width] = image
    return whole
