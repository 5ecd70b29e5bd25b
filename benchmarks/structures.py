"""Which modules a modular learner uses for which function, in sums of the pairs that it
was trained on and in sums of unseen pairs.

python benchmarks/structures.py RUN --plot docs/structures.png
RUN is made by `innerloop train modular sums`.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

import innerloop
from innerloop.cli.figures import pyplot
from innerloop.learners.amortized.modular import Modular
from innerloop.tasks import sums
from innerloop.tasks.function_sums import FUNCTIONS, Sums


@torch.no_grad()
def used(learner: Modular, pairs: list[tuple[str, str]], tasks: int) -> Tensor:
    """How many modules of each kind a task with a function uses, on average:
    (functions, library).
    """
    names, structures = list(FUNCTIONS), learner.get_buffer("structures")
    counts, seen = torch.zeros(len(names), learner.library), torch.zeros(len(names), 1)
    for pair in pairs:
        chosen = [
            learner.adapt(task.support)[0].argmax()
            for task in Sums([pair])
            .sample(tasks, torch.Generator().manual_seed(0))
            .unbind()
        ]
        modules = torch.nn.functional.one_hot(
            structures[torch.stack(chosen)], learner.library
        ).sum((0, 1))
        for name in pair:
            counts[names.index(name)] += modules
            seen[names.index(name)] += tasks
    return counts / seen  # not a number where no pair has the function


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--tasks", type=int, default=100, help="of every pair (100)")
    parser.add_argument("--plot", required=True)
    options = parser.parse_args()
    learner = innerloop.load(options.run)
    if not isinstance(learner, Modular):
        parser.error(f"{options.run} is no run of Modular")
    learner.eval()
    known, unseen = (
        used(learner, sums(part).pairs, options.tasks) for part in ("train", "test")
    )
    # modules by the function that uses them most
    order = known.argmax(0).argsort(stable=True)
    plt = pyplot()
    figure, axes = plt.subplots(
        1, 2, figsize=(9, 3.6), sharey=True, constrained_layout=True
    )
    for axis, share, title in zip(
        axes,
        (known, unseen),
        ("training pairs", "unseen pairs"),
        strict=True,
    ):
        image = axis.imshow(
            share[:, order],
            vmin=0,
            vmax=float(known.nan_to_num().max()),
            cmap="viridis",
        )
        axis.set(
            title=title,
            xlabel="module",
            xticks=range(learner.library),
            xticklabels=order.tolist(),
        )
        axis.set_yticks(range(len(FUNCTIONS)), list(FUNCTIONS))
    figure.colorbar(image, ax=axes, label="times used in a task with the function")
    figure.savefig(options.plot, dpi=110)


if __name__ == "__main__":
    main()
