"""Figures of tasks: images in notebooks, and curves with matplotlib."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Gaussian
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError

_PER_CLASS, _ROWS = 6, 10  # most that a picture shows


def episode_picture(tasks: TaskDistribution, seed: int) -> Image.Image:
    """One task as a picture: a row for each class, support | query.

    Raises InnerloopError for tasks without images.
    """
    if not tasks.spec.is_image:
        raise InnerloopError(f"show() draws images; these are {tasks.describe()}")
    task = tasks.sample(1, torch.Generator().manual_seed(seed)).unbind()[0]
    support, query = (
        [examples.x[examples.y.argmax(1) == label] for label in range(tasks.spec.y_dim)]
        for examples in task
    )
    rows = [pair for pair in zip(support, query, strict=True) if len(pair[0])][:_ROWS]
    width = max(min(len(images), _PER_CLASS) for images, _ in rows)
    tiles = [(_row(images, width), _row(query, _PER_CLASS)) for images, query in rows]
    gap = tiles[0][0].new_ones(tiles[0][0].shape[0], tiles[0][0].shape[1], 6)
    return _image(torch.cat([torch.cat([s, gap, q], 2) for s, q in tiles], 1))


def _row(images: Tensor, count: int) -> Tensor:
    """Up to `count` images (n, c, h, w) side by side with frames, filled with white."""
    framed = torch.nn.functional.pad(images[:count], (1, 1, 1, 1), value=1.0)
    blank = framed.new_ones(count - len(framed), *framed.shape[1:])
    return torch.cat([*framed, *blank], 2)


def _image(pixels: Tensor) -> Image.Image:
    """Floats 0..1 (channels, h, w) as a Pillow image."""
    array = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def as_html(tasks: TaskDistribution, picture: Image.Image | None) -> str:
    """A description of tasks for notebooks, with a picture."""
    text = f"<p>{html.escape(tasks.describe())}</p>"
    if picture is None:
        return text
    stored = io.BytesIO()
    picture.save(stored, "PNG")
    content = base64.b64encode(stored.getvalue()).decode()
    return f'{text}<img src="data:image/png;base64,{content}" alt="one task">'


def prediction(learner: Learner, support: Examples, x: Tensor) -> tuple[Tensor, Tensor]:
    """The learner's mean and standard deviation (m, 1); without a learned scale the
    latter is 0.
    """
    with torch.no_grad():
        outputs = learner.predict(learner.adapt(support), x)
        likelihood = learner.likelihood
        if isinstance(likelihood, Gaussian) and likelihood.learned_scale:
            return likelihood.moments(outputs)
        mean = likelihood.mean(outputs)
        return mean, torch.zeros_like(mean)


def plot_curves(
    figure: Any, task: Task, x: Tensor, bands: dict[str, tuple[Tensor, Tensor]]
) -> None:
    """Draw the support and query points of a task into a figure, and every band: a mean
    (m, 1) at x (m, 1) and two standard deviations on both sides.
    """
    axes = figure.subplots()
    for i, (name, (mean, deviation)) in enumerate(bands.items()):
        color = ("C0", "C2")[i]
        low, high = ((mean + sign * 2 * deviation)[:, 0].cpu() for sign in (-1, 1))
        axes.plot(x[:, 0].cpu(), mean[:, 0].cpu(), color=color, label=name, lw=1.2)
        axes.fill_between(x[:, 0].cpu(), low, high, color=color, alpha=0.2, lw=0)
    for examples, style, size, name in (
        (task.query, ".", 2, "query"),
        (task.support, "k.", 6, "support"),
    ):
        color = {"color": "0.6"} if name == "query" else {}
        axes.plot(
            examples.x[:, 0].cpu(),
            examples.y[:, 0].cpu(),
            style,
            ms=size,
            label=name,
            **color,
        )
    axes.legend(fontsize=7, frameon=False)
