"""Learners that were trained before and are part of the package: prior-data fitted
networks for tables.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from innerloop.core.learner import Learner
from innerloop.core.task import Kind
from innerloop.engine.errors import InnerloopError
from innerloop.experiment import load
from innerloop.readers.base import Reader
from innerloop.readers.table import TableReader, columns_of
from innerloop.runs import Run

HERE = Path(__file__).parent
# the slowest fits in 6 s on one core, the largest takes 750 MiB
MOST_ROWS, MOST_COLUMNS, MOST_CELLS = 1000, 100, 5_000_000  # cells: of pairs of rows


def has_tables(kind: Kind) -> bool:
    """Whether the network for tables is part of this installation."""
    return (_folder(kind) / "weights.safetensors").is_file()


def table_learner(X: Any, kind: Kind) -> Learner | None:
    """The network for a table in memory, see `table_network`; None where X is no table.

    A table is an array (n, features) of numbers, or a data frame. For a data frame that
    holds words or gaps, the learner has a reader.
    """
    reader = table_reader(X)
    if reader is not None:
        return table_network(kind, len(X), reader.x_shape[0], reader)
    numbers = _numbers(X)
    if numbers is None:
        return None
    return table_network(kind, numbers.shape[0], numbers.shape[1])


def table_network(
    kind: Kind, rows: int, features: int, reader: Reader | None = None
) -> Learner | None:
    """The network for tables of this size, in evaluation mode and with this reader;
    None for a larger one than suits it, or where the weights are not part of this
    installation.
    """
    fits = 0 < rows <= MOST_ROWS and 0 < features <= MOST_COLUMNS
    if not fits or rows * rows * features > MOST_CELLS or not has_tables(kind):
        return None
    learner = copy.deepcopy(loaded(_folder(kind)))
    learner.reader = reader
    return learner


def table_reader(X: Any) -> TableReader | None:
    """A reader for a data frame that holds words or gaps; None for all else."""
    if not hasattr(X, "columns") or _numbers(X) is not None:
        return None
    return TableReader.fitted(columns_of(X))


def _folder(kind: Kind) -> Path:
    return HERE / f"tables-{kind}"


def _numbers(X: Any) -> NDArray[Any] | None:
    """X as an array (n, features) of finite numbers; None where it is something
    else.
    """
    try:
        array = X.numpy(force=True) if torch.is_tensor(X) else np.asarray(X)
    except (TypeError, ValueError, RuntimeError):
        return None
    numbers = array.ndim == 2 and array.dtype.kind in "buif"
    return array if numbers and bool(np.isfinite(array).all()) else None


@functools.cache
def loaded(folder: Path) -> Learner:
    """In double precision, as inputs may be large numbers that differ little."""
    return load(folder).double()


def pack(run: Path | str, name: str, where: Path = HERE) -> Path:
    """Make a trained run part of the package, its weights in half precision.

    Raises InnerloopError for a run whose weights half precision cannot hold.
    """
    source, target = Run(run), Run(where / name)
    weights = {n: w.half() for n, w in source.load_weights().items()}
    if not all(bool(torch.isfinite(w).all()) for w in weights.values()):
        raise InnerloopError(f"the weights of {run} are too large for 16 bits")
    target.folder.mkdir(parents=True, exist_ok=True)
    experiment = (source.folder / "experiment.json").read_bytes()
    (target.folder / "experiment.json").write_bytes(experiment)
    target.save_weights(weights)
    return target.folder
