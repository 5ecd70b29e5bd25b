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
    from innerloop.predicting import has_fixed_targets

    device = check_device(arguments["device"])
    learner = load(arguments["run"]).to(device)
    reader = reader_of(learner, arguments["run"])
    if has_fixed_targets(learner):
        return _questions(learner, arguments)
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


def _questions(learner: Any, arguments: dict[str, Any]) -> int:
    """What to ask a person about next, of a run that was trained on persons."""
    from typing import get_args

    from innerloop.cli.output import console
    from innerloop.evaluation.questions import Order
    from innerloop.predicting import questions

    order = arguments["strategy"] or "information"
    if order not in get_args(Order):
        raise InnerloopError(
            f"--strategy must be one of {', '.join(get_args(Order))}; got {order!r}"
        )
    if not arguments["labeled"]:
        raise InnerloopError("name a table with at least one answer: --labeled FILE")
    known = learner.reader.read(arguments["labeled"], labels=True)
    pool = learner.reader.read(arguments["pool"], labels=False)
    chosen = questions(learner, known, pool, arguments["labels"], order)
    for name in chosen:
        print(name)
    console(stderr=True).print(
        f"{len(chosen)} to ask about next, the most useful first ({len(known.names)} "
        "are known)"
    )
    return 0


command = SectionedCommand(
    "select",
    params=[
        click.Argument(["run"], metavar="RUN", type=RunFolder()),
        option(
            "--pool",
            "The unlabeled images, anywhere below a folder; of runs trained on "
            "ratings, a table of items.",
            required=True,
            metavar="PATH",
        ),
        option(
            "--labeled",
            "The images that are labeled already: DIR/CLASS/IMAGE; of runs trained on "
            "ratings, a table of a person's ratings.",
            metavar="PATH",
        ),
        option(
            "--labels",
            "How many to choose.",
            type=click.IntRange(1, 10**6),
            default=5,
        ),
        option(
            "--strategy",
            "Another query strategy than the run's (see `innerloop list "
            "activelearner`); of runs trained on ratings, uncertainty or random in "
            "place of information.",
            metavar="NAME",
        ),
        option("--device", "Where to compute.", default="cpu"),
    ],
    callback=run,
    help="Choose which images to label next, with a run of an active learner; or which "
    "items to ask a person about next, with a run trained on ratings. Prints one a "
    "line.",
)
