"""`innerloop test --plot`: what a learner answers on a few unseen tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Gaussian
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.tasks.completion import Completion, places
from innerloop.tasks.gp_curves import Curves
from innerloop.tasks.sinusoid import Sinusoid

COLUMNS = 4


def drawable(to: str, settings: list[TaskDistribution]) -> None:
    """Raises ValueError for tasks that are no picture, and for a file that is none."""
    if not all(isinstance(tasks, Curves | Sinusoid | Completion) for tasks in settings):
        raise InnerloopError(
            "--plot draws curves (gp-curves, sinusoid) and images to complete (completion)"
        )
    if Path(to).suffix.lower() not in (".png", ".pdf", ".svg", ".jpg"):
        raise InnerloopError(f"--plot writes a .png, .pdf, .svg or .jpg, not {to}")


def pyplot() -> Any:
    """matplotlib's, drawing to files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw(
    learner: Learner, settings: list[TaskDistribution], to: Path, seed: int
) -> Path:
    """A row of `COLUMNS` tasks for each of the settings."""
    images = isinstance(settings[0], Completion)
    columns = COLUMNS * (4 if images else 1)
    width, height = (1.3, 1.5) if images else (3.2, 2.4)
    plt = pyplot()
    figure, axes = plt.subplots(
        len(settings), columns, figsize=(width * columns, height * len(settings))
    )
    device = next(learner.parameters()).device
    for row, tasks in zip(axes if len(settings) > 1 else [axes], settings, strict=True):
        some = tasks.sample(COLUMNS, torch.Generator().manual_seed(seed)).to(device)
        for i, task in enumerate(some.unbind()):
            with torch.no_grad():
                if images:
                    _image(row[4 * i : 4 * i + 4], learner, task)
                else:
                    _curve(row[i], learner, tasks, task)
    if not images:
        figure.legend(
            *axes.flat[0].get_legend_handles_labels(),
            loc="upper center",
            ncols=4,
            fontsize=8,
            frameon=False,
        )
    figure.tight_layout(rect=(0, 0, 1, 1 if images else 0.93))
    figure.savefig(to, dpi=110)
    plt.close(figure)
    return to


def moments(learner: Learner, support: Examples, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (m, 1) that the learner gives; without a learned
    scale the latter is 0.
    """
    outputs = learner.predict(learner.adapt(support), x)
    if isinstance(learner.likelihood, Gaussian) and learner.likelihood.learned_scale:
        return learner.likelihood.moments(outputs)
    mean = learner.likelihood.mean(outputs)
    return mean, torch.zeros_like(mean)


def _curve(axes: Any, learner: Learner, tasks: TaskDistribution, task: Task) -> None:
    """Mean and band of two standard deviations; of the exact posterior too, where it is
    known.
    """
    reach = 2.0 if isinstance(tasks, Curves) else 5.0
    x = torch.linspace(-reach, reach, 200, device=task.support.x.device)[:, None]
    bands = [("learner", "C0", moments(learner, task.support, x))]
    if isinstance(tasks, Curves):
        bands.append(("exact posterior", "C2", tasks.posterior(task.support, x)))
    for name, colour, (mean, sd) in bands:
        low, high = ((mean + sign * 2 * sd)[:, 0].cpu() for sign in (-1, 1))
        axes.plot(x[:, 0].cpu(), mean[:, 0].cpu(), color=colour, label=name, lw=1.2)
        axes.fill_between(x[:, 0].cpu(), low, high, color=colour, alpha=0.2, lw=0)
    axes.plot(
        task.query.x[:, 0].cpu(),
        task.query.y[:, 0].cpu(),
        ".",
        color="0.6",
        ms=2,
        label="query",
    )
    axes.plot(
        task.support.x[:, 0].cpu(),
        task.support.y[:, 0].cpu(),
        "k.",
        ms=6,
        label="support",
    )


def _image(axes: Any, learner: Learner, task: Task) -> None:
    """The pixels that are shown, the mean and the standard deviation of the learner,
    and the pixels that are known, shown or asked for.
    """
    side = Completion.SIDE
    x = places(side).to(task.support.x.device)
    mean, sd = moments(learner, task.support, x)
    shown, known = (
        _pixels(side, *parts) for parts in ((task.support,), (task.support, task.query))
    )
    pictures = {
        "shown": shown,
        "mean": mean.view(side, side).cpu(),
        "deviation": sd.view(side, side).cpu(),
        "truth": known,
    }
    for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
        ax.imshow(picture.clamp(0, 1), cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, fontsize=8)
        ax.set_xticks([])
        ax.set_yticks([])


def _pixels(side: int, *parts: Examples) -> Tensor:
    """Known pixels in grey, all others blue (side, side, 3)."""
    picture = torch.tensor([0.15, 0.2, 0.5]).expand(side, side, 3).clone()
    for part in parts:
        row, column = ((part.x.cpu() + 1) / 2 * (side - 1)).round().long().T
        picture[row, column] = part.y.cpu().expand(-1, 3)
    return picture
