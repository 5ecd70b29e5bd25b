"""`innerloop adapt`."""

from __future__ import annotations

import csv
import io
from typing import Any

import click

from innerloop.cli.flags import RunFolder, SectionedCommand, check_parent, option
from innerloop.engine.errors import InnerloopError


def run(**arguments: Any) -> int:
    from innerloop.assembly import check_device
    from innerloop.cli.output import console
    from innerloop.cli.spreadsheet import harmless
    from innerloop.estimators import FewShotClassifier
    from innerloop.experiment import load
    from innerloop.runs import RunError, write_atomically

    to = console()
    out = check_parent(arguments["out"])
    learner = load(arguments["run"]).to(check_device(arguments["device"]))
    reader, spec = learner.reader, learner.spec
    if reader is None or spec is None or spec.kind != "classes":
        raise RunError(
            f"{arguments['run']} was not trained on classes of images, texts or rows: "
            "use FewShotClassifier or FewShotRegressor in Python"
        )
    support = reader.read(arguments["support"], labels=True)
    query = reader.read(arguments["query"], labels=False)
    problems = [*support.unreadable, *query.unreadable]
    if problems and arguments["strict"]:
        raise InnerloopError(f"{len(problems)} inputs cannot be read: {problems[0]}")
    if not query.names:
        raise InnerloopError(f"{arguments['query']} holds nothing to label")
    classifier = FewShotClassifier(learner).fit(support, support.labels)
    probabilities = classifier.predict_proba(query)
    memory = io.StringIO()
    writer = csv.writer(memory)
    writer.writerow(
        [
            *({"image": "file"}.get(reader.what, reader.what), "label", "probability"),
            *("second_label", "second_probability"),
        ]
    )
    labels = [str(label) for label in classifier.classes_]
    order = (-probabilities).argsort(1, kind="stable")[:, :2]
    for name, row, places in zip(query.names, probabilities, order, strict=True):
        cells = [(harmless(labels[i]), f"{row[i]:.4f}") for i in places]
        writer.writerow([harmless(name), *cells[0], *cells[1]])
    assert out is not None
    content = memory.getvalue().encode("utf-8", "surrogateescape")
    write_atomically(out, content)
    for note in filter(None, (support.note, query.note)):
        to.print(note)
    for problem in problems:
        console(stderr=True).print(f"left out: {problem}")
    to.print(
        f"labeled {len(query.names)} {reader.what}s with {len(classifier.classes_)} "
        f"classes, from {len(support.names)} examples: {out}"
    )
    if query.labels is not None and set(query.labels) <= set(labels):
        pairs = zip(order[:, 0], query.labels, strict=True)
        right = sum(labels[place] == label for place, label in pairs)
        share = 100 * right / len(query.names)
        to.print(
            f"accuracy {share:.1f} %: {right} of {len(query.names)} have the label "
            f"that {arguments['query']} gives them"
        )
    return 1 if problems else 0


command = SectionedCommand(
    "adapt",
    params=[
        click.Argument(["run"], metavar="RUN", type=RunFolder()),
        option(
            "--support",
            "The labeled examples: a folder DIR/CLASS/IMAGE, or a table with the "
            "columns text and label, or y.",
            required=True,
            metavar="PATH",
        ),
        option(
            "--query",
            "What to label: images anywhere below a folder, or a table.",
            required=True,
            metavar="PATH",
        ),
        option(
            "--out",
            "A .csv with the two most probable labels of each input.",
            required=True,
            metavar="FILE",
        ),
        option(
            "--strict",
            "Write nothing where an input cannot be read (default: label the "
            "others, and exit with code 1).",
            is_flag=True,
        ),
        option("--device", "Where to compute.", default="cpu"),
    ],
    callback=run,
    help="Learn new classes from labeled examples with a trained run, and label other "
    "images, texts or rows.",
)
