"""`innerloop adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from innerloop.cli.flags import (
    Number,
    RunFolder,
    SectionedCommand,
    check_parent,
    option,
)
from innerloop.engine.errors import InnerloopError

ONLY_NEW_CLASSES = ("report", "sort_into", "reject", "sets")
COLUMNS = ("text_column", "image_column", "smiles_column", "label_column")


def run(**arguments: Any) -> int:
    from innerloop.assembly import check_device
    from innerloop.cli.output import console
    from innerloop.estimators import untrained
    from innerloop.labeling import label
    from innerloop.predicting import has_fixed_targets, predict
    from innerloop.readers.detect import reader_for
    from innerloop.runs import write_atomically

    out, page = check_parent(arguments["out"]), check_parent(arguments["report"])
    folder = arguments["sort_into"]
    if out is page is folder is None:
        raise InnerloopError("name a file for the labels: --out labels.csv")
    columns = {n: arguments[n] for n in COLUMNS if arguments[n] is not None}
    transductive = arguments["transductive"]
    if arguments["run"] is None:
        reader = reader_for(arguments["support"], arguments["encoder"], columns)
        support = reader.read(arguments["support"], labels=True)
        learner = untrained(reader, len(support.names), transductive)
    elif transductive:
        raise InnerloopError("--transductive is for labels without RUN")
    else:
        learner = _trained(arguments["run"], arguments["encoder"], columns)
        support = learner.reader.read(arguments["support"], labels=True)
    learner = learner.to(check_device(arguments["device"]))
    query = learner.reader.read(arguments["query"], labels=False)
    problems = [*support.unreadable, *query.unreadable]
    if problems and arguments["strict"]:
        raise InnerloopError(f"{len(problems)} inputs cannot be read: {problems[0]}")
    if not query.names:
        raise InnerloopError(f"{arguments['query']} holds nothing to label")
    if has_fixed_targets(learner):
        if unfit := [n for n in ONLY_NEW_CLASSES if arguments[n] is not None]:
            raise InnerloopError(
                f"--{unfit[0].replace('_', '-')} is for new classes, and "
                f"{arguments['run']} predicts numbers or fixed classes: use --out"
            )
        found = predict(learner, support, query)
        contents = ((out, found.table),)
    else:
        found = label(learner, support, query, arguments["reject"], arguments["sets"])
        contents = ((page, found.page), (out, found.table))
        if folder is not None:
            found.sort_into(Path(folder))
    for file, content in contents:
        if file is not None:
            write_atomically(file, content().encode("utf-8", "surrogateescape"))
    to = console()
    for note in dict.fromkeys(filter(None, (support.note, query.note))):
        to.print(note)
    for problem in problems:
        console(stderr=True).print(f"left out: {problem}")
    to.print(found.summary())
    to.print(f"written: {', '.join(str(f) for f in (out, page, folder) if f)}")
    return 1 if problems else 0


def _trained(folder: Path, encoder: str | None, columns: dict[str, str]) -> Any:
    """The learner of a run, with a reader for these columns."""
    from dataclasses import fields, replace

    from innerloop.experiment import load
    from innerloop.runs import RunError

    if encoder is not None:
        raise InnerloopError(
            f"{folder} has its own encoder: leave out RUN, or --encoder"
        )
    learner = load(folder)
    kind = None if learner.spec is None else learner.spec.kind
    if learner.reader is None or kind not in ("classes", "reals"):
        raise RunError(
            f"{folder} was not trained on classes or numbers of images, texts or rows: "
            "use FewShotClassifier or FewShotRegressor in Python"
        )
    known = {field.name for field in fields(learner.reader)}
    for name in columns:
        if name not in known:
            raise InnerloopError(
                f"{folder} reads {learner.reader.what}s, which have no "
                f"--{name.replace('_', '-')}"
            )
    learner.reader = replace(learner.reader, **columns)
    return learner


command = SectionedCommand(
    "adapt",
    params=[
        click.Argument(["run"], metavar="[RUN]", type=RunFolder(), required=False),
        option(
            "--support",
            "The labeled examples: a folder DIR/CLASS/FILE of images or texts, an "
            "archive of it, or a table with the columns text, image or smiles, and "
            "label.",
            required=True,
            metavar="PATH",
        ),
        option(
            "--query",
            "What to label: files anywhere below a folder, an archive, or a table.",
            required=True,
            metavar="PATH",
        ),
        option(
            "--out",
            "A .csv with the three most probable labels; of runs trained on numbers or "
            "on ratings, with the predictions.",
            metavar="FILE",
        ),
        option(
            "--sort-into",
            "A new folder: copies the files of images into DIR/LABEL/.",
            metavar="DIR",
        ),
        option(
            "--report",
            "A page in HTML: the inputs, their labels and the most similar examples.",
            metavar="FILE",
        ),
        option(
            "--encoder",
            "Without RUN: the pretrained encoder, see `innerloop list encoders`; by "
            "default those for the kind of data that are installed. For molecules, the "
            "fingerprint [default: ecfp+descriptors].",
            metavar="NAME",
        ),
        *(
            option(
                f"--{name.replace('_', '-')}",
                f"The column of the {name.split('_')[0]}s of a table.",
                metavar="NAME",
            )
            for name in COLUMNS
        ),
        option(
            "--reject",
            "Label as (none) what is like none of the classes, so that this share of "
            "the inputs of the classes is rejected wrongly, such as 0.05.",
            type=Number(0, 1),
            metavar="SHARE",
        ),
        option(
            "--sets",
            "A column with all labels that are possible, which lacks the true one for "
            "about this share of the inputs, such as 0.1.",
            type=Number(0, 1),
            metavar="SHARE",
        ),
        option(
            "--transductive",
            "Without RUN: label all inputs together, so that they refine the classes; "
            "for a whole folder of them, about as many of each class.",
            is_flag=True,
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
    help="Learn new classes from labeled examples, and label other images, texts or "
    "rows. Without RUN, by a pretrained encoder and no training; with it, by what was "
    "meta-trained in that run folder.",
)
