"""A few tasks, as people can read them, and what runs predict on them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.report.charts import GRID, curve_chart, legend
from innerloop.report.html import (
    Html,
    badge,
    color,
    dot,
    join,
    letter,
    picture,
    pixels,
    png,
    soft,
    table,
    tag,
    trimmed,
)
from innerloop.report.measure import Example, Measured
from innerloop.report.svg import percent

SHOTS = 5  # examples of a class that are shown
QUERIES = 15  # that are shown
WAYS = 25  # most classes of a task that is shown
WIDE = 180  # letters of a text


def tasks_section(found: Measured) -> list[Html]:
    """The parts of the section, one for each task."""
    if not found.examples or found.source is None:
        return [soft("There are no tasks to show.")]
    kind, ways = found.source.spec.kind, found.source.spec.y_dim
    if found.source.played or kind == "programs":
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
    kinds = {"classes": _classes, "reals": _regression, "bits": _sequence}
    return kinds[found.source.spec.kind](found, found.source, number, example)


def _predicted(found: Measured, example: Example) -> dict[int, tuple[str, Tensor]]:
    """The name of every run and what it expects for the queries, by its number."""
    predictions = {}
    with torch.no_grad():
        for run in found.tested():
            learner, task = (
                run.learner,
                _on_device(run.learner, example.tasks[run.name]),
            )
            outputs = learner.predict(learner.adapt(task.support), task.query.x)
            mean = learner.likelihood.mean(outputs.float()).cpu()
            predictions[found.place(run.name)] = (run.name, mean)
    return predictions


def _on_device(learner: Learner, task: Task) -> Task:
    return task.to(next(learner.parameters(), torch.empty(0)).device)


# ---------------------------------------------------------------------- classes


def _classes(
    found: Measured, source: TaskDistribution, number: int, example: Example
) -> Html:
    task, ways = example.shown, source.spec.y_dim
    names = example.names or [f"class {i + 1}" for i in range(ways)]
    predicted = _predicted(found, example)
    truth = task.query.y.argmax(-1).tolist()
    groups = [_class(source, task.support, i, names[i]) for i in range(ways)]
    chosen = _chosen(truth, ways)
    items = [_query(source, task, i, truth[i], names, predicted) for i in chosen]
    some = (
        f"{len(chosen)} of {len(truth)} queries"
        if len(chosen) < len(truth)
        else (f"{len(truth)} queries")
    )
    matrices = [
        _confusion(name, place, p.argmax(-1).tolist(), truth, names)
        for place, (name, p) in predicted.items()
    ]
    return tag(
        "article",
        tag("h3", f"Task {number + 1}"),
        tag("h4", "Support set"),
        tag("div", *groups, class_="classes"),
        tag("h4", f"Predictions for {some}"),
        tag("ul", *items, class_="queries"),
        tag("h4", "Confusion of all queries"),
        tag("div", *matrices, class_="matrices"),
        class_="card task",
    )


def _class(source: TaskDistribution, support: Examples, label: int, name: str) -> Html:
    """The support examples of a class."""
    x = support.x[support.y.argmax(-1) == label]
    shown = [_input(source, one, f"support example of {name}") for one in x[:SHOTS]]
    more = f"and {len(x) - SHOTS} more" if len(x) > SHOTS else ""
    return tag(
        "div",
        tag("b", dot(label), " ", trimmed(name, 24), title=name),
        tag("div", *shown, more, class_="shots"),
        class_="class",
        style=color(label),
    )


def _chosen(truth: Sequence[int], ways: int) -> list[int]:
    """The first queries of every class, in the order of the classes."""
    each = max(1, QUERIES // ways)
    found = []
    for label in range(ways):
        found += [i for i, y in enumerate(truth) if y == label][:each]
    return found


def _query(
    source: TaskDistribution,
    task: Task,
    place: int,
    truth: int,
    names: Sequence[str],
    predicted: Mapping[int, tuple[str, Tensor]],
) -> Html:
    guesses, wrong = [], False
    for run, (_, p) in predicted.items():
        label = int(p[place].argmax())
        right = label == truth
        wrong = wrong or not right
        mark = tag("span", "✓" if right else "✗", class_="mark", aria_hidden="true")
        said = tag(
            "span", "correct: " if right else "mistake: ", class_="visually-hidden"
        )
        name = "" if right else tag("span", trimmed(names[label], 16))
        share = percent(round(float(p[place, label]), 2))
        who = badge(run) if len(predicted) > 1 else ""
        guesses.append(
            tag(
                "span",
                who,
                mark,
                said,
                dot(label, names[label]),
                name,
                share,
                class_="guess" if right else "guess wrong",
            )
        )
    item = _input(source, task.query.x[place], f"query of class {names[truth]}")
    is_text = item.startswith("<blockquote")
    true = tag(
        "span",
        dot(truth),
        tag("span", trimmed(names[truth], 22), title=names[truth]),
        class_="true",
    )
    kind = " ".join(["query-item", *(["wide"] * is_text), *(["mistake"] * wrong)])
    return tag("li", item, tag("div", true, *guesses), class_=kind)


def _input(source: TaskDistribution, x: Tensor, alt: str) -> Html:
    """One input: a picture, a text, or its first numbers."""
    spec = source.spec
    if spec.is_image:
        drawn = source.reader is not None and source.reader.drawn
        return picture(pixels(1 - x if drawn else x), alt)  # ink is black on paper
    text = source.reader.as_text(x) if spec.vocabulary and source.reader else None
    if text is None:
        text = ", ".join(f"{v:.3g}" for v in x.flatten()[:4].tolist())
        text += ", …" if x.numel() > 4 else ""
    short = text if len(text) <= WIDE else text[: WIDE - 1] + "…"
    return tag("blockquote", short)


def _confusion(
    name: str, place: int, predicted: list[int], truth: list[int], names: Sequence[str]
) -> Html:
    """How often each class was taken for each, one run on one task."""
    ways = len(names)
    counts = [[0] * ways for _ in range(ways)]
    for y, p in zip(truth, predicted, strict=True):
        counts[y][p] += 1
    numbers = [tag("span", dot(i, names[i]), title=names[i]) for i in range(ways)]
    rows = []
    for y, row in enumerate(counts):
        cells = [
            tag(
                "td",
                count or "",
                class_="right" if p == y else None,
                style=f"--p: {count / max(sum(row), 1):.2f}",
            )
            for p, count in enumerate(row)
        ]
        head = tag(
            "th",
            dot(y),
            " ",
            trimmed(names[y]),
            scope="row",
            title=names[y],
        )
        rows.append(tag("tr", head, *cells))
    right = sum(row[i] for i, row in enumerate(counts))
    caption = tag("caption", badge(place), f" {name}: {right} of {len(truth)} correct")
    head = tag(
        "tr",
        tag(
            "td",
            tag("span", "true class, by predicted class", class_="visually-hidden"),
        ),
        *(tag("th", n, scope="col") for n in numbers),
    )
    shown = tag(
        "table", caption, tag("thead", head), tag("tbody", *rows), class_="confusion"
    )
    return tag(
        "div",
        shown,
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=f"confusion matrix of {letter(place)}",
    )


# ---------------------------------------------------------------------- others


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
            own = _on_device(learner, example.tasks[run.name])
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
            task = _on_device(run.learner, example.tasks[name])
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
    for place, (name, mean) in _predicted(found, example).items():
        rows.append((join([badge(place), " ", name]), _bits(mean, f"bits of {name}")))
    shown = table("bits over time", ["", "bits, from top to bottom"], rows, hidden=True)
    return tag("div", tag("h3", f"Task {number + 1}"), shown, class_="card task")


def _bits(values: Tensor, alt: str) -> Html:
    image = pixels(1 - values.T[None])
    image = image.resize((8 * image.width, 8 * image.height), 0)
    return picture(image, alt, 8 * 128, class_="pixels")
