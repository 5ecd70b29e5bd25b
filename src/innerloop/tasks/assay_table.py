"""A user's own table of molecules with the results of assays."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.readers.files import Sheet, label_text, read_sheet, some
from innerloop.readers.molecule import FINGERPRINT, MoleculeReader
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
    molecules: Protocol = "disjoint",
    all_assays: bool = False,
    fingerprint: str = FINGERPRINT,
) -> Assays:
    """Your molecules: is a molecule active in an assay of your table?

    Each task is an assay with a few active and inactive molecules.

    The file is a table (.csv, .tsv, .txt, also as .gz, .xlsx or .parquet) with a column
    of SMILES. Every column of 0 and 1 (or false and true, inactive and active) is an
    assay; a cell is empty where there is no result, and other columns are not used. A
    table with the columns `task` and `y` has one row for each result instead.

    A molecule is its fingerprint of radius 2 with 2,048 bits (see `MoleculeReader`).
    Each structure is used once, and results that disagree are dropped. 64, 16 and 20 %
    of the assays, fixed by their names, train, validate and test; molecules are split
    as in `tox21`.

    Args:
        file: the table.
        shots: support molecules of each class.
        queries: query molecules of each class.
        smiles_column: the column of SMILES.
        task_column: the column with the name of the assay, in a table with one row for
            each result.
        molecules: with "disjoint", no molecule is in two splits. "scaffold" splits by
            Bemis-Murcko scaffold. "shared" has all molecules in all splits, so that
            training uses results of the test molecules in other assays.
        all_assays: use all assays in every split; then validation and test measure new
            molecules, not new assays.
        fingerprint: "ecfp", "count", "fcfp", "atompair", "torsion", "maccs",
            "descriptors", or several joined by "+".
    """
    sheet = read_sheet(file)
    sheet.check()
    smiles = [label_text(cell) for cell in sheet.column(smiles_column, _HINT)]
    results, unused = _results(sheet, smiles_column, task_column)
    if not results:
        raise InnerloopError(
            f"{sheet.path} has no assay: a column of 0 and 1 beside {smiles_column}, "
            f"or the columns {task_column} and {LABEL}, is needed; it has "
            f"{some(sheet.columns)}"
        )
    keys, scaffolds = keys_of(smiles)
    reader = MoleculeReader(smiles_column=smiles_column, fingerprint=fingerprint)
    x = fingerprints_of(smiles, reader)
    whole = Molecules(x, results, keys, scaffolds).distinct()
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
    return Assays(
        whole if shared else split_molecules(whole, molecules)[split],
        tuple(names[i] for i in chosen),
        shots,
        queries,
        reader,
        "; ".join(notes),
        tuple(_key(names[i], whole) for i in chosen),
    )


_HINT = "; smiles_column names another"


def _results(
    sheet: Sheet, smiles_column: str, task_column: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The results by assay (n,), and the columns that are not used."""
    if sheet.find(task_column) is not None and sheet.find(LABEL) is not None:
        tasks = sheet.labels(task_column)
        values = _outcomes(sheet.column(LABEL))
        if values is None:
            raise InnerloopError(
                f"{sheet.path}: {LABEL} must hold 0 or 1, or nothing; for real targets "
                "use the tasks arrays"
            )
        nan = torch.full_like(values, float("nan"))
        found = {
            name: torch.where(torch.tensor([t == name for t in tasks]), values, nan)
            for name in dict.fromkeys(tasks)
        }
        return found, []
    found, unused = {}, []
    for place, name in enumerate(sheet.columns):
        if place == sheet.find(smiles_column):
            continue
        values = _outcomes([row[place] for row in sheet.rows])
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
        **dict.fromkeys(MISSING, float("nan")),
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
