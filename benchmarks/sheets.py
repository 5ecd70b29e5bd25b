"""Drawings that generative runs generate from five drawings of each of five unseen
characters, side by side, with measures of them, and the accuracy of a classifier
without and with five generated drawings of each class in the support set.

- assigned to their class: how often a prototypical network predicts their class.
- diversity: the mean distance of two generated drawings of a class.
- nearest support drawing: the mean distance from a generated drawing to the nearest of
  the five; a copy has distance 0.

Distances are between features of the classifier, and relative to those of as many other
drawings of the class by people, who have a row of their own, from yet other drawings.

python benchmarks/sheets.py RUN [RUN ...] --classifier RUN --plot docs/imagined.png
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from reporting import finish, parser_of, row, table
from torch import Tensor

import innerloop
from innerloop.cli.figures import pyplot
from innerloop.core.task import Examples, Task
from innerloop.evaluation.generated_support import GeneratedSupport
from innerloop.measurements import Row, TestPlan
from innerloop.tasks import omniglot

WAYS, SHOTS, SHOWN, GENERATED = 5, 5, 7, 5
Draw = Callable[[Task], Tensor]  # drawings of a task's classes (ways, n, *x_shape)


def by_class(examples: Examples) -> Tensor:
    """Examples as (ways, n, *x_shape), where every class has n."""
    order = examples.y.argmax(-1).argsort(stable=True)
    return examples.x[order].unflatten(0, (examples.y.shape[1], -1))


def spread(features: Tensor) -> Tensor:
    """The mean distance of two examples of a class, features (ways, n, d)."""
    n = features.shape[1]
    return torch.cdist(features, features).sum() / (len(features) * n * (n - 1))


def nearest(features: Tensor, support: Tensor) -> Tensor:
    """The mean distance from features (ways, n, d) to the nearest of the support
    examples of the class (ways, shots, d).
    """
    return torch.cdist(features, support).amin(-1).mean()


@torch.no_grad()
def measures(
    draw: Draw, classifier: innerloop.ProtoNet, tasks: Task
) -> dict[str, Tensor]:
    """The share of drawings that the classifier, adapted to the support set, assigns to
    their class, and their distances relative to those of the first half of the query
    set.
    """

    def features(x: Tensor) -> Tensor:
        return classifier.encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    found: list[list[Tensor]] = []
    for task in tasks.unbind():
        drawn = draw(task)
        outputs = classifier.predict(
            classifier.adapt(task.support), drawn.flatten(0, 1)
        ).unflatten(0, drawn.shape[:2])
        right = outputs.argmax(-1) == torch.arange(len(drawn))[:, None]
        z, support = features(drawn), features(by_class(task.support))
        others = features(by_class(task.query)[:, : drawn.shape[1]])
        found.append(
            [
                right.float().mean(),
                spread(z) / spread(others),
                nearest(z, support) / nearest(others, support),
            ]
        )
    names = "assigned to their class", "diversity", "nearest support drawing"
    columns = torch.tensor(found).T
    return dict(zip(names, columns, strict=True))


def measured(name: str, draw: Draw, classifier: innerloop.ProtoNet, tasks: Task) -> Row:
    """The row of a learner, or of people."""
    return row({"learner": name}, measures(draw, classifier, tasks), "%")


def generator_of(learner: innerloop.Learner) -> Draw:
    """The learner's drawings, which depend on a seed and on the tasks before."""
    generator = torch.Generator().manual_seed(0)
    return lambda task: learner.generate(task.support, SHOWN, generator).float()


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("runs", nargs="+", help="[NAME=]RUN")
    parser.add_argument(
        "--classifier", required=True, help="run of a prototypical network"
    )
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--plot", required=True)
    options = parser.parse_args()
    episodes = omniglot(
        "test", protocol="vinyals", ways=WAYS, shots=SHOTS, queries=2 * SHOWN
    )
    tasks, shown = (
        episodes.sample(n, torch.Generator().manual_seed(seed))
        for n, seed in ((options.tasks, 0), (1, 7))
    )
    sheet, classifier = shown.unbind()[0], innerloop.load(options.classifier).eval()
    assert isinstance(classifier, innerloop.ProtoNet)

    def people(task: Task) -> Tensor:
        return by_class(task.query)[:, SHOWN:]

    columns = [("support set", by_class(sheet.support)), ("people", people(sheet))]
    rows = [measured("people", people, classifier, tasks)]
    for text in options.runs:
        name, _, run = text.rpartition("=")
        learner = innerloop.load(run).eval()
        name = name or type(learner).__name__
        made = measured(name, generator_of(learner), classifier, tasks)
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
            columns.append((name, generator_of(learner)(sheet)))
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
