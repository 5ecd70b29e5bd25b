"""`innerloop export`."""

from __future__ import annotations

from typing import Any

import click

from innerloop.cli.flags import RunFolder, SectionedCommand, option


def run(**arguments: Any) -> None:
    from innerloop.cli.output import console
    from innerloop.experiment import Experiment, load
    from innerloop.exporting import common_labels, export
    from innerloop.runs import Run

    to, folder = console(), Run(arguments["run"])
    learner = load(folder.folder)
    labels = arguments["labels"] or common_labels(Experiment.load(folder))
    out = arguments["out"] or folder.folder / arguments["format"]
    with to.status("exporting"):
        done = export(learner, out, arguments["format"], labels=labels)
    reading = done.about["reading"] or {}
    if "encoder" in reading:
        to.print(
            f"x are vectors of the pretrained encoder {reading['encoder']}, which is "
            "no part of the programs"
        )
    to.print(f"checked: results differ by {done.difference:.0e} of their size")
    to.print(f"written: {done.adapt}, {done.predict}")


command = SectionedCommand(
    "export",
    params=[
        click.Argument(["run"], metavar="RUN", type=RunFolder()),
        option(
            "--format",
            "onnx for onnxruntime and others, torch for torch.export.load.",
            type=click.Choice(["onnx", "torch"]),
            default="onnx",
        ),
        option(
            "--out",
            "A folder for the two programs [default: RUN/onnx or RUN/torch].",
            metavar="DIR",
        ),
        option(
            "--labels",
            "What the classes are called, where all tasks have the same; once for each "
            "class, in order.",
            metavar="NAME",
            multiple=True,
        ),
    ],
    callback=run,
    help="Write the learner of a run as two programs that run without innerloop: adapt "
    "learns a task from its support set, predict uses what it learned.",
)
