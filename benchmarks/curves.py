"""Learning curves: the validation score over the time of training, from the logs of
runs.

python benchmarks/curves.py RUN [RUN ...] --plot docs/curves.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from innerloop import Experiment
from innerloop.cli.figures import pyplot
from innerloop.runs import Run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path, required=True)
    options = parser.parse_args()
    plt = pyplot()
    found: dict[str, list[Path]] = {}
    for folder in options.runs:
        found.setdefault(Experiment.load(folder).tasks.name, []).append(folder)
    figure, axes = plt.subplots(
        1, len(found), figsize=(5 * len(found), 3.2), squeeze=False
    )
    for ax, (tasks, runs) in zip(axes[0], found.items(), strict=True):
        for run in runs:
            learner = Experiment.load(run).learner
            log = [line for line in Run(run).read_log() if "validation" in line]
            shown = ", ".join(f"{name} {v}" for name, v in learner.options.items())
            label = learner.name + (f" ({shown})" if shown else "")
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
