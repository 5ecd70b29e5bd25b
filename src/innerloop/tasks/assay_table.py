"""A user's own table of molecules with the results of assays."""

from __future__ import annotations

import hashlib
from math import inf, isinf, nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Real
from innerloop.readers.files import Sheet, label_text, read_sheet, some
from innerloop.readers.molecule import BEST, MoleculeReader
from innerloop.tasks.arrays import GroupedRows
from innerloop.tasks.episodes import ClassBank
from innerloop.tasks.molecules import (
    Assays,
    Molecules,
    Protocol,
    fingerprints_of,
    keys_of,
    split_molecules,
)
from innerloop.tasks.splits import split_indices, split_sizes, task_source

ACTIVE, INACTIVE = ("1", "true", "active"), ("0", "false", "inactive")
MISSING = ("", "nan", "na", "n/a", "null", "none")
LABEL = "y"  # the results, in a table with one row for each result


@task_source
def molecules(
    split: str = "train",
    *,
    file: Path | str,
    shots: Count = 10,
    queries: Count = 10,
    smiles_column: str = "smiles",
    task_column: str = "task",
    assay_columns: str = "",
    active_above: Real | None = None,
    active_below: Real | None = None,
    regression: bool = False,
    molecules: Protocol = "disjoint",
    all_assays: bool = False,
    fingerprint: str = BEST,
) -> Assays | GroupedRows:
    """Your molecules: is a molecule active in an assay of your table?

    Each task is an assay with a few active and inactive molecules.

    The file is a table (.csv, .tsv, .txt, also as .gz, .xlsx or .parquet) with a column
    of SMILES. Every column of 0 and 1 (or false and true, inactive and active) is an
    assay; a cell is empty where there is no result, and other columns are not used. A
    table with the columns `task` and `y` has one row for each result instead.

    Measured numbers, such as pIC50, become 1 and 0 by `active_above` or `active_below`;
    with `regression`, tasks predict the numbers, as they are in the table, so assays
    should have the same unit and scale. In a table with a column for each assay,
    `assay_columns` says which columns are meant.

    A molecule is its fingerprint, by default ECFP of radius 2 with 2,048 bits beside 66
    physicochemical descriptors (see `MoleculeReader`). Each structure is used once:
    results of 0 and 1 that disagree are dropped, and numbers averaged. 64, 16 and 20 %
    of the assays, fixed by their names, train, validate and test; molecules are split
    as in `tox21`. A test compares the learner with methods that learn from the support
    set alone, such as a random forest, on the same tasks.

    Args:
        file: the table.
        shots: support molecules of each class, or of a regression task.
        queries: query molecules of each class, or of a regression task.
        smiles_column: the column of SMILES.
        task_column: the column with the name of the assay, in a table with one row for
            each result.
        assay_columns: the columns of results, separated by commas; "*" stands for any
            characters, as in "pIC50*".
        active_above: a molecule is active where the number is at least this.
        active_below: a molecule is active where the number is at most this.
        regression: predict numbers instead of classes.
        molecules: with "disjoint", no molecule is in two splits. "scaffold" splits by
            Bemis-Murcko scaffold. "shared" has all molecules in all splits, so that
            training uses results of the test molecules in other assays.
        all_assays: use all assays in every split; then validation and test measure new
            molecules, not new assays.
        fingerprint: "ecfp", "count", "fcfp", "atompair", "torsion", "maccs",
            "descriptors", or several joined by "+".
    """
    if (active_above is not None) + (active_below is not None) + regression > 1:
        raise InnerloopError(
            "choose one of active_above, active_below and regression; got several"
        )
    sheet = read_sheet(file)
    sheet.check()
    smiles = [label_text(cell) for cell in sheet.column(smiles_column, _HINT)]
    if active_above is not None or active_below is not None or regression:
        results = _numbers(sheet, assay_columns, task_column)
        unused = []
        if not regression:
            results = {
                name: _active(values, active_above, active_below)
                for name, values in results.items()
            }
    else:
        results, unused = _results(sheet, smiles_column, task_column, assay_columns)
    if not results:
        raise InnerloopError(
            f"{sheet.path} has no assay: a column of 0 and 1 beside {smiles_column}, "
            f"or the columns {task_column} and {LABEL}, is needed; it has "
            f"{some(sheet.columns)}; for numbers, see active_above and regression"
        )
    keys, scaffolds = keys_of(smiles)
    reader = MoleculeReader(smiles_column=smiles_column, fingerprint=fingerprint)
    x = fingerprints_of(smiles, reader)
    whole = Molecules(x, results, keys, scaffolds).distinct(average=regression)
    names = sorted(results)
    chosen = range(len(names)) if all_assays else split_indices(names, split)
    if not chosen:
        raise InnerloopError(
            f"the {split} split of {sheet.path.name} has none of {len(names)} assays "
            f"({split_sizes(names)}): add assays, or use all of them in every split "
            "with all_assays (--all-assays)"
        )
    notes = [f"columns without results of 0 and 1 are not used: {some(unused)}"]
    notes = notes if unused else []
    if bad := [line for line, key in zip(sheet.lines, keys, strict=True) if not key]:
        notes.append(f"rows without a valid SMILES are left out: line {some(bad)}")
    shared = molecules == "shared"
    if shared:
        notes.append("training uses results of the test molecules in other assays")
    part = whole if shared else split_molecules(whole, molecules)[split]
    picked, note = tuple(names[i] for i in chosen), "; ".join(notes)
    if regression:
        return _regression(part, picked, shots, queries, reader, note)
    own = tuple(_key(name, whole) for name in picked)
    return Assays(part, picked, shots, queries, reader, note, own)


_HINT = "; smiles_column names another"


def _regression(
    molecules: Molecules,
    names: tuple[str, ...],
    shots: int,
    queries: int,
    reader: MoleculeReader,
    note: str,
) -> GroupedRows:
    """Tasks that predict the numbers of assays."""
    rows = [molecules.measured(name) for name in names]
    bank = ClassBank.of(
        molecules.x[torch.cat(rows)].float(),
        [len(places) for places in rows],
        list(names),
        reader=reader,
        title="assays",
        note=note,
    )
    values = [molecules.results[n][at] for n, at in zip(names, rows, strict=True)]
    return GroupedRows(bank, torch.cat(values)[:, None], shots, queries)


def _numbers(sheet: Sheet, assay_columns: str, task_column: str) -> dict[str, Tensor]:
    """The numbers by assay (n,), NaN for no result.

    Raises InnerloopError, naming the line, for a cell that is none.
    """
    if _is_long(sheet, task_column) and not assay_columns:
        return _by_task(sheet, task_column, _as_numbers(sheet, LABEL))
    if not assay_columns:
        raise InnerloopError(
            f"{sheet.path}: assay_columns must say which columns hold the numbers, "
            f"such as {sheet.columns[-1]!r}; it has {some(sheet.columns)}"
        )
    return {name: _as_numbers(sheet, name) for name in sheet.matching(assay_columns)}


def _as_numbers(sheet: Sheet, column: str) -> Tensor:
    """A column of numbers (n,), NaN for no result."""
    values = []
    for line, cell in zip(sheet.lines, sheet.column(column), strict=True):
        text = label_text(cell)
        try:
            number = nan if text.casefold() in MISSING else float(text)
        except ValueError:
            number = inf
        if isinf(number):
            raise InnerloopError(
                f"{sheet.path}: {column} in line {line} must be a number, or empty; "
                f"got {text!r:.60}"
            )
        values.append(number)
    return torch.tensor(values)


def _active(values: Tensor, above: float | None, below: float | None) -> Tensor:
    """Numbers as 1 for active, 0 for inactive and NaN for no result."""
    active = values >= above if above is not None else values <= (below or 0.0)
    return torch.where(values.isnan(), values, active.float())


def _is_long(sheet: Sheet, task_column: str) -> bool:
    """Whether a table has one row for each result."""
    return sheet.find(task_column) is not None and sheet.find(LABEL) is not None


def _by_task(sheet: Sheet, task_column: str, values: Tensor) -> dict[str, Tensor]:
    """Values (n,) of a table with one row for each result, by assay (n,)."""
    tasks = sheet.labels(task_column)
    none = torch.full_like(values, nan)
    return {
        name: torch.where(torch.tensor([t == name for t in tasks]), values, none)
        for name in dict.fromkeys(tasks)
    }


def _results(
    sheet: Sheet, smiles_column: str, task_column: str, assay_columns: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The results of 0 and 1 by assay (n,), and the columns that are not used."""
    if _is_long(sheet, task_column) and not assay_columns:
        values = _outcomes(sheet.column(LABEL))
        if values is None:
            raise InnerloopError(
                f"{sheet.path}: {LABEL} must hold 0 or 1, or nothing; for numbers, "
                "choose active_above, active_below or regression"
            )
        return _by_task(sheet, task_column, values), []
    found, unused = {}, []
    columns = sheet.matching(assay_columns) if assay_columns else sheet.columns
    for name in columns:
        if sheet.find(name) == sheet.find(smiles_column):
            continue
        values = _outcomes(sheet.column(name))
        if values is None or not ((values == 0).any() and (values == 1).any()):
            unused.append(name)
        else:
            found[name] = values
    return found, unused


def _outcomes(cells: list[Any]) -> Tensor | None:
    """Cells as 1, 0 and NaN for no result; None where one is something else."""
    of_text = {
        **dict.fromkeys(ACTIVE, 1.0),
        **dict.fromkeys(INACTIVE, 0.0),
        **dict.fromkeys(MISSING, nan),
        "1.0": 1.0,
        "0.0": 0.0,
    }
    texts = [label_text(cell).casefold() for cell in cells]
    if any(text not in of_text for text in texts):
        return None
    return torch.tensor([of_text[text] for text in texts])


def _key(name: str, whole: Molecules) -> str:
    """What identifies an assay: its name and all its results."""
    values = whole.results[name].tolist()
    known = sorted(
        f"{k} {v:g}" for k, v in zip(whole.keys, values, strict=True) if v == v
    )
    return f"{name} {hashlib.sha256(' '.join(known).encode()).hexdigest()[:16]}"
