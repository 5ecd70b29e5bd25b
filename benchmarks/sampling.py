"""Episodes per second of every task distribution, beside a `Dataset` and `DataLoader`
that fetch image by image, and their share of a step.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from reporting import finish, parser_of, row, table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from innerloop.core.task import TaskDistribution
from innerloop.learners import LEARNERS
from innerloop.measurements import Row
from innerloop.metagrad import backprop
from innerloop.metagrad.meta_train import build_optimizer
from innerloop.tasks import omniglot, sinusoid, strokes


class PerImage(Dataset[tuple[Tensor, int]]):
    """Images handed out one by one: from a tensor in memory, the least there can be to
    do, or from PNG files in memory.

    Peers' Omniglot is of the second kind: torchvision's opens, decodes and converts a
    file for every image it hands out.
    """

    def __init__(self, files: bool, classes: int = 1000, drawings: int = 20):
        self.images = torch.randint(
            0, 256, (classes * drawings, 28, 28), dtype=torch.uint8
        )
        self.files = [self.png(image) for image in self.images] if files else None
        self.drawings = drawings

    @staticmethod
    def png(image: Tensor) -> bytes:
        buffer = io.BytesIO()
        # strokes are black or white
        Image.fromarray((image > 127).numpy()).save(buffer, "PNG")
        return buffer.getvalue()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = index // self.drawings
        if self.files is None:
            return self.images[index][None].float() / 255, label
        image = Image.open(io.BytesIO(self.files[index])).convert("L")
        return torch.from_numpy(np.array(image))[None].float() / 255, label


class EpisodeSampler:
    """The indices of one 5-way 1-shot episode with 15 queries after the other, as
    few-shot code on torch has them.
    """

    def __init__(self, classes: int = 1000, drawings: int = 20):
        self.classes, self.drawings = classes, drawings

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            chosen = torch.randperm(self.classes)[:5].tolist()
            yield [
                c * self.drawings + int(d)
                for c in chosen
                for d in torch.randperm(self.drawings)[:16]
            ]


class Rate(NamedTuple):
    """episodes: per second. ratio, files: speedup over image by image, from memory and
    from files. share: of a meta-step.
    """

    title: str
    episodes: float
    ratio: float | None
    files: float | None
    share: float | None


def seconds(function: Callable[[], object]) -> float:
    clock = time.perf_counter()
    function()
    return time.perf_counter() - clock


def step_of(
    name: str, tasks: TaskDistribution, batch: int, precision: bool
) -> Callable[[], object]:
    """A meta-step without its sampling."""
    learner = LEARNERS[name].build(tasks.spec).train()
    optimizer = build_optimizer(learner, learner.defaults)
    drawn = tasks.sample(batch, torch.Generator().manual_seed(0))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision):
            grads, _ = backprop(learner, drawn)
        for parameter_name, parameter in learner.named_parameters():
            parameter.grad = grads.get(parameter_name)
        optimizer.step()

    return step


def rates(rounds: int) -> list[Rate]:
    """Medians over interleaved rounds."""
    generator = torch.Generator().manual_seed(0)
    loaders = [
        iter(DataLoader(PerImage(files), batch_sampler=EpisodeSampler()))
        for files in (False, True)
    ]  # pyright: ignore[reportArgumentType]
    wanted: list[tuple[str, Callable[[], TaskDistribution], int, str | None]] = [
        (
            "Omniglot, 5-way 1-shot, 5 queries, training (rotated, warped); MAML",
            lambda: omniglot("train", queries=5),
            8,
            "maml",
        ),
        (
            "Omniglot, 60-way 1-shot, 4 queries, training (rotated, warped); ProtoNet",
            lambda: omniglot("train", ways=60, queries=4, groups=3),
            1,
            "protonet",
        ),
        (
            "strokes, 5-way 1-shot, 5 queries, warped; MAML",
            lambda: strokes("train", queries=5),
            8,
            "maml",
        ),
        (
            "strokes, 60-way 1-shot, 4 queries, warped; ProtoNet",
            lambda: strokes("train", ways=60, queries=4, groups=3),
            1,
            "protonet",
        ),
        (
            "Omniglot, 5-way 1-shot, 15 queries, testing",
            lambda: omniglot("test", queries=15),
            16,
            None,
        ),
        (
            "sinusoid, 10-shot, 10 queries; MAML",
            lambda: sinusoid(shots=10, queries=10),
            32,
            "maml",
        ),
    ]
    found = []
    for title, build, batch, learner in wanted:
        try:
            tasks = build()
        except FileNotFoundError as error:
            print(f"{title}: left out: {error}")
            continue
        step = (
            step_of(learner, tasks, batch, learner == "protonet") if learner else None
        )
        for _ in range(4):
            tasks.sample(batch, generator), [next(loader) for loader in loaders]
            if step:
                step()
        sampling, by_image, stepping = [], ([], []), []
        for _ in range(rounds):
            sampling.append(
                seconds(
                    lambda tasks=tasks, batch=batch: [
                        tasks.sample(batch, generator) for _ in range(4)
                    ]
                )
                / batch
                / 4
            )
            for times, loader in zip(by_image, loaders, strict=True):
                times.append(
                    seconds(lambda loader=loader: [next(loader) for _ in range(4)]) / 4
                )
            if step:
                stepping.append(seconds(step) / batch)
        own = statistics.median(sampling)
        ratios = [
            statistics.median(b / s for b, s in zip(times, sampling, strict=True))
            if "15 queries" in title
            else None
            for times in by_image
        ]
        found.append(
            Rate(
                title,
                1 / own,
                *ratios,
                own / (own + statistics.median(stepping)) if step else None,
            )
        )
        print(found[-1], flush=True)
    return found


def shown(rate: Rate) -> Row:
    """As a row of the report; what was not measured is left out."""
    values = {
        "episodes per second": rate.episodes,
        "speedup, from memory": rate.ratio,
        "speedup, from files": rate.files,
    }
    made = row({"tasks": rate.title}, {k: v for k, v in values.items() if v})
    share = {"share of a meta-step": rate.share} if rate.share else {}
    return replace(made, values=(*made.values, *row({}, share, "%").values))


if __name__ == "__main__":
    parser = parser_of(__doc__)
    parser.add_argument(
        "--rounds", type=int, default=15, help="measurements of each (15)"
    )
    options = parser.parse_args()
    finish(table("sampling", [shown(r) for r in rates(options.rounds)]), options)
