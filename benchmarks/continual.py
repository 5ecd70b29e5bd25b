"""Classes that arrive one after the other: the accuracy among all of them so far, as
`innerloop test RUN --continual 10 --json FILE` measured it.

python benchmarks/continual.py FILE [FILE ...] --plot docs/continual.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from innerloop.cli.plot import pyplot


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path, required=True)
    options = parser.parse_args()
    figure, axes = pyplot().subplots(figsize=(6, 3.6))
    for file in options.files:
        found = json.loads(file.read_text())
        told, accuracy = found["fields"], found["continual"]["accuracy"]
        label = found["learner"] + (
            f", {told['adapted']} adapted" if "adapted" in told else ""
        )
        means, halves = (
            [100 * estimate[key] for estimate in accuracy]
            for key in ("mean", "interval")
        )
        axes.errorbar(
            found["continual"]["classes"],
            means,
            halves,
            label=label,
            capsize=2,
            marker=".",
        )
    axes.set(xlabel="classes so far", ylabel="accuracy among them, %", ylim=(0, 100))
    axes.legend(
        fontsize=8, frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1)
    )
    figure.tight_layout()
    figure.savefig(options.plot, dpi=110)


if __name__ == "__main__":
    main()
