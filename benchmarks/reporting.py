"""What the scripts of this folder share: a report, printed and written as JSON in the
form of `innerloop test --json`, which studies read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from innerloop.measurements import Estimate, Measurement, Report, Row, Table, Unit
from innerloop.runs import write_atomically

Labels = Mapping[str, str | int | float | None]


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--json`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="a file for the report")
    return parser


def finish(report: Report, options: argparse.Namespace) -> None:
    """Print a report, and write it to the file of `--json`."""
    print(report, flush=True)
    if options.json is not None:
        content = json.dumps(report.as_dict(), indent=2, ensure_ascii=False)
        write_atomically(options.json, content.encode() + b"\n")


def row(labels: Labels, values: Mapping[str, Tensor | float], unit: Unit = "") -> Row:
    """A row of a table.

    Args:
        values: of each column a number, or one value for each task, of which the row
            shows the mean with its interval.
    """
    return Row(
        dict(labels),
        tuple(
            Measurement.of(name, Estimate.of(value), len(value), unit)
            if isinstance(value, Tensor)
            else Measurement(name, float(value), unit=unit)
            for name, value in values.items()
        ),
    )


def table(title: str, rows: list[Row]) -> Report:
    """A report of one table."""
    return Report((Table(title, tuple(rows)),))
