"""Molecules and what assays say of them."""

from __future__ import annotations

import csv
import gzip
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.tasks.download import cache_folder, fetch
from innerloop.tasks.episodes import random_subset
from innerloop.tasks.splits import check_split

ASSAYS = {  # the first nine train and the last three test, as in Altae-Tran et al. 2017
    "train": (
        "NR-AR",
        "NR-AR-LBD",
        "NR-AhR",
        "NR-Aromatase",
        "NR-ER",
        "NR-ER-LBD",
        "NR-PPAR-gamma",
        "SR-ARE",
        "SR-ATAD5",
    ),
    "val": ("NR-AhR", "SR-ATAD5"),
    "test": ("SR-HSE", "SR-MMP", "SR-p53"),
}
RADIUS, BITS = 2, 2048
_URL, _MD5 = (
    "https://raw.githubusercontent.com/deepchem/deepchem/master/datasets/tox21.csv.gz",
    "452fad61c28b0a18c1d97931d754bc4a",
)


class Assays(TaskDistribution):
    """Binary tasks: is a molecule active in an assay, told some that are and as many
    that are not? The second class is "active" in every task.

    Support x (n, 2 shots, features), y (n, 2 shots, 2); query likewise with `queries`.
    Support and query are disjoint and shuffled. Raises ValueError where an assay has
    too few molecules of a kind.
    """

    prefetch = True

    def __init__(
        self,
        x: Tensor,
        results: Tensor,
        names: tuple[str, ...],
        shots: int,
        queries: int,
    ):
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1, got {shots}, {queries}"
            )
        self.x, self.names, self.shots, self.queries = x, names, shots, queries
        # (assays, 2, molecules); what was not measured is neither
        self.kinds = torch.stack([results == 0, results == 1], 1)
        fewest = int(self.kinds.sum(-1).min())
        if fewest < shots + queries:
            raise InnerloopError(
                f"{shots} + {queries} molecules of each kind are asked for, and an assay has {fewest} active ones: ask for fewer"
            )
        self.spec = TaskSpec("classes", (x.shape[1],), 2)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        # (n, 2, molecules)
        allowed = self.kinds[torch.randint(len(self.kinds), (n,), generator=generator)]
        # (n, 2, shots + queries)
        drawn = random_subset(
            tuple(allowed.shape), self.shots + self.queries, generator, allowed
        )
        parts = []
        for rows in drawn.split([self.shots, self.queries], -1):
            order = random_subset(
                (n, 2 * rows.shape[-1]), 2 * rows.shape[-1], generator
            )
            labels = torch.arange(2).repeat_interleave(rows.shape[-1])[order]
            parts.append(
                Examples(
                    self.x[rows.flatten(1).gather(1, order)].float(),
                    torch.eye(2)[labels],
                )
            )
        return Task(*parts)


@lru_cache(maxsize=1)
def molecules() -> tuple[Tensor, dict[str, Tensor]]:
    """Tox21: fingerprints (molecules, 2048) of zeros and ones, as bytes, and each
    assay's results (molecules,): 1, 0, or NaN where there is none.

    Fingerprints are extended-connectivity ones of diameter 4 (Rogers and Hahn 2010),
    made once by rdkit and kept.
    Raises ImportError where rdkit is needed and missing.
    """
    with gzip.open(
        fetch("tox21", "tox21.csv.gz", _URL, _MD5), "rt", encoding="utf-8"
    ) as opened:
        rows = list(csv.DictReader(opened))
    cached = cache_folder() / "tox21" / f"ecfp-{RADIUS}-{BITS}-{len(rows)}.npz"
    if not cached.is_file():
        bits = _fingerprints([row["smiles"] for row in rows])
        cached.parent.mkdir(parents=True, exist_ok=True)
        partial = cached.with_suffix(".split.npz")
        np.savez_compressed(partial, bits=np.packbits(bits, axis=1))
        partial.replace(cached)
    with np.load(cached) as stored:
        x = torch.from_numpy(np.unpackbits(stored["bits"], axis=1, count=BITS))
    names = [name for name in rows[0] if name not in ("mol_id", "smiles")]
    return x, {
        name: torch.tensor(
            [float(row[name]) if row[name] else float("nan") for row in rows]
        )
        for name in names
    }


def _fingerprints(smiles: list[str]) -> np.ndarray:
    try:
        from rdkit import Chem, RDLogger
        from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
    except ImportError as error:
        raise MissingPackageError(
            "molecules are read by rdkit: pip install 'innerloop[molecules]'"
        ) from error
    RDLogger.DisableLog("rdApp.*")  # pyright: ignore[reportAttributeAccessIssue]
    generator = GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    found = [Chem.MolFromSmiles(text) for text in smiles]
    return np.stack(
        [
            generator.GetFingerprintAsNumPy(m)
            if m is not None
            else np.zeros(BITS, np.uint8)
            for m in found
        ]
    )


def tox21(
    split: str = "train", *, shots: int = 10, queries: int = 32, holdout: bool = False
) -> Assays:
    """Toxicity assays of molecules: is a molecule active in an assay that was never
    seen, told `shots` that are and `shots` that are not?

    The split of Altae-Tran, Ramsundar, Pappu and Pande 2017, "Low data drug discovery
    with one-shot learning", arXiv:1611.03199: nine assays train, SR-HSE, SR-MMP and
    SR-p53 test. Two of the nine validate, and with `holdout` leave training. Molecules
    of the test assays stand in training too, with their results in other assays.
    """
    check_split(split)
    x, results = molecules()
    names = tuple(
        name
        for name in ASSAYS[split]
        if not (split == "train" and holdout and name in ASSAYS["val"])
    )
    return Assays(
        x, torch.stack([results[name] for name in names]), names, shots, queries
    )
