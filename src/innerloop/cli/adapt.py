"""`innerloop adapt`."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import torch
from rich.console import Console

from innerloop.cli.fields import check_device
from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.estimators import FewShotClassifier
from innerloop.readers.image import SUFFIXES, to_unit
from innerloop.readers.table import Columns
from innerloop.runs import Run, RunError, reader, write_atomically
from innerloop.tasks import Tokenizer
from innerloop.tasks.arrays import read_table
from innerloop.tasks.folder import read_classes
from innerloop.tasks.text import read_texts


def run(options: argparse.Namespace) -> None:
    console = Console()
    folder = Run(options.run)
    settings = folder.settings()
    if (
        not (settings.preprocess or settings.reads)
        or settings.spec["kind"] != "classes"
    ):
        raise RunError(
            f"{options.run} was not trained on classes of images, texts or rows: use FewShotClassifier or FewShotRegressor"
        )
    learner = folder.learner().to(check_device(options.device))
    preprocess = reader(settings.preprocess or settings.reads)
    if isinstance(preprocess, Tokenizer):
        what, examples, labels = "text", *read_texts(options.support)
        names, inputs = read_texts(options.query, label=False)[0], lambda some: some
    elif isinstance(preprocess, Columns):
        what, (examples, y, _), (rows, *_) = (
            "row",
            read_table(options.support),
            read_table(options.query, label=False),
        )
        labels, names, inputs = (
            y.tolist(),
            [*range(1, len(rows) + 1)],
            lambda some: [rows[i - 1] for i in some],
        )
    else:
        assert preprocess is not None
        what = "file"
        support, query = read_classes(options.support, preprocess), Path(options.query)
        examples = to_unit(support.values)
        labels = [
            name
            for name, count in zip(support.names, support.counts.tolist(), strict=True)
            for _ in range(count)
        ]
        names = [file.relative_to(query).as_posix() for file in below(query)]
        inputs = lambda some: to_unit(  # noqa: E731
            preprocess.read_all(query / name for name in some)
        )
    classifier = FewShotClassifier(learner).fit(examples, labels)  # pyright: ignore[reportArgumentType]
    memory = io.StringIO()
    writer = csv.writer(memory)
    writer.writerow([what, "label", "probability"])
    for begin in range(0, len(names), 256):
        some = names[begin : begin + 256]
        chances = torch.from_numpy(classifier.predict_proba(inputs(some)))
        for name, (chance, best) in zip(
            some, zip(*(t.tolist() for t in chances.max(-1)), strict=True), strict=True
        ):
            writer.writerow([name, classifier.classes_[int(best)], f"{chance:.4f}"])
    out = Path(options.out)
    if not out.parent.is_dir():
        raise InnerloopFileError(
            f"there is no folder {out.parent} to write {out.name} into"
        )
    write_atomically(out, memory.getvalue().encode())
    console.print(
        f"labelled {len(names)} {what}s with {len(set(labels))} classes from {len(labels)} examples: {out}",
        highlight=False,
    )


def below(folder: Path) -> list[Path]:
    """The image files anywhere below a folder. Raises FileNotFoundError where there is
    none, and ValueError where it holds none.
    """
    if not folder.is_dir():
        raise InnerloopFileError(f"there is no folder {folder}")
    files = sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )
    if not files:
        raise InnerloopError(
            f"{folder} holds no images (png, jpg, bmp, gif, tif, webp)"
        )
    return files
