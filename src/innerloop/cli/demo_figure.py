"""The figure of `innerloop demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from innerloop.cli.figures import pyplot
from innerloop.core.learner import Learner
from innerloop.core.task import Task, TaskDistribution
from innerloop.evaluation.few_shot import TestResult

NAMES = {
    "protonet": "meta-trained\n(ProtoNet)",
    "finetune": "fine-tuned\nfeatures",
    "scratch": "from scratch",
}
GREEN, RED, GRAY = "#2a9d8f", "#d1495b", "#c9ada7"
QUERIES = 5  # of a class that are shown


def draw(
    file: Path,
    learner: Learner,
    tasks: TaskDistribution,
    results: dict[str, TestResult],
    seed: int,
) -> None:
    """One task with predictions, and the accuracy of every learner."""
    task = tasks.sample(1, torch.Generator().manual_seed(seed)).unbind()[0]
    plt = pyplot()
    figure = plt.figure(figsize=(10.5, 4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.25, 1])
    _draw_task(left, learner, task)
    axes = right.subplots()
    scores = [result.metrics["accuracy"] for result in results.values()]
    axes.barh(
        range(len(results)),
        [100 * score.mean for score in scores],
        xerr=[100 * (score.interval or 0) for score in scores],
        color=[GREEN, "#8ab0ab", GRAY],
        height=0.6,
    )
    axes.set_yticks(range(len(results)), [NAMES[name] for name in results], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(20, color="gray", linestyle=":", linewidth=1)
    axes.set_xlim(0, 100)
    axes.set_title("accuracy in %: 5 new characters, one example each", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _draw_task(figure: Any, learner: Learner, task: Task) -> None:
    ways = task.support.y.shape[1]
    with torch.no_grad():
        outputs = learner.predict(learner.adapt(task.support), task.query.x)
    guesses, truth = outputs.argmax(-1), task.query.y.argmax(-1)
    axes = figure.subplots(
        ways, QUERIES + 2, gridspec_kw={"width_ratios": [1, 0.25] + [1] * QUERIES}
    )
    for row in range(ways):
        support = task.support.x[int(task.support.y[:, row].argmax())]
        _image(axes[row, 0], support, "#333333", "example" if row == 0 else "")
        axes[row, 1].axis("off")
        places = (truth == row).nonzero()[:QUERIES, 0].tolist()
        for column, place in enumerate(places):
            guess = int(guesses[place])
            right = guess == row
            title = "" if right else f"predicted {guess + 1}"
            color = GREEN if right else RED
            _image(axes[row, 2 + column], task.query.x[place], color, title)
    figure.suptitle(
        "five new characters: one example each, then predictions (green: correct)",
        fontsize=9,
    )


def _image(axes: Any, image: torch.Tensor, color: str, title: str) -> None:
    axes.imshow(1 - image[0], cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=7, pad=2)
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=2)
