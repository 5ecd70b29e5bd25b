"""Every learner meta-trained for the same few minutes and tested on the same tasks.

Runs `innerloop train` and `innerloop test` and prints a Markdown table. Learners
trained side by side (`--jobs`) share the machine's cores evenly.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from innerloop.runs import Run


class Row(NamedTuple):
    """A learner, its flags, and what its paper reports on Omniglot at 5-way 1-shot,
    with the source.
    """

    title: str
    flags: str
    published: str


ROWS = [
    Row("ProtoNet", "protonet", "98.8 (arXiv:1703.05175)"),
    Row("MatchingNet", "matchingnet", "98.1 (arXiv:1606.04080)"),
    Row("RelationNet", "relationnet", "99.6 ± 0.2 (arXiv:1711.06025)"),
    Row("SiameseNet", "siamesenet", "96.7 (in arXiv:1606.04080)"),
    Row("TripletNet", "tripletnet", "-"),
    Row("CentreLossNet", "centrelossnet", "-"),
    Row("MAML", "maml", "98.7 ± 0.4, transductive (arXiv:1703.03400)"),
    Row(
        "FOMAML",
        "maml --first-order --inner-steps 5 --inner-lr 0.1",
        "98.3 ± 0.5, transductive (in arXiv:1803.02999)",
    ),
    Row("ANIL", "maml --adapted head", "-"),
    Row(
        "Reptile",
        "maml --meta-gradient reptile --inner-steps 5 --inner-lr 0.1 --queries 9 "
        "--batch 5",
        "95.39 ± 0.09 (arXiv:1803.02999)",
    ),
    Row("Meta-SGD", "metasgd", "99.53 ± 0.26, transductive (arXiv:1707.09835)"),
    Row("iMAML", "imaml", "99.16 ± 0.35, transductive (arXiv:1909.04630)"),
    Row("FineTune (Baseline)", "finetune", "-"),
    Row("FineTune (Baseline++)", "finetune --head cosine", "-"),
    Row("Scratch", "scratch", "-"),
]


def measured(row: Row, options: argparse.Namespace) -> str:
    """The row of the table, trained and tested unless the run folder has its figures
    already.
    """
    name = row.title.lower().replace(" ", "-").replace("(", "").replace(")", "")
    folder = (
        Path(options.out) / f"{options.protocol}-{options.minutes:g}-minutes" / name
    )
    figures = folder / f"figures-{options.tasks}.json"
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    command = [sys.executable, "-m", "innerloop"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if not figures.is_file():
        train = [
            *command,
            "train",
            *row.flags.split()[:1],
            "omniglot",
            *row.flags.split()[1:],
            "--protocol",
            options.protocol,
            *options.data,
        ]
        resume = ["--resume"] if Run(folder).exists else []
        subprocess.run(
            [*train, "--minutes", str(options.minutes), "--out", str(folder), *resume],
            env=environment,
            check=True,
            stdout=sys.stderr,
        )
        test = [
            *command,
            "test",
            str(folder),
            "--ways",
            "5",
            "--shots",
            "1",
            "--queries",
            "15",
            "--tasks",
            str(options.tasks),
        ]
        subprocess.run(
            [*test, "--json", str(figures)],
            env=environment,
            check=True,
            stdout=sys.stderr,
        )
    table = json.loads(figures.read_text())["tables"][0]
    found = table["rows"][0]["values"][0]  # the accuracy
    log = Run(folder).read_log()
    steps = f"{log[-1]['step']:,}" if log else "0"
    accuracy = f"{100 * found['mean']:.2f} ± {100 * found['interval']:.2f} %"
    return f"| {row.title} | `{row.flags}` | {steps} | {accuracy} | {row.published} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="meta-training time of each learner"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="learners trained side by side"
    )
    parser.add_argument("--tasks", type=int, default=1000, help="test tasks")
    parser.add_argument("--protocol", default="vinyals")
    parser.add_argument(
        "--out",
        default="runs/learners",
        help="where the runs go; finished ones are not trained again",
    )
    parser.add_argument(
        "data", nargs="*", help="further flags of innerloop train, after --"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        default=[row.title for row in ROWS],
        help="titles of the rows to measure (all)",
    )
    options = parser.parse_args()
    chosen = [row for row in ROWS if row.title in options.only]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda row: measured(row, options), chosen))
    print(
        "| learner | flags | meta-steps | 5-way 1-shot | published, % |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        sep="\n",
    )


if __name__ == "__main__":
    main()
