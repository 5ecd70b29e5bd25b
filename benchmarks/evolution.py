"""How much faster a population is when its members are evaluated at once: seconds of `es`, all at once and one by one."""

from __future__ import annotations

import time

import torch

from innerloop import LSTM, MAML, Learner, ProtoNet, TaskDistribution, es
from innerloop.engine import population
from innerloop.tasks import sinusoid, strokes


def seconds(learner: Learner, tasks: TaskDistribution, pairs: int, batch: int, at_once: int, rounds: int = 5) -> float:
    """Of one meta-gradient: the least of some rounds, the first left out."""
    drawn = tasks.sample(batch, torch.Generator().manual_seed(0))
    usual, population.AT_ONCE = population.AT_ONCE, at_once
    found = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        es(learner, drawn, pairs=pairs, generator=torch.Generator().manual_seed(0))
        found.append(time.perf_counter() - begin)
    population.AT_ONCE = usual
    return min(found[1:])


def main() -> None:
    waves, drawings = sinusoid("train"), strokes("train", ways=5, shots=1, queries=5)
    cases: list[tuple[str, Learner, TaskDistribution, int, int]] = [
        ("MAML, sinusoid, 64 pairs, 8 tasks", MAML.build(waves.spec), waves, 64, 8),
        ("LSTM of 16 units, sinusoid, 64 pairs, 8 tasks", LSTM.build(waves.spec, hidden=16), waves, 64, 8),
        ("ProtoNet with mlp, strokes, 64 pairs, 4 tasks", ProtoNet.build(drawings.spec, encoder="mlp"), drawings, 64, 4),
        ("MAML with mlp, strokes, 64 pairs, 4 tasks", MAML.build(drawings.spec, net="mlp"), drawings, 64, 4),
        ("ProtoNet with conv4, strokes, 4 pairs, 2 tasks", ProtoNet.build(drawings.spec), drawings, 4, 2),
    ]
    print("| workload | one by one, ms | at once, ms | times as fast |\n| --- | --- | --- | --- |")
    for name, *case in cases:
        slow, fast = seconds(*case, at_once=0), seconds(*case, at_once=population.AT_ONCE)
        print(f"| {name} | {1000 * slow:.0f} | {1000 * fast:.0f} | {slow / fast:.1f} |", flush=True)


if __name__ == "__main__":
    main()
