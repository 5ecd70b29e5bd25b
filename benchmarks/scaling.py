"""Two processes on two cores beside one process on one core.

    python benchmarks/scaling.py --rounds 5

Two processes, each bound to a core of its own, train a learner: in turn, one of them
alone while the other one sleeps, both together, and both at once on trainings of their
own. All are meta-steps as in a training: tasks are drawn, gradients computed and added,
the optimizer steps. A ratio is the median over rounds of the ratio of neighboring
measurements. What two unconnected trainings do in the time of one is what the machine
allows: cores share caches, memory and power. Beside these are the share of the time of
one process that drawing takes, and what a meta-step sends.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from typing import Any

import torch
from reporting import Report, finish, parser_of, row, table
from torch import Tensor, distributed, multiprocessing
from torch.multiprocessing.spawn import spawn

from innerloop.core.task import Task
from innerloop.engine.workers import ALONE, ProcessGroup, Workers, joined
from innerloop.experiment import Experiment
from innerloop.metagrad import distributed as shared
from innerloop.metagrad.meta_train import build_optimizer, meta_train

Workload = dict[str, Any]
WORKLOADS: dict[str, Workload] = {
    "MAML, 5-way 1-shot, 32 tasks": {
        "learner": "maml",
        "tasks": {"name": "omniglot", "options": {"ways": 5, "shots": 1}},
        "training": {"batch": 32},
    },
    "MAML, 5-way 1-shot, 8 tasks": {
        "learner": "maml",
        "tasks": {"name": "omniglot", "options": {"ways": 5, "shots": 1}},
        "training": {"batch": 8},
    },
    "ProtoNet, 20-way 1-shot, 4 tasks": {
        "learner": "protonet",
        "tasks": {
            "name": "omniglot",
            "options": {"ways": 20, "shots": 1, "queries": 5},
        },
        "training": {"batch": 4},
    },
    "RL2 by PPO, 512 MDPs": {"learner": "rl2", "tasks": "mdps"},
}
ROUND = 8  # meta-steps of a round of PPO
WARM_UP = 3 * ROUND  # gradients are recorded meanwhile, and most often compared


class Counting(ProcessGroup):
    """Counts the bytes that this process adds to those of others."""

    sent = 0

    def sum(self, tensor: Tensor) -> Tensor:
        self.sent += tensor.numel() * tensor.element_size()
        return super().sum(tensor)


class Training:
    """A training that goes on for as many meta-steps as are asked for."""

    def __init__(self, workload: Workload, workers: Workers):
        experiment, setup = Experiment(**workload, steps=10**6).resolve()
        learner, self.tasks = setup.learner, setup.tasks
        self.drawing = 0.0
        rule = shared(setup.meta_gradient, workers)
        rule.prepare(learner, setup.tasks, torch.Generator().manual_seed(1))
        sample = setup.tasks.sample

        def timed(n: int, generator: torch.Generator) -> Task:
            began = time.perf_counter()
            found = sample(n, generator)
            self.drawing += time.perf_counter() - began
            return found

        setup.tasks.sample = timed
        self.loop = meta_train(
            learner,
            setup.tasks,
            steps=10**6,
            batch=experiment.config.batch,
            meta_gradient=rule,
            optimizer=build_optimizer(learner, experiment.config),
            clip=experiment.config.clip,
        )

    def run(self, steps: int) -> float:
        """Seconds for so many meta-steps."""
        began = time.perf_counter()
        for _ in range(steps):
            next(self.loop)
        return time.perf_counter() - began


def wait() -> None:
    """Until both processes are here, without using a core."""
    distributed.barrier()


def compare(name: str, rounds: int, seconds: float) -> dict[str, float]:
    """What the first process measures; both must call it."""
    joined()
    workers, workload = Counting(), WORKLOADS[name]
    pair = Training(workload, workers)
    pair.run(WARM_UP)
    alone = Training(workload, ALONE)
    alone.run(WARM_UP)
    steps = ROUND * max(1, round(seconds / alone.run(ROUND)))
    steps = round(workers.of_first(steps)[0])
    ratios, unconnected, sums, drawing, spent = [], [], 0, 0.0, 0.0
    for _ in range(rounds):
        wait()
        one = 0.0
        if workers.first:
            alone.drawing = 0.0
            one = alone.run(steps)
            drawing, spent = drawing + alone.drawing, spent + one
        wait()
        workers.sent = 0
        both = pair.run(steps)
        sums = workers.sent
        ratios.append(one / both)
        wait()
        unconnected.append(2 * one / alone.run(steps))
    return {
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "two unconnected": statistics.median(unconnected),
        "ms, one process": 1000 * spent / rounds / steps,
        "% of it drawing": 100 * drawing / max(spent, 1e-9),
        "KiB added in a meta-step": sums / steps / 1024,
    }


def bound(
    rank: int, cores: list[int], port: int, names: list[str], options: Any, queue: Any
) -> None:
    """One of the two processes."""
    os.sched_setaffinity(0, {cores[rank]})
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    for name in names:
        found = compare(name, options.rounds, options.seconds)
        if rank == 0:
            shown = ", ".join(f"{key} {value:.3g}" for key, value in found.items())
            print(f"{name}: {shown}", flush=True)
            queue.put((name, found))


def measured(names: list[str], options: Any) -> Report:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("this needs two cores")
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    spawn(bound, (cores, port, names, options, queue), nprocs=2)
    found = dict(queue.get() for _ in names)
    return table("scaling", [row({"workload": n}, found[n]) for n in names])


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="of one process in a round"
    )
    parser.add_argument(
        "--only", choices=["maml", "protonet", "rl2"], help="one of the workloads"
    )
    options = parser.parse_args()
    names = [
        name
        for name, workload in WORKLOADS.items()
        if options.only in (None, workload["learner"])
    ]
    finish(measured(names, options), options)


if __name__ == "__main__":
    main()
