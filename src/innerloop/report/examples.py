"""A few tasks, as people can read them, and what runs predict on them."""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
from torch import Tensor

from innerloop.core.task import TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.report.charts import GRID, curve_chart, legend
from innerloop.report.classes import class_task, on_device, predicted
from innerloop.report.html import (
    Html,
    badge,
    join,
    picture,
    pixels,
    png,
    soft,
    table,
    tag,
)
from innerloop.report.measure import Example, Measured

WAYS = 25  # most classes of a task that is shown


def tasks_section(found: Measured) -> list[Html]:
    """The parts of the section, one for each task."""
    if not found.examples or found.source is None:
        return [soft("There are no tasks to show.")]
    kind, ways = found.source.spec.kind, found.source.spec.y_dim
    if found.source.played or kind not in _pictures():
        return [soft("Tasks of this kind have no picture.")]
    parts = [_task(found, i, example) for i, example in enumerate(found.examples)]
    first = f"The first {len(parts)} of the tested tasks, not chosen by their results."
    if kind == "classes" and ways > WAYS:
        return [soft(f"Tasks with more than {WAYS} classes are not shown.")]
    if kind == "reals":
        names = {found.place(r.name): r.name for r in found.tested()}
        return [
            soft(
                f"{first} Filled points are the support set, rings the queries; "
                "bands are two predicted standard deviations."
            ),
            legend(names),
            tag("div", *parts, class_="grid3"),
        ]
    return [soft(first), *parts]


def _task(found: Measured, number: int, example: Example) -> Html:
    assert found.source is not None
    draw = _pictures()[found.source.spec.kind]
    return draw(found, found.source, number, example)


def _pictures() -> dict[str, Callable[..., Html]]:
    """What draws a task, by the kind of its targets."""
    return {"classes": class_task, "reals": _regression, "bits": _sequence}


def _regression(
    found: Measured, source: TaskDistribution, number: int, example: Example
) -> Html:
    title = tag("figcaption", f"Task {number + 1}")
    if source.spec.x_size != 1 or source.spec.y_dim != 1:
        drawn = [_plotted(found, source, example, r.name) for r in found.tested()]
        return tag("div", tag("h3", f"Task {number + 1}"), *drawn, class_="card")
    task = example.shown
    x = torch.cat([task.support.x, task.query.x]).flatten()
    grid = torch.linspace(float(x.min()), float(x.max()), GRID)
    bands = {}
    with torch.no_grad():
        for run in found.tested():
            learner = run.learner
            own = on_device(learner, example.tasks[run.name])
            at = grid.to(own.support.x)[:, None]
            outputs = learner.predict(learner.adapt(own.support), at).float()
            mean, std = (
                learner.likelihood.mean(outputs),
                learner.likelihood.std(outputs),
            )
            std = torch.zeros_like(mean) if std is None else std
            bands[found.place(run.name)] = (run.name, mean[:, 0].cpu(), std[:, 0].cpu())
    drawn = curve_chart(number + 1, task, bands, grid)
    return tag("figure", title, drawn, class_="card")


def _plotted(
    found: Measured, source: TaskDistribution, example: Example, name: str
) -> Html:
    """The figure of `plot_task`, drawn with matplotlib where that is installed."""
    run = found.runs[found.place(name)]
    heading = tag("h4", badge(found.place(name)), f" {name}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return join([heading, soft("Pictures of these tasks need matplotlib.")])
    figure = Figure(figsize=(6, 2.4), layout="constrained")
    memory = io.BytesIO()
    try:
        with torch.no_grad():
            task = on_device(run.learner, example.tasks[name])
            source.plot_task(run.learner, task, figure)
    except InnerloopError as error:
        return join([heading, soft(str(error))])
    figure.savefig(memory, format="png", dpi=90)
    alt = f"what {name} predicts on this task"
    return join([heading, png(memory.getvalue(), alt, (540, 216), class_="plot")])


def _sequence(
    found: Measured, source: TaskDistribution, number: int, example: Example
) -> Html:
    """The bits that are wanted, and those that each run predicts."""
    rows = [("wanted", _bits(example.shown.query.y, "the bits that are wanted"))]
    for place, (name, mean) in predicted(found, example).items():
        rows.append((join([badge(place), " ", name]), _bits(mean, f"bits of {name}")))
    shown = table("bits over time", ["", "bits, from top to bottom"], rows, hidden=True)
    return tag("div", tag("h3", f"Task {number + 1}"), shown, class_="card task")


def _bits(values: Tensor, alt: str) -> Html:
    image = pixels(1 - values.T[None])
    image = image.resize((8 * image.width, 8 * image.height), 0)
    return picture(image, alt, 8 * 128, class_="pixels")
