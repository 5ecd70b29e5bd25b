"""`innerloop demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from innerloop.cli.flags import SEED, Number, SectionedCommand, option

TASKS, YOUNG = 100, 150  # test tasks; meta-steps below which the figures say little
STEPS = {"protonet": 300, "finetune": 300}


def run(**arguments: Any) -> None:
    import torch

    from innerloop.assembly import Choice
    from innerloop.cli.demo_figure import draw
    from innerloop.cli.output import console
    from innerloop.cli.progress import follow
    from innerloop.evaluation.few_shot import meta_test
    from innerloop.experiment import Experiment, load
    from innerloop.learners.transfer.scratch import Scratch
    from innerloop.tasks import strokes

    to, out = console(), Path(arguments["out"])
    out.mkdir(parents=True, exist_ok=True)
    learners = {}
    for name, steps in STEPS.items():
        experiment = Experiment(
            Choice(name, {"encoder": "conv4"}),
            Choice("strokes"),
            steps=max(2, round(steps * arguments["scale"])),
            seed=arguments["seed"],
        )
        folder = out / name
        follow(
            experiment.train_events(
                folder, resume=(folder / "experiment.json").is_file()
            ),
            folder,
        )
        learners[name] = load(folder)
    torch.manual_seed(arguments["seed"])
    tasks = strokes("test", ways=5, shots=1, queries=5)
    learners["scratch"] = Scratch.build(tasks.spec)
    results = {}
    to.print(
        f"\n5 new characters, one example of each, {TASKS} tasks (95 % intervals):"
    )
    for name, learner in learners.items():
        results[name] = meta_test(learner, tasks, n=TASKS)
        score = results[name].metrics["accuracy"]
        text = f"{100 * score.mean:5.1f} ± {100 * (score.interval or 0):.1f} %"
        to.print(f"  {name:<10} {text}")
    if arguments["scale"] * min(STEPS.values()) < YOUNG:
        to.print("too few meta-steps for a meaningful comparison: use a larger --scale")
    picture = out / "demo.png"
    draw(picture, learners["protonet"], tasks, results, arguments["seed"])
    to.print(f"\nfigure: {picture}    runs: {out / 'protonet'}, {out / 'finetune'}")
    to.print("teach it classes of your own in the browser: innerloop serve --open")


command = SectionedCommand(
    "demo",
    params=[
        option(
            "--out",
            "Folder for the figure and the runs.",
            default="demo",
            metavar="DIR",
        ),
        option(
            "--scale",
            "Factor of the length of training.",
            type=Number(0.01, 100),
            default=1.0,
        ),
        option("--seed", "Random seed.", type=SEED, default=0),
    ],
    callback=run,
    help="Meta-train a prototypical network, and train features for fine-tuning, on "
    "synthetic alphabets; compare both with training from scratch on unseen "
    "characters, and draw a figure.",
)
