"""Molecules as SMILES to fingerprints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.engine.options import Count, CountOrZero, check_options
from innerloop.readers.base import Inputs, Reader
from innerloop.readers.files import label_text, read_sheet, some
from innerloop.readers.fingerprints import computed, parts_of, size_of
from innerloop.readers.text import texts_in, texts_of

RADIUS, BITS, FINGERPRINT = 2, 2048, "ecfp"
BEST = "ecfp+descriptors"  # as measured on Tox21, with and without meta-training


@dataclass(frozen=True)
class MoleculeReader(Reader):
    """Molecules: SMILES as fingerprints or descriptors.

    "ecfp" (the default): bit i is 1 where the molecule has an atom neighborhood with
    the hash i; radius 2 with 2,048 bits is the usual ECFP4. "count" has the number of
    these neighborhoods instead. "fcfp" are the bits of pharmacophoric atom types.
    "atompair" and "torsion" are counts of atom pairs and of topological torsions,
    hashed to as many numbers. "maccs" are the 167 public MACCS keys. "descriptors" are
    66 physicochemical descriptors (size, rings, log P, polar surface, partial charges),
    standardized by constants. Names joined by "+" stand side by side, scaled to the
    same usual length. None of them shows stereochemistry.

    Reference: Rogers and Hahn 2010, "Extended-connectivity fingerprints", Journal of
    Chemical Information and Modeling 50(5).

    Args:
        radius: number of bonds from the center of a neighborhood to its edge.
        bits: length of a hashed fingerprint.
        smiles_column: column of the SMILES in a file.
        label_column: column of the labels in a file.
        fingerprint: "ecfp", "count", "fcfp", "atompair", "torsion", "maccs",
            "descriptors", or several joined by "+".
    """

    radius: CountOrZero = RADIUS
    bits: Count = BITS
    smiles_column: str = "smiles"
    label_column: str = "label"
    fingerprint: str = FINGERPRINT

    kind: ClassVar[str] = "molecule"
    what: ClassVar[str] = "molecule"
    head: ClassVar[str] = "mahalanobis"
    ranked: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)
        parts_of(self.fingerprint)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (size_of(self.fingerprint, self.bits),)

    def read(self, path: Path | str, *, labels: bool) -> Inputs:
        sheet = read_sheet(path)
        smiles, known, unreadable = texts_of(
            sheet,
            self.smiles_column,
            self.label_column,
            labels=labels,
            hint="; smiles_column and label_column name others",
        )
        x, valid = self.fingerprints(smiles)
        kept = np.flatnonzero(valid).tolist()
        # rows without a SMILES are in `unreadable` already
        lines = [
            line
            for line, cell in zip(
                sheet.lines, sheet.column(self.smiles_column), strict=True
            )
            if label_text(cell)
        ]
        bad = [
            f"line {lines[i]}: {smiles[i]} is not a valid SMILES"
            for i in np.flatnonzero(~valid)
        ]
        if (labels and bad) or not kept:
            raise InnerloopError(f"{sheet.path}: {some(bad)}")
        return Inputs(
            torch.from_numpy(x[kept]).float(),
            [smiles[i] for i in kept],
            [known[i] for i in kept] if known else None,
            (*unreadable, *bad),
            "; ".join(sheet.notes),
        )

    def convert(self, X: Any) -> Tensor:
        """Fingerprints (n, features) of a list, an array or a data frame column of
        SMILES.

        Raises InnerloopError for an entry that is not a valid SMILES.
        """
        smiles = texts_in(X, self.smiles_column)
        x, valid = self.fingerprints(smiles)
        if not valid.all():
            bad = [f"X[{i}] {smiles[i]!r}" for i in np.flatnonzero(~valid)]
            raise InnerloopError(f"not a valid SMILES: {some(bad)}")
        return torch.from_numpy(x).float()

    def fingerprints(
        self, smiles: Sequence[str]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Fingerprints (n, features), and which SMILES are valid (n,); the others are
        zeros. Bits and counts are bytes.

        Raises MissingPackageError where rdkit is not installed.
        """
        molecules = [parse(text) for text in smiles]
        valid = np.array([molecule is not None for molecule in molecules], np.bool_)
        x = computed(molecules, self.fingerprint, self.radius, self.bits)
        return x, valid


def structure_keys(smiles: Sequence[str], *, scaffold: bool = False) -> list[str]:
    """The structure of every molecule as a key, "" for SMILES that are not valid.

    The key is the first block of the InChIKey of the largest fragment: molecules that
    differ only in stereochemistry, isotopes, protonation or counter-ions have the same.
    With `scaffold` it is that of the Bemis-Murcko scaffold, the rings and the chains
    between them; a molecule without rings has none and keeps its own key.

    Reference: Bemis and Murcko 1996, "The properties of known drugs. 1. Molecular
    frameworks", Journal of Medicinal Chemistry 39(15).
    """
    chem = rdkit()
    from rdkit.Chem.Scaffolds.MurckoScaffold import GetScaffoldForMol

    found = []
    for text in smiles:
        molecule = parse(text)
        if molecule is None:
            found.append("")
            continue
        fragments = chem.GetMolFrags(molecule, asMols=True)
        largest = max(
            fragments, key=lambda m: (m.GetNumHeavyAtoms(), chem.MolToSmiles(m))
        )
        if scaffold and largest.GetRingInfo().NumRings():
            largest = GetScaffoldForMol(largest)
        # InChI cannot express some metal complexes
        key = chem.MolToInchiKey(largest) or chem.MolToSmiles(
            largest, isomericSmiles=False
        )
        found.append(key.split("-")[0] if key.count("-") == 2 else key)
    return found


def parse(smiles: str) -> Any:
    """A SMILES as a molecule of rdkit, or None where it is not valid."""
    molecule = rdkit().MolFromSmiles(smiles)
    return molecule if molecule is not None and molecule.GetNumAtoms() else None


def rdkit() -> Any:
    """The module rdkit.Chem, without its messages.

    Raises MissingPackageError where it is not installed.
    """
    try:
        from rdkit import Chem, RDLogger
    except ImportError as error:
        raise MissingPackageError(
            "molecules are read with rdkit: pip install 'innerloop[molecules]'"
        ) from error
    RDLogger.DisableLog("rdApp.*")  # pyright: ignore[reportAttributeAccessIssue]
    return Chem
