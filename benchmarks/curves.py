"""How runs learned: the validation score over the minutes of training, from the runs'
own logs.

python benchmarks/curves.py RUN [RUN ...] --plot docs/curves.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from innerloop.cli.plot import pyplot

from innerloop.runs import Run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path, required=True)
    options = parser.parse_args()
    plt = pyplot()
    found: dict[str, list[Run]] = {}
    for folder in options.runs:
        found.setdefault(Run(folder).settings().tasks, []).append(Run(folder))
    figure, axes = plt.subplots(
        1, len(found), figsize=(5 * len(found), 3.2), squeeze=False
    )
    for ax, (tasks, runs) in zip(axes[0], found.items(), strict=True):
        for run in runs:
            settings, log = (
                run.settings(),
                [line for line in run.read_log() if "validation" in line],
            )
            fields = ", ".join(
                f"{name} {value}" for name, value in settings.fields.items()
            )
            label = settings.learner + (f" ({fields})" if fields else "")
            ax.errorbar(
                *(
                    [line[key] for line in log]
                    for key in ("seconds", "validation", "validation_interval")
                ),
                label=label,
                capsize=2,
            )
        ax.set(title=tasks, xlabel="seconds of training", ylabel="validation score")
        ax.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(options.plot, dpi=110)


if __name__ == "__main__":
    main()
