"""Workers that are killed: whether a training in several processes ends as if nothing
had happened.

    python benchmarks/elastic.py --kills 20

Trains once undisturbed, and then again and again; every time, a process chosen at
random is killed (SIGKILL) at a random moment, and the agent starts all of them again.
Compares weights, checkpoint and log with those of the undisturbed training, bit by bit.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from reporting import finish, parser_of, row, table

from innerloop.runs import Run

TRAIN = "maml sinusoid --steps {steps} --processes {processes}"


def workers_of(agent: int) -> list[int]:
    """The processes that an agent has started."""
    try:
        words = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
        lines = {int(w): Path(f"/proc/{w}/cmdline").read_bytes() for w in words}
    except OSError:
        return []
    return [process for process, line in lines.items() if b"spawn_main" in line]


def start(folder: Path, line: str) -> subprocess.Popen[bytes]:
    # recordings take longer than such a short training
    surroundings = {**os.environ, "INNERLOOP_GRAPH_CACHE": "0"}
    words = [sys.executable, "-m", "innerloop", "train", *line.split()]
    with (folder.parent / f"{folder.name}.txt").open("wb") as output:
        return subprocess.Popen(
            [*words, "--out", str(folder)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=surroundings,
        )


def contents(folder: Path) -> tuple[bytes, str, dict[str, torch.Tensor]]:
    """Weights, log without times, and the learner of the checkpoint."""
    run = Run(folder)
    lines = [{**entry, "seconds": 0} for entry in run.read_log()]
    weights = (folder / "weights.safetensors").read_bytes()
    return weights, str(lines), run.load_checkpoint()["learner"]


def same(folder: Path, other: Path) -> bool:
    a, b = contents(folder), contents(other)
    return a[:2] == b[:2] and all(torch.equal(a[2][n], b[2][n]) for n in b[2])


def killed(
    folder: Path, line: str, delay: float, chance: random.Random
) -> tuple[int, str]:
    """Train, and kill one of the processes after a time; the exit code, and which
    process it was or "" where the training had ended before.
    """
    process = start(folder, line)
    until, victim = time.monotonic() + delay, ""
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)
    while not victim and process.poll() is None:
        found = workers_of(process.pid)
        if found:
            rank = chance.randrange(len(found))
            os.kill(found[rank], signal.SIGKILL)
            victim = f"process {rank}"
        time.sleep(0.05)
    return process.wait(), victim


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    options = parser.parse_args()
    line = TRAIN.format(steps=options.steps, processes=options.processes)
    chance, alike, kills, lost = random.Random(options.seed), 0, 0, []
    with tempfile.TemporaryDirectory() as name:
        whole, began = Path(name, "whole"), time.monotonic()
        if start(whole, line).wait():
            raise SystemExit((whole.parent / "whole.txt").read_text())
        usual = time.monotonic() - began
        print(f"undisturbed: {usual:.1f} s", flush=True)
        tries = 0
        while kills < options.kills:
            tries += 1
            folder, began = Path(name, f"{tries}"), time.monotonic()
            delay = chance.uniform(0.1, 1) * usual
            code, victim = killed(folder, line, delay, chance)
            took = time.monotonic() - began
            if not victim:  # it had ended before: the machine has less to do now
                usual = min(usual, took)
                continue
            kills += 1
            equal = code == 0 and same(folder, whole)
            alike += equal
            lost.append(took - usual)
            print(
                f"{kills}: {victim} killed after {delay:.1f} s, end after {took:.1f} s "
                f"with code {code}, weights {'the same' if equal else 'DIFFERENT'}",
                flush=True,
            )
            if not equal:
                print((folder.parent / f"{folder.name}.txt").read_text())
    print(f"{alike} of {kills} with the weights of an undisturbed training")
    values = {"kills": kills, "same weights": alike}
    found = row({}, {**values, "seconds lost": statistics.median(lost)})
    finish(table("elastic", [found]), options)
    raise SystemExit(alike != kills)


if __name__ == "__main__":
    main()
