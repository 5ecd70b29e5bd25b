"""`innerloop ask`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console

from innerloop.cli.adapt import below
from innerloop.cli.fields import check_device
from innerloop.core.task import Examples
from innerloop.learners.active.active_learner import ActiveLearner
from innerloop.readers.image import Preprocess, to_unit
from innerloop.runs import Run, RunError
from innerloop.tasks.folder import read_classes


def run(options: argparse.Namespace) -> None:
    folder = Run(options.run)
    settings, learner = folder.settings(), folder.learner()
    if not isinstance(learner, ActiveLearner) or settings.preprocess is None:
        raise RunError(
            f"{options.run} is a run of {settings.learner} on {settings.tasks}, which asks for no labels of images: train asking on pools"
        )
    learner = learner.to(check_device(options.device))
    learner.strategy = options.strategy or learner.strategy
    preprocess, pool, labelled = (
        Preprocess(**settings.preprocess),
        Path(options.pool),
        None,
    )
    if options.labelled:
        known = read_classes(options.labelled, preprocess)
        labels = torch.arange(len(known)).repeat_interleave(known.counts)
        labelled = Examples(
            to_unit(known.values).to(options.device),
            torch.eye(len(known), device=options.device)[labels],
        )
    files = below(pool)
    with torch.no_grad():
        chosen = learner.next_to_label(
            to_unit(preprocess.read_all(files)).to(options.device),
            labelled,
            options.labels,
        )
    for i in chosen:
        print(files[i].relative_to(pool).as_posix())
    told = f"{0 if labelled is None else len(labelled.y)} have a label already"
    Console(stderr=True).print(
        f"{len(chosen)} of {len(files)} images to label next ({told}), the most useful one first",
        highlight=False,
    )
