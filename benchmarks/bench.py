"""innerloop beside its peers: the same tasks, nets and initial weights, in one interleaved run; writes docs/performance.md's tables.

Every contender is a process of its own (contenders.py), in the peers' virtual environment, which `make bench` sets up. Before anything is timed,
every meta-gradient is compared with that of a plain loop in double precision.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from innerloop import MAML, TaskDistribution
from innerloop.nets import Conv4
from innerloop.tasks import omniglot, sinusoid, strokes

HERE = Path(__file__).parent


class Workload(NamedTuple):
    """What is timed, and who competes; the first contender is the one that ratios are to."""

    title: str
    name: str
    steps: int
    lr: float
    contenders: list[str]
    tasks: Callable[[], TaskDistribution]
    batch: int


def images(ways: int = 5, queries: int = 15) -> TaskDistribution:
    """Omniglot, or invented characters where it is missing."""
    try:
        return omniglot(ways=ways, queries=queries)
    except FileNotFoundError:
        return strokes(ways=ways, queries=queries)


PEERS = ["learn2learn", "higher", "torchopt", "plain"]
OURS = ["innerloop", "innerloop bf16"]
WORKLOADS = [
    Workload("MAML, 1 inner step", "maml-1", 1, 0.1, [*PEERS, *OURS], images, 16),
    Workload("MAML, 5 inner steps", "maml-5", 5, 0.1, [*PEERS, *OURS, "innerloop recompute"], images, 16),
    Workload("FOMAML, 5 inner steps", "fomaml-5", 5, 0.1, ["learn2learn", "plain", *OURS], images, 16),
    Workload("Meta-SGD, 1 inner step", "metasgd-1", 1, 0.1, ["learn2learn", *OURS], images, 16),
    Workload("MAML on sinusoids, 1 inner step", "maml-sinusoid", 1, 0.01, [*PEERS, "innerloop"], lambda: sinusoid(shots=10, queries=10), 32),
    Workload("ProtoNet, 20-way", "protonet-20", 0, 0.0, ["plain", *OURS], lambda: images(ways=20), 1),
]


class Contender:
    """A running process of contenders.py."""

    def __init__(self, python: str, workload: str, name: str, inputs: Path):
        self.name = name
        command = [python, str(HERE / "contenders.py"), workload, name, str(inputs)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer()

    def answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} has died")
        return line.strip()

    def order(self, words: str) -> str:
        assert self.process.stdin is not None
        print(words, file=self.process.stdin, flush=True)
        return self.answer()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def inputs(workload: Workload, folder: Path) -> Path:
    """A file with the workload's tasks and initial weights."""
    distribution = workload.tasks()
    tasks = distribution.sample(workload.batch, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    spec = distribution.spec
    if workload.name.startswith("protonet"):
        net: torch.nn.Module = Conv4(spec.x_shape)
    else:
        net = MAML.build(spec).net
    weights = [p.detach().clone(memory_format=torch.contiguous_format) for p in net.parameters()]
    file = folder / f"{workload.name}.pt"
    parts = [[part.x.contiguous(), part.y.contiguous()] for part in tasks]
    torch.save({"tasks": parts, "weights": weights, "steps": workload.steps, "lr": workload.lr, "kind": spec.kind}, file)
    return file


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """The relative distance of two meta-gradients."""
    gap = sum(float((f - e).square().sum()) for f, e in zip(found, expected, strict=True))
    return (gap / sum(float(e.square().sum()) for e in expected)) ** 0.5


class Row(NamedTuple):
    """tasks_per_second: median, lowest, highest. ratio: the median over rounds of the ratio to the first contender."""

    contender: str
    tasks_per_second: tuple[float, float, float]
    ratio: float
    error: float


def measure(workload: Workload, python: str, rounds: int, seconds: float) -> list[Row]:
    """Every contender's gradient checked, then all of them in turn, round after round."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = inputs(workload, folder)

        def gradient(contender: Contender) -> list[Tensor]:
            contender.order(f"grad {folder / 'grad.pt'}")
            return torch.load(folder / "grad.pt")

        exact = Contender(python, workload.name, "float64", file) if not workload.name.startswith("metasgd") else None
        contenders = [Contender(python, workload.name, name, file) for name in workload.contenders]
        reference = gradient(exact or contenders[0])
        if exact:
            exact.stop()
        errors = [distance(gradient(contender), reference) for contender in contenders]
        counts = []
        for contender in contenders:
            contender.order("run 1")
            counts.append(max(1, round(seconds / float(contender.order("run 1")))))
        times: list[list[float]] = [[] for _ in contenders]
        for _ in range(rounds):
            for contender, count, seen in zip(contenders, counts, times, strict=True):
                seen.append(float(contender.order(f"run {count}")) / count / workload.batch)
        for contender in contenders:
            contender.stop()
    rows = []
    for contender, seen, error in zip(contenders, times, errors, strict=True):
        ratio = statistics.median(first / own for first, own in zip(times[0], seen, strict=True))
        rows.append(Row(contender.name, (1 / statistics.median(seen), 1 / max(seen), 1 / min(seen)), ratio, error))
        print(f"{workload.title}: {contender.name}: {rows[-1]}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the peers")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one contender in one round")
    parser.add_argument("--only", default="", help="workloads whose name begins so")
    options = parser.parse_args()
    for workload in WORKLOADS:
        if workload.name.startswith(options.only):
            measure(workload, options.python, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
