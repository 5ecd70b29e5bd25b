"""Figures of the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from innerloop.core.learner import Learner
from innerloop.core.task import TaskDistribution
from innerloop.engine.errors import InnerloopError, MissingPackageError

COLUMNS = 4
FORMATS = (".png", ".pdf", ".svg", ".jpg")


def pyplot() -> Any:
    """matplotlib's pyplot, drawing to files."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingPackageError(
            "figures need matplotlib: pip install 'innerloop[plots]'"
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw(
    learner: Learner, settings: list[TaskDistribution], to: Path, seed: int
) -> None:
    """Draw what a learner predicts on a few tasks, a row for each setting.

    Raises InnerloopError for tasks that have no picture.
    """
    if to.suffix.lower() not in FORMATS:
        raise InnerloopError(f"--plot writes {', '.join(FORMATS)}; got {to.name}")
    plt = pyplot()
    size = (3.4 * COLUMNS, 2.6 * len(settings))
    figure = plt.figure(figsize=size, layout="constrained")
    device = next(learner.parameters(), torch.empty(0)).device
    rows = figure.subfigures(len(settings), COLUMNS, squeeze=False)
    for row, tasks in zip(rows, settings, strict=True):
        sample = tasks.sample(COLUMNS, torch.Generator().manual_seed(seed)).to(device)
        for panel, task in zip(row, sample.unbind(), strict=True):
            with torch.no_grad():
                tasks.plot_task(learner, task, panel)
    figure.savefig(to, dpi=110)
    plt.close(figure)
