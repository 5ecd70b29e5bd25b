"""`innerloop demo`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from innerloop.cli.plot import pyplot
from innerloop.cli.train import train
from innerloop.core.learner import Learner
from innerloop.core.meta_test import TestResult, meta_test
from innerloop.core.task import Task, TaskDistribution, TaskSpec
from innerloop.evaluation.head_start import HeadStart, head_start
from innerloop.learners import LEARNERS
from innerloop.learners.transfer.scratch import Scratch
from innerloop.runs import Run, RunError, Settings, versions
from innerloop.tasks import strokes
from innerloop.tasks.omniglot import PREPROCESS

TASKS = 100
NAMES = {
    "protonet": "meta-trained\n(ProtoNet)",
    "finetune": "fine-tuned\nfrom all classes",
    "scratch": "from scratch",
}


def run(options: argparse.Namespace) -> None:
    console = Console()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    console.print(
        "Meta-training a prototypical network on endless invented alphabets; then features for fine-tuning, for as long.",
        soft_wrap=True,
    )
    protonet = _trained("protonet", 0.5 * options.minutes, options.seed, out, console)
    finetune = _trained("finetune", 0.5 * options.minutes, options.seed, out, console)
    spec = TaskSpec("classes", (1, 28, 28), 5)
    torch.manual_seed(options.seed)
    scratch = Scratch.build(spec)
    unseen = strokes("test", ways=5, shots=1, queries=5)
    console.print(
        f"\n5 unseen characters, one example of each, {TASKS} tasks (95 % intervals, inductive):"
    )
    results: dict[str, TestResult] = {}
    for name, learner in (
        ("protonet", protonet),
        ("finetune", finetune),
        ("scratch", scratch),
    ):
        results[name] = meta_test(learner, unseen, n=TASKS)
        mean, half = results[name].metrics["accuracy"]
        console.print(
            f"  {NAMES[name].replace(chr(10), ' '):<32} {100 * mean:5.1f} ± {100 * half:.1f} %",
            highlight=False,
        )
    race = head_start(protonet, scratch, unseen, n=TASKS // 5)
    if race.learner_seconds is not None:
        console.print(
            f"  training from scratch needs {race.scratch_steps} steps, {1000 * race.scratch_seconds:.0f} ms, to its best {100 * race.target:.1f} %; "
            f"the meta-trained network is there after {1000 * race.learner_seconds:.0f} ms",
            highlight=False,
        )
    picture = out / "demo.png"
    draw(picture, protonet, unseen, results, race, options.seed)
    console.print(f"\npicture: {picture}    run: {out / 'protonet'}")


def _trained(
    name: str, minutes: float, seed: int, out: Path, console: Console
) -> Learner:
    """A learner meta-trained on strokes into a run folder, which is made anew."""
    defaults = LEARNERS[name].defaults
    options: dict[str, Any] = {
        "ways": recipe.ways,
        "shots": recipe.shots,
        "queries": recipe.queries,
        "groups": recipe.groups,
    }
    y_dim = strokes("train").labelled().spec.y_dim if recipe.supervised else recipe.ways
    settings = Settings(
        learner=name,
        fields={"encoder": "conv4"},
        spec={"kind": "classes", "x_shape": [1, 28, 28], "y_dim": y_dim},
        tasks="strokes",
        task_options=options,
        recipe=vars(recipe),
        minutes=minutes,
        seed=seed,
        preprocess=PREPROCESS.settings(),
        versions=versions(),
    )
    folder = Run(out / name)
    if folder.exists and not _same(folder, settings):
        raise RunError(
            f"{folder.folder} holds a run that is not the demo's, or a longer one: choose another --out"
        )
    return train(folder, settings, None, console)


def _same(folder: Run, settings: Settings) -> bool:
    """Whether the run there was told the same, with another seed perhaps, and for no
    longer.
    """
    try:
        there = folder.settings()
    except RunError:
        return False
    one, other = (
        json.dumps(asdict(replace(told, minutes=None, seed=0, versions={})))
        for told in (there, settings)
    )
    return one == other and (there.minutes or 0) <= (settings.minutes or 0)


def draw(
    file: Path,
    learner: Learner,
    tasks: TaskDistribution,
    results: dict[str, TestResult],
    race: HeadStart,
    seed: int,
) -> None:
    """One task as a person would see it, who was right how often, and how training from
    scratch catches up.
    """
    task = tasks.sample(1, torch.Generator().manual_seed(seed)).unbind()[0]
    plt = pyplot()
    figure = plt.figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.25, 1])
    _draw_task(left, learner, task)
    bars, curve = right.subplots(2, 1)
    heights = [100 * r.metrics["accuracy"].mean for r in results.values()]
    errors = [100 * r.metrics["accuracy"].interval for r in results.values()]
    places = range(len(results))
    bars.barh(
        places,
        heights,
        xerr=errors,
        color=["#2a9d8f", "#8ab0ab", "#c9ada7"],
        height=0.6,
    )
    bars.set_yticks(places, [NAMES[name] for name in results], fontsize=8)
    bars.invert_yaxis()
    bars.axvline(20, color="grey", linestyle=":", linewidth=1)
    bars.set_xlim(0, 100)
    bars.set_title("right on 5 unseen characters, %, one example each", fontsize=9)
    curve.plot(
        [100 * v for v in race.scratch_curve], color="#c9ada7", label="from scratch"
    )
    curve.axhline(100 * race.learner_curve[-1], color="#2a9d8f", label="meta-trained")
    curve.set_xlabel("gradient steps on the new task", fontsize=8)
    curve.set_ylabel("accuracy, %", fontsize=8)
    curve.set_ylim(0, 100)
    curve.legend(fontsize=7, loc="lower right")
    for axes in (bars, curve):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _draw_task(figure: Any, learner: Learner, task: Task) -> None:
    ways = task.support.y.shape[1]
    with torch.no_grad():
        chances = learner.predict(learner.adapt(task.support), task.query.x).softmax(-1)
    truth = task.query.y.argmax(-1)
    columns = 5
    axes = figure.subplots(
        ways, columns + 2, gridspec_kw={"width_ratios": [1, 0.25] + [1] * columns}
    )
    for row in range(ways):
        _image(
            axes[row, 0],
            task.support.x[int(task.support.y[:, row].argmax())],
            "#333333",
            "example" if row == 0 else "",
        )
        axes[row, 1].axis("off")
        for column, index in enumerate((truth == row).nonzero()[:columns, 0].tolist()):
            guess = int(chances[index].argmax())
            right = guess == row
            title = "" if right else f"took it for {guess + 1}"
            _image(
                axes[row, 2 + column],
                task.query.x[index],
                "#2a9d8f" if right else "#d1495b",
                title,
            )
    figure.suptitle(
        "five new characters: one example of each, then drawings to be read (green: right)",
        fontsize=9,
    )


def _image(axes: Any, image: torch.Tensor, colour: str, title: str) -> None:
    axes.imshow(1 - image[0], cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=7, pad=2)
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2)
