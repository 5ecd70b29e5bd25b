"""Tables and arrays: x and y in memory, or in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import Count, Range
from innerloop.readers.base import Reader
from innerloop.readers.files import Sheet, read_npz, read_sheet, some
from innerloop.readers.image import to_unit
from innerloop.readers.table import (
    MAX_NUMBER,
    Cells,
    TableReader,
    as_array,
    as_numbers,
    columns_of,
    label_texts,
)
from innerloop.tasks.episodes import ClassBank, Episodes, random_subset
from innerloop.tasks.folder import group_by_label
from innerloop.tasks.splits import (
    class_indices,
    split_indices,
    split_sizes,
    task_source,
)


class GroupedRows(TaskDistribution):
    """Regression tasks from rows that belong to tasks: the rows of a task are split at
    random into support and query. Tasks with too few rows are left out.

    Args:
        bank: the inputs, each class of it a task.
        targets: the targets (N, y_dim) of all rows in the bank.
        shots, queries: support and query rows of a task.

    Raises InnerloopError where no task has enough rows.
    """

    prefetch = True

    def __init__(
        self, bank: ClassBank, targets: Tensor, shots: int = 10, queries: int = 10
    ):
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1; got {shots} and {queries}"
            )
        self.shots, self.queries = shots, queries
        self.reader, self.note = bank.reader, bank.note
        enough = (bank.counts >= shots + queries).nonzero()[:, 0].tolist()
        self.most = max(bank.counts.tolist(), default=0)  # rows of the largest task
        if not enough:
            raise InnerloopError(
                f"tasks with {shots} shots and {queries} queries need "
                f"{shots + queries} rows, and the largest of {len(bank)} tasks has "
                f"{self.most}: lower the shots or the queries"
            )
        self.left_out = len(bank) - len(enough)  # tasks with too few rows
        self.bank, self.targets = bank.pick(enough), targets
        self.spec = TaskSpec("reals", tuple(bank.values.shape[1:]), targets.shape[1])

    def sample(self, n: int, generator: torch.Generator) -> Task:
        tasks = torch.randint(len(self.bank), (n,), generator=generator)
        most = int(self.bank.counts.max())
        allowed = torch.arange(most) < self.bank.counts[tasks][:, None]
        rows = self.bank.starts[tasks][:, None] + random_subset(
            (n, most), self.shots + self.queries, generator, allowed
        )
        x, y = to_unit(self.bank.values[rows]), self.targets[rows]
        return Task(
            Examples(x[:, : self.shots], y[:, : self.shots]),
            Examples(x[:, self.shots :], y[:, self.shots :]),
        )

    def describe(self) -> str:
        text = (
            f"regression tasks with {self.shots} support and {self.queries} query rows "
            f"from {len(self.bank)} {self.bank.title}"
        )
        if self.left_out:
            fewer = self.shots + self.queries
            text += f"; {self.left_out} tasks with fewer than {fewer} rows unused"
        return text

    def feasible(self, preferred: dict[str, int]) -> dict[str, int]:
        shots = min(10, max(1, self.most - 1))
        return {"shots": shots, "queries": min(10, max(1, self.most - shots))}

    def class_keys(self) -> frozenset[str]:
        return frozenset(_key(rows) for rows in self._tasks())

    def item_keys(self) -> frozenset[str]:
        return frozenset(_key(row) for rows in self._tasks() for row in rows)

    def _tasks(self) -> Iterator[Tensor]:
        """The rows of every task, inputs and targets side by side."""
        places = zip(self.bank.starts.tolist(), self.bank.counts.tolist(), strict=True)
        for start, count in places:
            rows = slice(start, start + count)
            inputs = self.bank.values[rows].flatten(1).float()
            yield torch.cat([inputs, self.targets[rows]], 1)


def _key(rows: Tensor) -> str:
    return hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest()


@task_source
def arrays(
    split: str = "train",
    *,
    x: Any = None,
    y: Any = None,
    task: Any = None,
    file: Path | str | None = None,
    ways: Annotated[int, Range(2)] = 5,
    shots: Count = 1,
    queries: Count = 15,
    label_column: str = "y",
    task_column: str = "task",
    standardize: bool = False,
    all_classes: bool = False,
    reader: Reader | None = None,
) -> Episodes | GroupedRows:
    """Arrays and tables: rows of a table, with class labels or grouped into tasks.

    Without `task`, y are class labels and tasks are episodes over the classes. With it,
    y are real targets (n,) or (n, d), and rows with the same `task` form a task. 64, 16
    and 20 % of the classes, or tasks, are for training, validation and testing; the
    assignment depends only on their names.

    A file is an .npz with the arrays `X`, `y` and `task`, or a table with a header:
    .csv, .tsv, .txt (also as .gz), .xlsx or .parquet. Its columns may hold numbers,
    dates or categories, with missing values (see `TableReader`). Images are bytes (n,
    height, width), or with 1 or 3 channels, first or last.

    Args:
        x, y, task: inputs (n, *x_shape), labels or targets, and the task of every row.
            x may be a data frame.
        file: a file to read instead of arrays in memory.
        ways: classes in a task.
        shots: support examples of each class, or support rows of a regression task.
        queries: query examples of each class, or query rows of a regression task.
        label_column: column of the file with y.
        task_column: column of the file with the task.
        standardize: scale every feature of an array to mean 0 and deviation 1 on the
            training split. Columns of a table are always scaled.
        all_classes: use all classes, or tasks, in every split, to adapt to other ones
            later; validation and test then do not measure the learning of new ones.
        reader: the reader of an earlier run, to read these rows in the same way.
    """
    sheet = None
    if file is not None and str(file).endswith(".npz"):
        x, y, task = _stored(file, label_column, task_column)
    elif file is not None:
        sheet = read_sheet(file)
        x, y, task = _columns(sheet, label_column, task_column)
    if x is None or y is None:
        raise InnerloopError("arrays needs x and y, or a file")
    rows, y = _frame_or_array(x), as_array(y)
    task = None if task is None else as_array(task)
    n = len(next(iter(rows.values()), ())) if isinstance(rows, dict) else len(rows)
    if y.shape[:1] != (n,) or (task is not None and task.shape[:1] != (n,)):
        raise InnerloopError(
            f"x has {n} rows and y has {len(y) if y.ndim else 'none'}"
            + (f", task has {len(task)}" if task is not None and task.ndim else "")
            + "; one label or target a row is expected"
        )
    if not n:
        raise InnerloopError("x and y have 0 rows")
    groups = label_texts(y, n) if task is None else label_texts(task, n, "task")
    names, order, counts = group_by_label(groups)
    note = ""
    if isinstance(rows, dict) or rows.ndim == 2:
        known = {names[i] for i in split_indices(names, "train")}
        training = [i for i, group in enumerate(groups) if group in known]
        if reader is not None:
            pass
        elif isinstance(rows, dict):
            reader = TableReader.fitted(
                rows, training, label_column=label_column, task_column=task_column
            )
        else:
            reader = TableReader.of_array(rows, training, standardize=standardize)
        if not isinstance(reader, TableReader):
            raise InnerloopTypeError(
                f"these are rows of a table, and the reader reads {reader.what}s"
            )
        if sheet is None:
            inputs = reader.convert(rows)
        else:
            found = reader.from_sheet(sheet, labels=True)
            inputs, note = found.x, found.note
    else:
        inputs, reader = _images(rows), None
    source = "the arrays" if file is None else Path(file).name
    title = f"{split} {'classes' if task is None else 'tasks'} of {source}"
    title += "" if all_classes else f" ({split_sizes(names)})"
    bank = ClassBank.of(
        inputs[order], counts, names, reader=reader, title=title, note=note
    )
    if task is None:
        chosen = class_indices(names, split, all_classes, source)
        return Episodes(bank.pick(chosen), ways, shots, queries)
    chosen = list(range(len(names))) if all_classes else split_indices(names, split)
    if not chosen:
        raise InnerloopError(
            f"the {split} split of {source} has no tasks: {len(names)} are too few to "
            "split"
        )
    lines = [f"line {line}" for line in sheet.lines] if sheet else None
    targets = _targets(y, lines)[order]
    if bool(((targets == 0) | (targets == 1)).all()):
        binary = f"{label_column} holds 0 and 1 only and is predicted as a real number"
        bank = replace(bank, note="; ".join(filter(None, (note, binary))))
    return GroupedRows(bank.pick(chosen), targets, shots, queries)


def _columns(
    sheet: Sheet, label: str, task: str
) -> tuple[dict[str, list[Any]], list[str], list[str] | None]:
    """The columns of features by name, the labels, and the task of every row."""
    sheet.check()
    y = sheet.labels(label, "; label_column names another")
    tasks = None if sheet.find(task) is None else sheet.labels(task)
    taken = {sheet.find(label), sheet.find(task)}
    x = {
        name: [row[i] for row in sheet.rows]
        for i, name in enumerate(sheet.columns)
        if i not in taken
    }
    if not x:
        raise InnerloopError(
            f"{sheet.path} has no column of features beside {some(sheet.columns)}"
        )
    return x, y, tasks


def _frame_or_array(x: Any) -> dict[str, Cells] | np.ndarray:
    if isinstance(x, list) and x and all(isinstance(row, Mapping) for row in x):
        x = {name: [row.get(name) for row in x] for name in x[0]}
    is_frame = isinstance(x, Mapping) or hasattr(x, "columns")
    return columns_of(x) if is_frame else _numeric(x)


def _stored(file: Path | str, label: str, task: str) -> tuple[Any, Any, Any]:
    """The arrays X, y and task of an .npz; upper and lower case count as equal."""
    stored = {name.casefold(): value for name, value in read_npz(file).items()}
    x, y = stored.get("x"), stored.get(label.casefold())
    if x is None or y is None:
        raise InnerloopError(
            f"{file} needs the arrays X and {label}; it has {some(stored) or 'none'}"
        )
    return x, y, stored.get(task.casefold())


def _numeric(x: Any) -> np.ndarray:
    """x as an array of finite numbers that float32 can hold.

    Raises InnerloopError for anything else.
    """
    try:
        values = as_array(x)
        if values.dtype.kind not in "biufc":
            values = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InnerloopError(
            "x must be an array of numbers, or a data frame where it has words: "
            f"{error}"
        ) from error
    if values.dtype.kind == "c":
        raise InnerloopTypeError("x holds complex numbers; real numbers are expected")
    if values.ndim < 2:
        raise InnerloopError(
            f"x has shape {values.shape}; (n, features) or images are expected"
        )
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise InnerloopError(
                "x holds NaN or infinite values: fill or drop them first"
            )
        if values.size and float(np.abs(values).max()) > MAX_NUMBER:
            raise InnerloopError(
                f"x holds {np.abs(values).max():g}, which is too large for float32 (at "
                f"most {MAX_NUMBER:g}): scale that feature first"
            )
    return values


def _images(values: np.ndarray) -> Tensor:
    """Arrays with more than two axes as float32, or as bytes where they are images:
    with channels (n, channels, height, width).
    """
    if values.dtype.kind != "f" and 0 <= values.min() <= values.max() <= 255:
        x = torch.from_numpy(values.astype(np.uint8))
    else:
        x = torch.from_numpy(values.astype(np.float32))
    if x.dim() == 3 and x.dtype == torch.uint8:
        return x[:, None]  # grayscale images
    if x.dim() == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        return x.permute(0, 3, 1, 2).contiguous()
    return x


def _targets(y: np.ndarray, places: list[str] | None) -> Tensor:
    """Real targets (n, y_dim) as float32."""
    columns = [as_numbers(column, places) for column in y.reshape(len(y), -1).T]
    return torch.from_numpy(np.stack(columns, 1).astype(np.float32))
