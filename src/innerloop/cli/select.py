"""`innerloop select`."""

from __future__ import annotations

from typing import Any

import click

from innerloop.cli.flags import RunFolder, SectionedCommand, option, reader_of
from innerloop.engine.errors import InnerloopError


def run(**arguments: Any) -> int:
    import torch

    from innerloop.assembly import check_device
    from innerloop.cli.output import console
    from innerloop.core.task import Examples
    from innerloop.experiment import load

    device = check_device(arguments["device"])
    learner = load(arguments["run"]).to(device)
    reader = reader_of(learner, arguments["run"])
    if arguments["strategy"] is not None:
        if (option := learner.options().get("strategy")) is None:
            raise InnerloopError(
                f"{type(learner).__name__} has no query strategy: leave out "
                "--strategy, or train activelearner on pools"
            )
        learner.strategy = option.check(arguments["strategy"])
    labeled, known = None, 0
    if arguments["labeled"]:
        support = reader.read(arguments["labeled"], labels=True)
        names = sorted(set(support.labels))
        index = torch.tensor([names.index(label) for label in support.labels])
        y = torch.eye(len(names))[index]
        labeled, known = Examples(support.x.to(device), y.to(device)), len(index)
    pool = reader.read(arguments["pool"], labels=False)
    with torch.no_grad():
        chosen = learner.next_to_label(pool.x.to(device), labeled, arguments["labels"])
    for place in chosen:
        print(pool.names[place])
    to = console(stderr=True)
    for problem in pool.unreadable:
        to.print(f"left out: {problem}")
    to.print(
        f"{len(chosen)} of {len(pool.names)} images to label next, the most useful "
        f"first ({known} are labeled)"
    )
    return 1 if pool.unreadable else 0


command = SectionedCommand(
    "select",
    params=[
        click.Argument(["run"], metavar="RUN", type=RunFolder()),
        option(
            "--pool",
            "The unlabeled images, anywhere below DIR.",
            required=True,
            metavar="DIR",
        ),
        option(
            "--labeled",
            "The images that are labeled already: DIR/CLASS/IMAGE.",
            metavar="DIR",
        ),
        option(
            "--labels",
            "How many images to choose.",
            type=click.IntRange(1, 10**6),
            default=5,
        ),
        option(
            "--strategy",
            "Another query strategy than the run's (see `innerloop list "
            "activelearner`).",
            metavar="NAME",
        ),
        option("--device", "Where to compute.", default="cpu"),
    ],
    callback=run,
    help="Choose which images to label next, with a run of an active learner; prints "
    "one file a line.",
)
