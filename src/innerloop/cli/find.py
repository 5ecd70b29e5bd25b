"""`innerloop find`."""

from __future__ import annotations

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


def run(**arguments: Any) -> None:
    from innerloop.cli.output import console
    from innerloop.cli.progress import measuring
    from innerloop.finding import Finder, drawn, examples_in, table
    from innerloop.readers.image import ImageReader
    from innerloop.runs import write_atomically

    out, picture = check_parent(arguments["out"]), check_parent(arguments["draw"])
    if out is picture is None:
        raise InnerloopError("name a file for the boxes: --out boxes.csv")
    if picture is not None and picture.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InnerloopError(f"--draw must be a .png or .jpg; got {picture.name!r:.60}")
    pages = ImageReader().scan(arguments["in"], labels=False)
    if picture is not None and len(pages.files) > 1:
        raise InnerloopError(
            f"{arguments['in']} holds {len(pages.files)} pages, and --draw draws one: "
            "name a page"
        )
    sizes = {name: arguments[name] for name in ("smallest", "largest", "least")}
    finder = Finder(examples_in(arguments["example"]), arguments["run"], **sizes)
    to, found = console(), []
    with measuring(to, "searching", "searches") as say:
        for file in pages.files:
            say(f"page {len(found) + 1}")
            found.append(finder(file))
    if out is not None:
        write_atomically(out, table(pages.names, found).encode("utf-8"))
    if picture is not None:
        drawn(pages.files[0], found[0]).save(picture)
    for symbol in finder.symbols:
        count = sum(o.name == symbol for some in found for o in some)
        to.print(f"{symbol}: found {count} time{'s' if count != 1 else ''}")
    to.print(f"written: {', '.join(str(f) for f in (out, picture) if f)}")


command = SectionedCommand(
    "find",
    params=[
        click.Argument(["run"], metavar="[RUN]", type=RunFolder(), required=False),
        option(
            "--example",
            "A crop of the symbol, FILE or NAME=FILE, also several times; or a folder "
            "DIR/NAME/FILE. Crops of one name are examples of one symbol.",
            required=True,
            multiple=True,
            metavar="PATH",
        ),
        option(
            "--in",
            "The page, or a folder of pages: scans, photographs or drawings.",
            required=True,
            metavar="PATH",
        ),
        option("--out", "A .csv with a row for each box.", metavar="FILE"),
        option("--draw", "The page with the boxes, a .png.", metavar="FILE"),
        option(
            "--smallest",
            "Smallest size, relative to the examples.",
            type=Number(0.05, 20),
            default=0.5,
        ),
        option(
            "--largest",
            "Largest size, relative to the examples.",
            type=Number(0.05, 20),
            default=2.0,
        ),
        option("--least", "Smallest score.", type=Number(0, 1), default=0.5),
    ],
    callback=run,
    help="Find every occurrence of a symbol on a page from one or a few crops of it: "
    "with a run of siameseunet, or without a run by template matching.",
)
