"""A task of classes, as people can read it, and what runs predict on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.report.html import (
    Html,
    badge,
    color,
    dot,
    letter,
    picture,
    pixels,
    tag,
    trimmed,
)
from innerloop.report.measure import Example, Measured
from innerloop.report.svg import percent

SHOTS = 5  # examples of a class that are shown
QUERIES = 15  # that are shown
WIDE = 180  # letters of a text


def predicted(found: Measured, example: Example) -> dict[int, tuple[str, Tensor]]:
    """The name of every run and what it expects for the queries, by its number."""
    predictions = {}
    with torch.no_grad():
        for run in found.tested():
            learner, task = (
                run.learner,
                on_device(run.learner, example.tasks[run.name]),
            )
            outputs = learner.predict(learner.adapt(task.support), task.query.x)
            mean = learner.likelihood.mean(outputs.float()).cpu()
            predictions[found.place(run.name)] = (run.name, mean)
    return predictions


def on_device(learner: Learner, task: Task) -> Task:
    return task.to(next(learner.parameters(), torch.empty(0)).device)


def class_task(
    found: Measured, source: TaskDistribution, number: int, example: Example
) -> Html:
    task, ways = example.shown, source.spec.y_dim
    names = example.names or [f"class {i + 1}" for i in range(ways)]
    expected = predicted(found, example)
    truth = task.query.y.argmax(-1).tolist()
    groups = [_class(source, task.support, i, names[i]) for i in range(ways)]
    chosen = _chosen(truth, ways)
    items = [_query(source, task, i, truth[i], names, expected) for i in chosen]
    some = (
        f"{len(chosen)} of {len(truth)} queries"
        if len(chosen) < len(truth)
        else (f"{len(truth)} queries")
    )
    matrices = [
        _confusion(name, place, p.argmax(-1).tolist(), truth, names)
        for place, (name, p) in expected.items()
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
    expected: Mapping[int, tuple[str, Tensor]],
) -> Html:
    guesses, wrong = [], False
    for run, (_, p) in expected.items():
        label = int(p[place].argmax())
        right = label == truth
        wrong = wrong or not right
        mark = tag("span", "✓" if right else "✗", class_="mark", aria_hidden="true")
        said = tag(
            "span", "correct: " if right else "mistake: ", class_="visually-hidden"
        )
        name = "" if right else tag("span", trimmed(names[label], 16))
        share = percent(round(float(p[place, label]), 2))
        who = badge(run) if len(expected) > 1 else ""
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
