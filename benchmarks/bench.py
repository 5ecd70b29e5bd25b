"""innerloop beside its peers, in one interleaved run: speed, or memory.

python benchmarks/bench.py speed --python .venv-peers/bin/python

Every contender is a process of its own (contenders.py) in the peers' virtual
environment, which `make bench` sets up; all get the same tasks, nets and initial
weights. Before anything is timed, every meta-gradient is compared with that of a plain
loop in double precision.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import torch
from reporting import finish, parser_of, row
from torch import Tensor

from innerloop import MAML, TaskDistribution
from innerloop.measurements import Report, Table
from innerloop.nets import Conv4
from innerloop.tasks import omniglot, sinusoid, strokes

HERE = Path(__file__).parent
CHECKED = 5  # smaller batches whose gradients are compared


class Workload(NamedTuple):
    """What is timed, and who competes; the first contender is the one that ratios are
    to.
    """

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


# mapped over tasks, the gradient of parallel-metalearn is off by 1e-3 in networks with
# batch normalization, so that it competes there one task after the other
MAPPED, LOOP = "parallel-metalearn", "parallel-metalearn loop"
PEERS = ["learn2learn", "higher", "torchopt", LOOP, "plain"]
OURS = ["innerloop", "innerloop bf16"]
WORKLOADS = [
    Workload("MAML, 1 inner step", "maml-1", 1, 0.1, [*PEERS, *OURS], images, 16),
    Workload("MAML, 5 inner steps", "maml-5", 5, 0.1, [*PEERS, *OURS], images, 16),
    Workload(
        "FOMAML, 5 inner steps",
        "fomaml-5",
        5,
        0.1,
        ["learn2learn", LOOP, "plain", *OURS],
        images,
        16,
    ),
    Workload(
        "Meta-SGD, 1 inner step",
        "metasgd-1",
        1,
        0.1,
        ["learn2learn", *OURS],
        images,
        16,
    ),
    Workload(
        "MAML, sinusoids, 1 inner step",
        "maml-sinusoid",
        1,
        0.01,
        [*PEERS, MAPPED, "innerloop"],
        lambda: sinusoid(shots=10, queries=10),
        32,
    ),
    Workload(
        "ProtoNet, 20-way 1-shot",
        "protonet-20",
        0,
        0.0,
        ["plain", *OURS],
        lambda: images(ways=20),
        1,
    ),
    Workload(
        "Testing MAML, 5 inner steps",
        "test-5",
        5,
        0.1,
        ["learn2learn", "plain", *OURS],
        images,
        25,
    ),
]
MEMORY_STEPS, MEMORY_TASKS = (1, 5, 10, 20), (4, 16, 64)


class Contender:
    """A running process of contenders.py."""

    def __init__(self, python: str, workload: str, name: str, inputs: Path):
        self.name = name
        command = [python, str(HERE / "contenders.py"), workload, name, str(inputs)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
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
    distribution, generator = workload.tasks(), torch.Generator().manual_seed(0)

    def draw(n: int) -> list[list[Tensor]]:
        return [
            [part.x.contiguous(), part.y.contiguous()]
            for part in distribution.sample(n, generator)
        ]

    torch.manual_seed(0)
    spec = distribution.spec
    net = (
        Conv4(spec.x_shape)
        if workload.name.startswith("protonet")
        else MAML.build(spec).net
    )
    weights = [
        p.detach().clone(memory_format=torch.contiguous_format)
        for p in net.parameters()
    ]
    file = folder / f"{workload.name}-{workload.batch}.pt"
    smaller = [draw(min(4, workload.batch)) for _ in range(CHECKED)]
    settings = {
        "weights": weights,
        "steps": workload.steps,
        "lr": workload.lr,
        "kind": spec.kind,
    }
    torch.save({"tasks": draw(workload.batch), "smaller": smaller, **settings}, file)
    return file


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """The relative distance of two meta-gradients."""
    gap = sum(
        float((f - e).square().sum()) for f, e in zip(found, expected, strict=True)
    )
    return (gap / sum(float(e.square().sum()) for e in expected)) ** 0.5


def speed(
    workload: Workload, python: str, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Every contender's gradients checked, then all of them timed in turn, round after
    round.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = inputs(workload, folder)

        def gradients(contender: Contender) -> list[list[Tensor]]:
            found = []
            for i in range(CHECKED):
                contender.order(f"grad {i} {folder / 'grad.pt'}")
                found.append(torch.load(folder / "grad.pt"))
            return found

        contenders = [
            Contender(python, workload.name, name, file) for name in workload.contenders
        ]
        if workload.name.startswith("metasgd"):
            expected = gradients(contenders[0])
        else:
            exact = Contender(python, workload.name, "float64", file)
            expected = gradients(exact)
            exact.stop()
        errors = [
            statistics.median(map(distance, gradients(contender), expected))
            for contender in contenders
        ]
        for contender, error in zip(contenders, errors, strict=True):
            if error > 1e-4 and "bf16" not in contender.name:
                raise RuntimeError(
                    f"{workload.title}: the meta-gradient of {contender.name} is off "
                    f"by {error:.1e}"
                )
        counts = []
        for contender in contenders:
            contender.order("run 4")
            counts.append(max(1, round(seconds / float(contender.order("run 1")))))
        times: list[list[float]] = [[] for _ in contenders]
        for _ in range(rounds):
            for contender, count, seen in zip(contenders, counts, times, strict=True):
                seen.append(
                    float(contender.order(f"run {count}")) / count / workload.batch
                )
        for contender in contenders:
            contender.stop()
    rows = []
    for contender, seen, error in zip(contenders, times, errors, strict=True):
        ratio = statistics.median(
            first / own for first, own in zip(times[0], seen, strict=True)
        )
        rate = {
            "rate": 1 / statistics.median(seen),
            "low": 1 / max(seen),
            "high": 1 / min(seen),
        }
        rows.append(
            {"contender": contender.name, **rate, "ratio": ratio, "error": error}
        )
        print(workload.title, rows[-1], flush=True)
    return rows


def memory(python: str) -> dict[str, Any]:
    """Highest resident memory of four meta-steps in MiB, by inner steps and by tasks;
    then what 10,000 meta-steps leave behind.
    """
    base = WORKLOADS[0]
    found: dict[str, Any] = {"steps": {}, "tasks": {}, "one task": {}}
    with tempfile.TemporaryDirectory() as folder:

        def peak(name: str, steps: int, batch: int) -> float:
            workload = base._replace(
                name=f"maml-{steps}", steps=steps, batch=batch, lr=0.01
            )
            contender = Contender(
                python, workload.name, name, inputs(workload, Path(folder))
            )
            contender.order("run 4")
            mebibytes = float(contender.order("peak"))
            contender.stop()
            return mebibytes

        for name in ("learn2learn", "innerloop", "innerloop recompute"):
            found["steps"][name] = [peak(name, steps, 16) for steps in MEMORY_STEPS]
            found["tasks"][name] = [peak(name, 5, batch) for batch in MEMORY_TASKS]
            found["one task"][name] = peak(name, 20, 1)
            print(name, {what: found[what][name] for what in found}, flush=True)
        found["leak"] = {}
        for title, workload in (
            (
                "convolutions",
                base._replace(
                    name="maml-leak", batch=1, tasks=lambda: images(queries=1)
                ),
            ),
            ("sinusoids", WORKLOADS[4]._replace(batch=8)),
        ):
            contender = Contender(
                python, workload.name, "innerloop", inputs(workload, Path(folder))
            )
            sizes = []
            for count in (1000, 9000):
                contender.order(f"run {count}")
                sizes.append(float(contender.order("now")))
            contender.stop()
            found["leak"][title] = sizes
            print(
                "resident after 1,000 and 10,000 meta-steps", title, sizes, flush=True
            )
    return found


def machine() -> str:
    """This machine by its cores and instruction sets."""
    wanted = ["avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve"]
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.is_file() else set()
    sets = [name.upper().replace("_", "-") for name in wanted if name in flags]
    known = ", ".join(sets) or "unknown instruction sets"
    version = torch.__version__.split("+")[0]
    return f"{os.cpu_count()} cores ({known}), no GPU, PyTorch {version}"


def speed_report(results: dict[str, list[dict[str, Any]]]) -> Report:
    """The speedup of each workload, and every contender."""
    short, rows = [], []
    for title, found in results.items():
        for each in found:
            values = {
                "tasks per second": each["rate"],
                "lowest": each["low"],
                "highest": each["high"],
                "ratio to the first": each["ratio"],
                "gradient error": each["error"],
            }
            rows.append(row({"workload": title, "library": each["contender"]}, values))
        ratios = {each["contender"]: each["ratio"] for each in found}
        names = {"innerloop": "float32", "innerloop bf16": "bf16"}
        ours = {to: ratios[name] for name, to in names.items() if name in ratios}
        labels = {"workload": title, "compared with": found[0]["contender"]}
        short.append(row(labels, ours))
    tables = Table("speedup", tuple(short)), Table("meta-steps", tuple(rows))
    return Report(tables, (machine(),))


def memory_report(found: dict[str, Any]) -> Report:
    steps = [f"{n} inner step{'s' * (n > 1)}" for n in MEMORY_STEPS]
    tasks = [f"{n} tasks" for n in MEMORY_TASKS]
    by_steps = [
        row(
            {"library": name},
            {
                **dict(zip(steps, sizes, strict=True)),
                "20 inner steps, 1 task": found["one task"][name],
            },
        )
        for name, sizes in found["steps"].items()
    ]
    by_tasks = [
        row({"library": name}, dict(zip(tasks, sizes, strict=True)))
        for name, sizes in found["tasks"].items()
    ]
    after = ["after 1,000 meta-steps", "after 10,000"]
    leak = [
        row({"tasks": title}, dict(zip(after, sizes, strict=True)))
        for title, sizes in found["leak"].items()
    ]
    tables = (
        Table("MiB at 16 tasks", tuple(by_steps)),
        Table("MiB at 5 inner steps", tuple(by_tasks)),
        Table("MiB resident", tuple(leak)),
    )
    return Report(tables, (machine(),))


def drawn(results: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """A picture of the ratios."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = [*PEERS, MAPPED, *OURS]
    colors = dict(
        zip(
            names,
            [
                *("#8793a0", "#9aa5b1", "#adb8c3", "#bfc9d2", "#cfd8e0", "#e3e9ee"),
                *("#f28e2b", "#e15759"),
            ],
            strict=True,
        )
    )
    figure, axes = plt.subplots(figsize=(11, 4.2), layout="constrained")
    for i, rows in enumerate(results.values()):
        for j, one in enumerate(rows):
            at = i + 0.8 * ((j + 0.5) / len(rows) - 0.5)
            axes.bar(at, one["ratio"], 0.76 / len(rows), color=colors[one["contender"]])
            axes.text(
                at,
                one["ratio"],
                f"{one['ratio']:.1f}",
                ha="center",
                va="bottom",
                fontsize=7,
            )
    axes.set_xticks(
        range(len(results)),
        [title.replace(", ", ",\n") for title in results],
        fontsize=8,
    )
    axes.set_yscale("log")
    axes.set_ylabel("speedup over the first")
    axes.legend(
        [plt.Rectangle((0, 0), 1, 1, color=colors[name]) for name in names],
        names,
        fontsize=8,
        ncols=4,
        loc="upper left",
        frameon=False,
    )
    axes.set_ylim(
        0.4,
        max(row["ratio"] for rows in results.values() for row in rows) * 2.2,
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("what", choices=("speed", "memory"))
    parser.add_argument(
        "--python", default=sys.executable, help="the interpreter that has the peers"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="of one contender in one round"
    )
    titles = [workload.title for workload in WORKLOADS]
    parser.add_argument("--only", nargs="*", choices=titles, default=titles)
    parser.add_argument("--plot", type=Path, help="a file for a figure of the speed")
    options = parser.parse_args()
    if options.what == "memory":
        finish(memory_report(memory(options.python)), options)
        return
    results = {
        workload.title: speed(workload, options.python, options.rounds, options.seconds)
        for workload in WORKLOADS
        if workload.title in options.only
    }
    if options.plot:
        drawn(results, options.plot)
    finish(speed_report(results), options)


if __name__ == "__main__":
    main()
