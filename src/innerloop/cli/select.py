"""`innerloop select`."""

from __future__ import annotations

from typing import Any

import click

from innerloop.cli.flags import RunFolder, SectionedCommand


def run(**arguments: Any) -> int:
    import torch

    from innerloop.assembly import check_device
    from innerloop.cli.output import console
    from innerloop.core.task import Examples
    from innerloop.experiment import load

    device = check_device(arguments["device"])
    learner = load(arguments["run"]).to(device)
    if arguments["strategy"]:
        learner.strategy = learner.options()["strategy"].check(arguments["strategy"])
    labeled, known = None, 0
    if arguments["labeled"]:
        support = learner.reader.read(arguments["labeled"], labels=True)
        names = sorted(set(support.labels))
        index = torch.tensor([names.index(label) for label in support.labels])
        y = torch.eye(len(names))[index]
        labeled, known = Examples(support.x.to(device), y.to(device)), len(index)
    pool = learner.reader.read(arguments["pool"], labels=False)
    with torch.no_grad():
        chosen = learner.next_to_label(pool.x.to(device), labeled, arguments["labels"])
    for place in chosen:
        print(pool.names[place])
    to = console(stderr=True)
    for problem in pool.unreadable:
        to.print(f"left out: {problem}", markup=False)
    to.print(
        f"{len(chosen)} of {len(pool.names)} images to label next, the most useful "
        f"first ({known} are labeled)"
    )
    return 1 if pool.unreadable else 0


command = SectionedCommand(
    "select",
    params=[
        click.Argument(["run"], metavar="RUN", type=RunFolder()),
        click.Option(
            ["--pool"],
            required=True,
            metavar="DIR",
            help="The unlabeled images, anywhere below DIR.",
        ),
        click.Option(
            ["--labeled"],
            metavar="DIR",
            help="The images that are labeled already: DIR/CLASS/IMAGE.",
        ),
        click.Option(
            ["--labels"],
            type=click.IntRange(1, 10**6),
            default=5,
            show_default=True,
            help="How many images to choose.",
        ),
        click.Option(
            ["--strategy"],
            metavar="NAME",
            help="Another query strategy than the run's (see `innerloop list "
            "activelearner`).",
        ),
        click.Option(["--device"], default="cpu", help="Where to compute."),
    ],
    callback=run,
    help="Choose which images to label next, with a run of an active learner; prints "
    "one file per line.",
)
