"""The time of heads with a solver, forward and backward, compared with one linear
solve: 25 support examples of 5 classes, on one core.

python benchmarks/heads.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from innerloop import DKT, LRD2, R2D2, MetaOptNet, TaskSpec

FEATURES = (64, 1600)  # of Conv4 on images of 28 x 28 and of 84 x 84


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=200, help="measurements of each head (200)"
    )
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("| features | head | ms | times a linear solve |\n| --- | --- | --- | --- |")
    for size in FEATURES:
        torch.manual_seed(0)
        z = torch.cat(
            [torch.randn(25, size).relu() / size**0.5, torch.ones(25, 1)], 1
        ).requires_grad_()
        y = torch.eye(5).repeat(5, 1)
        heads: dict[str, Callable[[], Tensor]] = {"linear solve": lambda: plain(z, y)}  # noqa: B023
        for learner in (R2D2, LRD2, MetaOptNet, DKT):
            made = learner.build(TaskSpec("classes", (size,), 5), encoder="flatten")
            heads[learner.__name__] = lambda made=made: torch.stack(
                [part.sum() for part in tensors(made.learned(z, y))]  # noqa: B023
            ).sum()
        times: dict[str, list[float]] = {name: [] for name in heads}
        # interleaved, so that other load on the machine affects all alike
        for _ in range(repeats):
            for name, head in heads.items():
                begun = time.perf_counter()
                torch.autograd.grad(head(), z)
                times[name].append(1000 * (time.perf_counter() - begun))
        base = statistics.median(times["linear solve"])
        for name, taken in times.items():
            print(
                f"| {size} | {name} | {statistics.median(taken):.2f} | "
                f"{statistics.median(taken) / base:.1f} |"
            )


def plain(z: Tensor, y: Tensor) -> Tensor:
    """The least that a head can cost: one product of all pairs, and one solve."""
    return torch.linalg.solve(z @ z.T + torch.eye(len(z)), y).sum()


def tensors(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(
        part
        for part in ((state,) if isinstance(state, Tensor) else state)
        if part.is_floating_point()
    )


if __name__ == "__main__":
    main()
