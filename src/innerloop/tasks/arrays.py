"""Tables and arrays: X and y in memory, from .npz or from .csv."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.tasks.episodes import ClassBank, Episodes, random_subset
from innerloop.tasks.folder import group_by_label
from innerloop.tasks.images import to_unit
from innerloop.tasks.parts import part_of


class GroupedRows(TaskDistribution):
    """Regression tasks from rows that belong to tasks: a task's rows are split at random into `shots` of support and `queries` of query.

    Raises ValueError where no task has that many rows.
    """

    ahead = True

    def __init__(self, x: Tensor, y: Tensor, counts: list[int], shots: int = 10, queries: int = 10):
        if min(shots, queries) < 1:
            raise ValueError(f"shots and queries must be at least 1, got {shots}, {queries}")
        self.x, self.y, self.shots, self.queries = x, y, shots, queries
        sizes = torch.tensor(counts)
        enough = sizes >= shots + queries
        if not enough.any():
            raise ValueError(f"no task has the {shots} + {queries} rows asked for (the largest has {max(counts)}): lower the shots or the queries")
        self.left_out = int((~enough).sum())  # tasks with too few rows
        self.starts, self.counts = (sizes.cumsum(0) - sizes)[enough], sizes[enough]
        self.spec = TaskSpec("reals", tuple(x.shape[1:]), y.shape[1])

    def sample(self, n: int, generator: torch.Generator) -> Task:
        tasks = torch.randint(len(self.counts), (n,), generator=generator)
        most = int(self.counts.max())
        allowed = torch.arange(most) < self.counts[tasks][:, None]
        rows = self.starts[tasks][:, None] + random_subset((n, most), self.shots + self.queries, generator, allowed)
        x, y = self.x[rows], self.y[rows]
        return Task(Examples(x[:, : self.shots], y[:, : self.shots]), Examples(x[:, self.shots :], y[:, self.shots :]))


def read_table(file: Path | str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """X, y and, where given, the task of every row: from the arrays `X`, `y`, `task` of an .npz, or the columns of a .csv with a header,
    where `y` and `task` are columns of that name and all others are features.

    Raises FileNotFoundError for a missing file and ValueError for one that lacks them or has a cell that is no number.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    if file.suffix == ".npz":
        try:
            with np.load(file) as archive:
                stored = dict(archive)
        except (zipfile.BadZipFile, ValueError, OSError) as error:
            raise ValueError(f"{file} cannot be read as .npz arrays, without pickled objects: {error}") from error
        if not {"X", "y"} <= set(stored):
            raise ValueError(f"{file} needs the arrays X and y, it has {', '.join(stored) or 'none'}")
        return stored["X"], stored["y"], stored.get("task")
    with file.open(newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.DictReader(opened))
    if not rows or "y" not in rows[0]:
        raise ValueError(f"{file} needs a header with a column y, and rows")
    features = [name for name in rows[0] if name not in ("y", "task")]
    try:
        x = np.array([[float(row[name]) for name in features] for row in rows], dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} has a feature that is no number: {error}") from error
    return x, np.array([row["y"] for row in rows]), np.array([row["task"] for row in rows]) if "task" in rows[0] else None


def arrays(
    part: str = "train", *, x: np.ndarray | None = None, y: np.ndarray | None = None, task: np.ndarray | None = None, file: Path | str | None = None,
    ways: int = 5, shots: int = 1, queries: int = 15,
) -> Episodes | GroupedRows:  # fmt: skip
    """Tasks from arrays in memory, x (n, *x_shape) and y (n,), or from a file (see `read_table`).

    Without `task`, y are class labels and tasks are episodes over classes. With it, y are reals (n,) or (n, d) and the rows of a task belong
    together. Images are bytes (n, height, width), or of 1 or 3 channels, first or last. 64, 16 and 20 % of the classes, or tasks, train,
    validate and test.
    Raises ValueError for arrays that do not fit together or hold NaN.
    """
    if file is not None:
        x, y, task = read_table(file)
    if x is None or y is None:
        raise ValueError("arrays needs x and y, or a file")
    if len(x) != len(y) or (task is not None and len(task) != len(x)):
        raise ValueError(f"x has {len(x)} rows and y has {len(y)}" + (f", task has {len(task)}" if task is not None else ""))
    if not len(x):
        raise ValueError("x and y have 0 rows")
    values = torch.as_tensor(np.asarray(x))
    if values.dim() > 2 and not values.is_floating_point() and 0 <= int(values.min()) <= int(values.max()) <= 255:
        values = values.to(torch.uint8)
    if values.dim() == 3 and values.dtype == torch.uint8:
        values = values[:, None]  # grey images
    elif values.dim() == 4 and values.shape[1] not in (1, 3) and values.shape[3] in (1, 3):
        values = values.permute(0, 3, 1, 2).contiguous()
    values = values if values.dtype == torch.uint8 and values.dim() > 2 else values.float()  # bytes of images stay bytes until they are drawn
    if values.dtype != torch.uint8 and not torch.isfinite(values).all():
        raise ValueError("x holds NaN or infinite values: fill or drop them first")
    if task is None and any(label != label for label in np.asarray(y).ravel()):
        raise ValueError("y holds NaN: drop those rows, or give them a class")
    names, order, counts = group_by_label([str(label) for label in (y if task is None else task)])
    bank = ClassBank.of(values[order], counts, names)
    chosen = part_of(names, part)
    if task is None:
        return Episodes(bank.pick(chosen), ways, shots, queries)
    try:
        reals = np.asarray(y, dtype=np.float32)
    except ValueError as error:
        raise ValueError(f"rows with a task are regression tasks, so y must be numbers: {error}") from error
    targets = torch.as_tensor(reals).reshape(len(y), -1)[order]
    if not torch.isfinite(targets).all():
        raise ValueError("y holds NaN or infinite values: fill or drop them first")
    rows = torch.cat([torch.arange(int(bank.starts[i]), int(bank.starts[i]) + counts[i]) for i in chosen] or [torch.empty(0, dtype=torch.long)])
    if not len(rows):
        raise ValueError(f"the {part} part has no tasks: {len(names)} tasks are too few to split")
    return GroupedRows(to_unit(bank.values[rows]), targets[rows], [counts[i] for i in chosen], shots, queries)
