"""Tables and arrays: X and y in memory, from .npz or from .csv."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.readers.image import to_unit
from innerloop.readers.table import Columns, Row
from innerloop.tasks.episodes import ClassBank, Episodes, random_subset
from innerloop.tasks.folder import group_by_label
from innerloop.tasks.splits import split_indices


class GroupedRows(TaskDistribution):
    """Regression tasks from rows that belong to tasks: a task's rows are split at
    random into `shots` of support and `queries` of query.

    reader: what made the rows from those of a table.

    Raises ValueError where no task has that many rows.
    """

    prefetch = True

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        counts: list[int],
        shots: int = 10,
        queries: int = 10,
        reader: Columns | None = None,
    ):
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1, got {shots}, {queries}"
            )
        self.x, self.y, self.shots, self.queries, self.reader = (
            x,
            y,
            shots,
            queries,
            reader,
        )
        sizes = torch.tensor(counts)
        enough = sizes >= shots + queries
        if not enough.any():
            raise InnerloopError(
                f"no task has the {shots} + {queries} rows asked for (the largest has {max(counts)}): lower the shots or the queries"
            )
        self.left_out = int((~enough).sum())  # tasks with too few rows
        self.starts, self.counts = (sizes.cumsum(0) - sizes)[enough], sizes[enough]
        self.spec = TaskSpec("reals", tuple(x.shape[1:]), y.shape[1])

    def sample(self, n: int, generator: torch.Generator) -> Task:
        tasks = torch.randint(len(self.counts), (n,), generator=generator)
        most = int(self.counts.max())
        allowed = torch.arange(most) < self.counts[tasks][:, None]
        rows = self.starts[tasks][:, None] + random_subset(
            (n, most), self.shots + self.queries, generator, allowed
        )
        x, y = self.x[rows], self.y[rows]
        return Task(
            Examples(x[:, : self.shots], y[:, : self.shots]),
            Examples(x[:, self.shots :], y[:, self.shots :]),
        )


def read_arrays(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """X, y and, where given, the task of every row: the arrays `X`, `y`, `task` of an
    .npz. Raises ValueError for a file that lacks them.
    """
    try:
        with np.load(file) as archive:
            stored = dict(archive)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise InnerloopError(
            f"{file} cannot be read as .npz arrays, without pickled objects: {error}"
        ) from error
    if not {"X", "y"} <= set(stored):
        raise InnerloopError(
            f"{file} needs the arrays X and y, it has {', '.join(stored) or 'none'}"
        )
    return stored["X"], stored["y"], stored.get("task")


def read_table(
    file: Path | str, label: bool = True
) -> tuple[list[Row], np.ndarray, np.ndarray | None]:
    """The rows of a .csv with a header, y and, where given, the task of each: `y` and
    `task` are columns of that name, all others are features.

    Without `label` the column y may be missing. Raises FileNotFoundError for a missing
    file and ValueError for one without rows or columns.
    """
    file = Path(file)
    if not file.is_file():
        raise InnerloopFileError(f"there is no file {file}")
    with file.open(newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.DictReader(opened))
    if not rows or (label and "y" not in rows[0]):
        raise InnerloopError(
            f"{file} needs a header{' with a column y' if label else ''}, and rows"
        )
    for place, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise InnerloopError(
                f"line {place} of {file} has not as many cells as the header"
            )
    y, task = (
        np.array([row[name] for row in rows]) if name in rows[0] else None
        for name in ("y", "task")
    )
    features: list[Row] = [
        {name: cell for name, cell in row.items() if name not in ("y", "task")}
        for row in rows
    ]
    if not features[0]:
        raise InnerloopError(f"{file} has no column of features")
    return features, np.array([]) if y is None else y, task


def arrays(
    split: str = "train",
    *,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    task: np.ndarray | None = None,
    file: Path | str | None = None,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    reader: Columns | None = None,
) -> Episodes | GroupedRows:
    """Tasks from arrays in memory, x (n, *x_shape) and y (n,), or from a file: an .npz
    (see `read_arrays`) or a .csv (see `read_table`), whose columns may hold numbers or
    words, and have gaps (see `Columns`); reader: how they are read, if not as the
    training split tells.

    Without `task`, y are class labels and tasks are episodes over classes. With it, y
    are reals (n,) or (n, d) and the rows of a task belong together. Images are bytes
    (n, height, width), or of 1 or 3 channels, first or last. 64, 16 and 20 % of the
    classes, or tasks, train, validate and test.
    Raises ValueError for arrays that do not fit together or hold NaN.
    """
    if file is not None and not Path(file).is_file():
        raise InnerloopFileError(f"there is no file {file}")
    if file is not None and Path(file).suffix != ".npz":
        if not isinstance(reader, Columns | None):
            raise InnerloopError(
                f"{file} is a table, and the network that it is for reads something else"
            )
        rows, y, task = read_table(file)
        groups = (y if task is None else task).tolist()
        names = sorted(set(groups))
        training = {names[i] for i in split_indices(names, "train")}
        reader = reader or Columns.fitted(
            rows,
            [row for row, group in zip(rows, groups, strict=True) if group in training],
        )
        x = reader.read_all(rows).numpy()
    else:
        reader = None  # numbers are taken as they are
        if file is not None:
            x, y, task = read_arrays(Path(file))
    if x is None or y is None:
        raise InnerloopError("arrays needs x and y, or a file")
    if len(x) != len(y) or (task is not None and len(task) != len(x)):
        raise InnerloopError(
            f"x has {len(x)} rows and y has {len(y)}"
            + (f", task has {len(task)}" if task is not None else "")
        )
    if not len(x):
        raise InnerloopError("x and y have 0 rows")
    values = torch.as_tensor(np.asarray(x))
    if (
        values.dim() > 2
        and not values.is_floating_point()
        and 0 <= int(values.min()) <= int(values.max()) <= 255
    ):
        values = values.to(torch.uint8)
    if values.dim() == 3 and values.dtype == torch.uint8:
        values = values[:, None]  # grey images
    elif (
        values.dim() == 4
        and values.shape[1] not in (1, 3)
        and values.shape[3] in (1, 3)
    ):
        values = values.permute(0, 3, 1, 2).contiguous()
    # bytes of images stay bytes until they are drawn
    values = (
        values if values.dtype == torch.uint8 and values.dim() > 2 else values.float()
    )
    if values.dtype != torch.uint8 and not torch.isfinite(values).all():
        raise InnerloopError("x holds NaN or infinite values: fill or drop them first")
    if task is None and any(label != label for label in np.asarray(y).ravel()):
        raise InnerloopError("y holds NaN: drop those rows, or give them a class")
    names, order, counts = group_by_label(
        [str(label) for label in (y if task is None else task)]
    )
    bank = ClassBank.of(values[order], counts, names, reader=reader)
    chosen = split_indices(names, split)
    if task is None:
        return Episodes(bank.pick(chosen), ways, shots, queries)
    try:
        reals = np.asarray(y, dtype=np.float32)
    except ValueError as error:
        raise InnerloopError(
            f"rows with a task are regression tasks, so y must be numbers: {error}"
        ) from error
    targets = torch.as_tensor(reals).reshape(len(y), -1)[order]
    if not torch.isfinite(targets).all():
        raise InnerloopError("y holds NaN or infinite values: fill or drop them first")
    rows = torch.cat(
        [
            torch.arange(int(bank.starts[i]), int(bank.starts[i]) + counts[i])
            for i in chosen
        ]
        or [torch.empty(0, dtype=torch.long)]
    )
    if not len(rows):
        raise InnerloopError(
            f"the {split} split has no tasks: {len(names)} tasks are too few to split"
        )
    return GroupedRows(
        to_unit(bank.values[rows]),
        targets[rows],
        [counts[i] for i in chosen],
        shots,
        queries,
        reader,
    )
