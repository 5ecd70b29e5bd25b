"""The accuracy among all classes so far, while groups of classes arrive, as
`innerloop test RUN --class-incremental --json FILE` measured it.

python benchmarks/continual.py FILE [FILE ...] --plot docs/continual.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from innerloop.cli.figures import pyplot


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path, required=True)
    arguments = parser.parse_args()
    figure, axes = pyplot().subplots(figsize=(6, 3.6))
    for file in arguments.files:
        result = json.loads(file.read_text())
        rows = result["tables"][0]["rows"]
        axes.errorbar(
            [row["labels"]["classes so far"] for row in rows],
            [100 * row["values"][0]["mean"] for row in rows],
            [100 * (row["values"][0]["interval"] or 0) for row in rows],
            label=f"{result['learner']} ({file.stem})",
            capsize=2,
            marker=".",
        )
    axes.set(xlabel="classes so far", ylabel="accuracy among them, %", ylim=(0, 100))
    axes.legend(
        fontsize=8, frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1)
    )
    figure.tight_layout()
    figure.savefig(arguments.plot, dpi=110)


if __name__ == "__main__":
    main()
