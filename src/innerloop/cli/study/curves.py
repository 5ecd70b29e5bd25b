"""`innerloop study curves`."""

from __future__ import annotations

from pathlib import Path

import click

from innerloop.cli.figures import FORMATS
from innerloop.cli.flags import check_parent, option
from innerloop.cli.study.opened import RESULTS, opened
from innerloop.engine.errors import InnerloopError


def run(name: str, rows: tuple[str, ...], plot: str, results: str) -> None:
    from innerloop.cli.figures import pyplot
    from innerloop.cli.output import console

    file = check_parent(plot)
    assert file is not None
    if file.suffix.lower() not in FORMATS:
        raise InnerloopError(f"--plot writes {', '.join(FORMATS)}; got {file.name}")
    study, stored = opened(name, results)
    chosen = [study.row(row) for row in rows] or [r for r in study.rows if not r.hidden]
    plt = pyplot()
    figure, axes = plt.subplots(
        1, 2, figsize=(10, 3.6), sharey=True, layout="constrained"
    )
    drawn = 0
    for number, row in enumerate(chosen):
        for result in stored.of(study, row):
            points = [p for p in result.curve if p[2] is not None]
            for place, ax in enumerate(axes):
                ax.plot(
                    [p[place] for p in points],
                    [p[2] for p in points],
                    color=f"C{number % 10}",
                    linestyle=("-", "--", ":")[number // 10 % 3],
                    label=row.name if result.seed == 0 else None,
                )
            drawn += bool(points)
    if not drawn:
        raise InnerloopError(f"{name} has no curves: run it first")
    axes[0].set(xlabel="meta-steps", ylabel="validation score", xscale="log")
    axes[1].set(xlabel="seconds of training", xscale="log")
    axes[1].legend(
        fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    figure.savefig(Path(file), dpi=110)
    plt.close(figure)
    console().print(f"written: {file}")


command = click.Command(
    "curves",
    params=[
        click.Argument(["name"]),
        option("--plot", "The file to draw into.", metavar="FILE", required=True),
        option(
            "--row",
            "Draw this row only; several times for several rows.",
            dest="rows",
            multiple=True,
            metavar="NAME",
        ),
        RESULTS,
    ],
    callback=run,
    help="Draw the validation scores of a study over meta-steps and over seconds.",
)
