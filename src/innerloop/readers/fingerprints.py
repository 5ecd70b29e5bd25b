"""Fingerprints and descriptors of molecules, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError

JOIN = "+"
MAX_COUNT = 255
LARGEST = 3.0  # standard deviations at which descriptors are clipped

# Of the descriptors of the training molecules of Tox21, as `raw_descriptors` returns
# them: constants, so that a molecule has the same vector in every data set.
PROPERTIES = {  # mean and standard deviation
    "amw": (5.49, 0.53),
    "NumHeavyAtoms": (2.84, 0.53),
    "NumHeteroatoms": (1.6, 0.6),
    "NumHBD": (0.59, 0.59),
    "NumHBA": (1.32, 0.6),
    "NumRotatableBonds": (1.39, 0.79),
    "NumAmideBonds": (0.18, 0.4),
    "FractionCSP3": (0.35, 0.22),
    "NumRings": (0.86, 0.58),
    "NumAromaticRings": (0.62, 0.51),
    "NumAliphaticRings": (0.35, 0.53),
    "NumSaturatedRings": (0.25, 0.46),
    "NumHeterocycles": (0.37, 0.5),
    "NumAromaticHeterocycles": (0.17, 0.34),
    "NumAliphaticHeterocycles": (0.23, 0.43),
    "NumSpiroAtoms": (0.01, 0.09),
    "NumBridgeheadAtoms": (0.04, 0.24),
    "CrippenClogP": (1.04, 0.79),
    "CrippenMR": (4.16, 0.56),
    "tpsa": (3.62, 1.22),
    "labuteASA": (4.6, 0.52),
    "chi0v": (2.41, 0.48),
    "chi1v": (1.93, 0.5),
    "chi2v": (1.71, 0.53),
    "chi3v": (1.38, 0.57),
    "chi4v": (1.1, 0.58),
    "hallKierAlpha": (-0.76, 0.54),
    "kappa1": (2.6, 0.5),
    "kappa2": (1.87, 0.53),
    "kappa3": (1.52, 0.65),
}
SURFACES = (  # the same, of SlogP_VSA, SMR_VSA and PEOE_VSA
    (1.1, 1.17),
    (2.9, 1.09),
    (1.66, 1.25),
    (0.92, 1.24),
    (2.64, 1.43),
    (2.54, 1.56),
    (0.26, 0.72),
    (0.43, 0.97),
    (0.0, 1.0),
    (0.66, 1.06),
    (0.53, 0.98),
    (0.87, 1.38),
    (2.19, 1.13),
    (0.07, 0.38),
    (0.94, 1.15),
    (0.72, 1.13),
    (2.66, 1.47),
    (1.72, 1.4),
    (2.73, 1.63),
    (0.0, 1.0),
    (0.68, 1.09),
    (2.31, 1.25),
    (2.0, 1.08),
    (1.15, 1.14),
    (0.79, 1.07),
    (0.32, 0.82),
    (0.27, 0.78),
    (2.55, 1.48),
    (2.86, 1.23),
    (1.99, 1.28),
    (1.68, 1.31),
    (1.23, 1.27),
    (0.61, 1.04),
    (0.5, 0.94),
    (0.35, 0.8),
    (0.89, 1.15),
)

Maker = Callable[[int, int], Callable[[Any], NDArray[Any]]]


class Fingerprint(NamedTuple):
    """A way to turn a molecule into a vector.

    Args:
        maker: from radius and bits to a function from a molecule of rdkit to its vector
            (size,), of type `dtype`.
        norm: root mean square length of the vectors of Tox21, by which they are divided
            where several fingerprints are joined.
        size: length of a vector; 0 for as many as the reader's `bits`.
    """

    maker: Maker
    norm: float
    size: int = 0
    dtype: type = np.uint8


def _morgan(features: bool = False, counts: bool = False) -> Maker:
    def maker(radius: int, bits: int) -> Callable[[Any], NDArray[Any]]:
        from rdkit.Chem import rdFingerprintGenerator as known

        invariants = known.GetMorganFeatureAtomInvGen() if features else None
        made = known.GetMorganGenerator(
            radius=radius, fpSize=bits, atomInvariantsGenerator=invariants
        )
        return _counted(made) if counts else made.GetFingerprintAsNumPy

    return maker


def _atompair(radius: int, bits: int) -> Callable[[Any], NDArray[Any]]:
    from rdkit.Chem.rdFingerprintGenerator import GetAtomPairGenerator

    return _counted(GetAtomPairGenerator(fpSize=bits, countSimulation=False))


def _torsion(radius: int, bits: int) -> Callable[[Any], NDArray[Any]]:
    from rdkit.Chem.rdFingerprintGenerator import GetTopologicalTorsionGenerator

    return _counted(GetTopologicalTorsionGenerator(fpSize=bits, countSimulation=False))


def _counted(made: Any) -> Callable[[Any], NDArray[Any]]:
    return lambda molecule: np.minimum(
        made.GetCountFingerprintAsNumPy(molecule), MAX_COUNT
    )


def _maccs(radius: int, bits: int) -> Callable[[Any], NDArray[Any]]:
    from rdkit.Chem.rdMolDescriptors import GetMACCSKeysFingerprint

    return lambda molecule: np.array(list(GetMACCSKeysFingerprint(molecule)), np.uint8)


def raw_descriptors(molecule: Any) -> NDArray[np.float64]:
    """The descriptors of a molecule of rdkit as sign(v) log(1 + |v|); NaN for partial
    charges of atoms that have no parameters.
    """
    from rdkit.Chem import rdMolDescriptors as known

    values = [
        *known.Properties(list(PROPERTIES)).ComputeProperties(molecule),
        *known.SlogP_VSA_(molecule),
        *known.SMR_VSA_(molecule),
        *known.PEOE_VSA_(molecule),
    ]
    v = np.array(values, np.float64)
    v[~np.isfinite(v)] = np.nan
    return np.sign(v) * np.log1p(np.abs(v))


def _descriptors(radius: int, bits: int) -> Callable[[Any], NDArray[Any]]:
    mean, deviation = np.array([*PROPERTIES.values(), *SURFACES]).T

    def standardized(molecule: Any) -> NDArray[np.float32]:
        scaled = np.nan_to_num((raw_descriptors(molecule) - mean) / deviation)
        return scaled.clip(-LARGEST, LARGEST).astype(np.float32)

    return standardized


FINGERPRINTS = {
    "ecfp": Fingerprint(_morgan(), 5.5),
    "count": Fingerprint(_morgan(counts=True), 12.9),
    "fcfp": Fingerprint(_morgan(features=True), 4.8),
    "atompair": Fingerprint(_atompair, 35.3),
    "torsion": Fingerprint(_torsion, 10.1),
    "maccs": Fingerprint(_maccs, 5.7, 167),
    "descriptors": Fingerprint(
        _descriptors, 7.8, len(PROPERTIES) + len(SURFACES), np.float32
    ),
}
NORM = FINGERPRINTS["ecfp"].norm  # of every part of a joined fingerprint


def parts_of(name: str) -> list[str]:
    """The fingerprints that a name joins by "+".

    Raises InnerloopError for one that does not exist, or is named twice.
    """
    parts = name.split(JOIN)
    for part in parts:
        if part not in FINGERPRINTS:
            raise InnerloopError(
                f"there is no fingerprint {part!r:.60}"
                f"{did_you_mean(part, FINGERPRINTS)}"
            )
    if len(set(parts)) < len(parts):
        raise InnerloopError(f"a fingerprint is named twice; got {name!r:.60}")
    return parts


def size_of(name: str, bits: int) -> int:
    """The length of the vectors of a fingerprint, or of several joined by "+"."""
    return sum(FINGERPRINTS[part].size or bits for part in parts_of(name))


def computed(
    molecules: Sequence[Any], name: str, radius: int, bits: int
) -> NDArray[Any]:
    """Vectors (n, size) of molecules of rdkit, zeros for None; whole numbers as bytes.

    Several fingerprints joined by "+" stand side by side, each scaled to the usual
    length of ECFP.
    """
    parts = parts_of(name)
    columns = []
    for part in parts:
        known = FINGERPRINTS[part]
        vector = known.maker(radius, bits)
        x = np.zeros((len(molecules), known.size or bits), known.dtype)
        for i, molecule in enumerate(molecules):
            if molecule is not None:
                x[i] = vector(molecule)
        if len(parts) > 1 and known.norm != NORM:
            x = x * np.float32(NORM / known.norm)
        columns.append(x)
    return np.concatenate(columns, 1) if len(columns) > 1 else columns[0]
