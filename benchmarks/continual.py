"""Classes that arrive one after the other: the accuracy among all of them so far, run by run, and what was forgotten at the end.

python benchmarks/continual.py RUN [RUN ...] --groups 10 --streams 20 --plot docs/continual.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from innerloop.cli.further import percent
from innerloop.cli.plot import pyplot
from innerloop.continual import continual_test
from innerloop.runs import Run
from innerloop.tasks import Episodes


def named(run: Run) -> str:
    """The learner of a run, and what of its fields was set."""
    settings = run.settings()
    told = ", ".join(f"{name} {value}" for name, value in settings.fields.items() if name != "encoder")
    return settings.learner + (f" ({told})" if told else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--groups", type=int, default=10)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--plot", type=Path, required=True)
    options = parser.parse_args()
    figure, axes = pyplot().subplots(figsize=(6, 3.6))
    for run in map(Run, options.runs):
        tasks = run.settings().distribution("test", ways=2, shots=1, queries=1)
        if not isinstance(tasks, Episodes):
            parser.error(f"{run.folder} was not trained on classes")
        result = continual_test(  # the same streams for all
            run.learner(), tasks, groups=options.groups, shots=options.shots, queries=options.queries, streams=options.streams,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        print(f"{named(run)}: {percent(result.accuracy[-1])} of {result.classes[-1]:.0f} classes, forgetting {percent(result.forgetting)}")
        print(f"  told the group: {percent(result.told)}, forgetting {percent(result.told_forgetting)}; {result.seconds:.0f} s", flush=True)
        means, halves = zip(*result.accuracy, strict=True)
        axes.errorbar(result.classes, [100 * m for m in means], [100 * h for h in halves], label=named(run), capsize=2, marker=".")
    axes.set(xlabel="classes so far", ylabel="accuracy among them, %", ylim=(0, 100))
    axes.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(options.plot, dpi=110)


if __name__ == "__main__":
    main()
