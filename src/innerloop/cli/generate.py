"""`innerloop generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from innerloop.cli.flags import SEED, RunFolder, SectionedCommand, option, reader_of
from innerloop.engine.errors import InnerloopError

SHEET = "sheet.png"


def run(**arguments: Any) -> None:
    import torch

    from innerloop.assembly import check_device
    from innerloop.cli.contact_sheet import contact_sheet, picture
    from innerloop.cli.output import console
    from innerloop.core.task import Examples
    from innerloop.experiment import load

    device = check_device(arguments["device"])
    learner = load(arguments["run"]).to(device)
    support = reader_of(learner, arguments["run"]).read(
        arguments["support"], labels=True
    )
    names = sorted(set(support.labels))
    assert learner.spec is not None
    if learner.fixed_ways and len(names) > learner.spec.y_dim:
        raise InnerloopError(
            f"this run was trained for {learner.spec.y_dim} classes; "
            f"{arguments['support']} has {len(names)}"
        )
    index = torch.tensor([names.index(label) for label in support.labels])
    examples = Examples(support.x.to(device), torch.eye(len(names))[index].to(device))
    generator = torch.Generator().manual_seed(arguments["seed"])
    count, out = arguments["count"], Path(arguments["out"])
    with torch.no_grad():
        made = learner.generate(examples, count, generator).cpu().clamp(0, 1)
    for name, images in zip(names, made, strict=True):
        (out / name).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images, 1):
            file = out / name / f"generated-{i:0{len(str(count))}d}.png"
            picture(image).save(file)
    rows = [support.x[index == k] for k in range(len(names))]
    picture(contact_sheet(rows, made)).save(out / SHEET)
    console().print(
        f"generated {count} images of each of {len(names)} classes from "
        f"{len(support.names)} examples: {out}; side by side in {out / SHEET}"
    )


command = SectionedCommand(
    "generate",
    params=[
        click.Argument(["run"], metavar="RUN", type=RunFolder()),
        option(
            "--support", "The examples: DIR/CLASS/IMAGE.", required=True, metavar="DIR"
        ),
        option(
            "--out",
            "Where the images go: DIR/CLASS/generated-1.png, and a contact sheet.",
            required=True,
            metavar="DIR",
        ),
        option(
            "--count",
            "Images of each class.",
            type=click.IntRange(1, 10**6),
            default=10,
        ),
        option("--device", "Where to compute.", default="cpu"),
        option("--seed", "Random seed.", type=SEED, default=0),
    ],
    callback=run,
    help="Generate new images of new classes from a few examples, with a run of a "
    "generative learner.",
)
