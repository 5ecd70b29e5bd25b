"""`innerloop adapt`."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import torch
from rich.console import Console

from innerloop.cli.fields import check_device
from innerloop.estimators import FewShotClassifier
from innerloop.runs import Run, RunError, write_atomically
from innerloop.tasks.folder import read_classes
from innerloop.tasks.images import SUFFIXES, Preprocess, to_unit


def run(options: argparse.Namespace) -> None:
    console = Console()
    folder = Run(options.run)
    settings = folder.settings()
    if settings.preprocess is None:
        raise RunError(f"{options.run} was not trained on images: use innerloop.FewShotClassifier for arrays")
    learner = folder.learner().to(check_device(options.device))
    preprocess = Preprocess(**settings.preprocess)
    support = read_classes(options.support, preprocess)
    query = Path(options.query)
    if not query.is_dir():
        raise FileNotFoundError(f"there is no folder {query}")
    files = sorted(p for p in query.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise ValueError(f"{query} holds no images (png, jpg, bmp, gif, tif, webp)")
    labels = [name for name, count in zip(support.names, support.counts.tolist(), strict=True) for _ in range(count)]
    classifier = FewShotClassifier(learner).fit(to_unit(support.values), labels)
    memory = io.StringIO()
    writer = csv.writer(memory)
    writer.writerow(["file", "label", "probability"])
    for begin in range(0, len(files), 256):
        some = files[begin : begin + 256]
        chances = torch.from_numpy(classifier.predict_proba(to_unit(preprocess.read_all(some))))
        for file, (chance, best) in zip(some, zip(*(t.tolist() for t in chances.max(-1)), strict=True), strict=True):
            writer.writerow([file.relative_to(query).as_posix(), classifier.classes_[int(best)], f"{chance:.4f}"])
    out = Path(options.out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write {out.name} into")
    write_atomically(out, memory.getvalue().encode())
    console.print(f"labelled {len(files)} images with {len(support)} classes from {len(labels)} examples: {out}", highlight=False)
