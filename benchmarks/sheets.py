"""Images that generative runs generate from five drawings of each of five unseen
characters, side by side, how often a classifier predicts their class, and its accuracy
without and with five generated images of each class in the support set.

python benchmarks/sheets.py RUN [RUN ...] --classifier RUN --plot docs/imagined.png
"""

from __future__ import annotations

from dataclasses import replace

import torch
from reporting import finish, parser_of, row, table
from torch import Tensor

import innerloop
from innerloop.cli.figures import pyplot
from innerloop.core.task import Task
from innerloop.evaluation.generated_support import GeneratedSupport
from innerloop.measurements import TestPlan
from innerloop.tasks import omniglot

WAYS, SHOTS, SHOWN, GENERATED = 5, 5, 8, 5


@torch.no_grad()
def recognized(
    learner: innerloop.Learner, classifier: innerloop.Learner, tasks: Task
) -> Tensor:
    """The share of the generated images that the classifier, adapted to the same
    support set, assigns to their class.
    """
    generator, right = torch.Generator().manual_seed(0), []
    for task in tasks.unbind():
        # (ways, shown, *x_shape)
        images = learner.generate(task.support, SHOWN, generator).float()
        read = (
            classifier.predict(classifier.adapt(task.support), images.flatten(0, 1))
            .argmax(-1)
            .view(WAYS, SHOWN)
        )
        right.append((read == torch.arange(WAYS)[:, None]).float().mean())
    return torch.stack(right)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("runs", nargs="+", help="[NAME=]RUN")
    parser.add_argument(
        "--classifier", required=True, help="run of a classifier for any number of ways"
    )
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--plot", required=True)
    options = parser.parse_args()
    episodes = omniglot("test", protocol="vinyals", ways=WAYS, shots=SHOTS, queries=1)
    tasks, shown = (
        episodes.sample(n, torch.Generator().manual_seed(seed))
        for n, seed in ((options.tasks, 0), (1, 7))
    )
    support, classifier = (
        shown.unbind()[0].support,
        innerloop.load(options.classifier).eval(),
    )
    columns = [
        ("drawn", torch.stack([support.x[support.y[:, k] > 0.5] for k in range(WAYS)]))
    ]
    rows = []
    for text in options.runs:
        name, _, run = text.rpartition("=")
        learner = innerloop.load(run).eval()
        name = name or type(learner).__name__
        values = {"assigned to their class": recognized(learner, classifier, tasks)}
        made = row({"learner": name}, values, "%")
        extended = GeneratedSupport(generator_run=run, count=GENERATED)
        extended.prepare(innerloop.load)
        episodes = omniglot("test", protocol="vinyals", ways=WAYS, shots=SHOTS)
        plan = TestPlan(n=options.tasks)
        without, extra = extended.measure(classifier, episodes, plan).tables[0].rows
        accuracies = [
            replace(each.values[0], name=f"accuracy {how}")
            for how, each in (("without", without), ("with", extra))
        ]
        rows.append(replace(made, values=(*made.values, *accuracies)))
        print(rows[-1], flush=True)
        with torch.no_grad():
            columns.append(
                (
                    name,
                    learner.generate(
                        support, SHOWN, torch.Generator().manual_seed(0)
                    ).float(),
                )
            )
    widths = [images.shape[1] for _, images in columns]
    figure, axes = pyplot().subplots(
        1,
        len(columns),
        figsize=(0.42 * sum(widths), 2.4),
        width_ratios=widths,
        constrained_layout=True,
    )
    for axis, (name, images) in zip(axes, columns, strict=True):
        axis.imshow(
            1 - images[:, :, 0].permute(0, 2, 1, 3).flatten(2).flatten(0, 1),
            cmap="gray",
            vmin=0,
            vmax=1,
        )
        axis.set(title=name, xticks=[], yticks=[])
    figure.savefig(options.plot, dpi=110)
    finish(table("generated drawings", rows), options)


if __name__ == "__main__":
    main()
