"""Molecules and their results in assays."""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections import defaultdict
from functools import lru_cache
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.evaluation.few_shot import evaluate
from innerloop.measurements import Report, Table, TestPlan
from innerloop.readers.files import decoding
from innerloop.readers.molecule import (
    FINGERPRINT,
    MoleculeReader,
    structure_keys,
)
from innerloop.tasks.cache import Entry, cached
from innerloop.tasks.download import fetch
from innerloop.tasks.episodes import random_subset
from innerloop.tasks.ranking import compared
from innerloop.tasks.splits import task_source

ASSAYS = {  # nine train and three test, as in Altae-Tran et al. 2017
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
SHARES = {"train": (0.0, 0.5), "val": (0.5, 0.7), "test": (0.7, 1.0)}  # of molecules
_URL, _SHA256 = (
    "https://raw.githubusercontent.com/deepchem/deepchem/master/datasets/tox21.csv.gz",
    "48b34e4e59a2bae6f95734cd206c1869ab355f50a5e50bb7371a21f861d5e297",
)

VERSION = 2  # of the files in the cache folder

Protocol = Literal["disjoint", "scaffold", "shared"]


class Molecules(NamedTuple):
    """Molecules and what was measured of them.

    Args:
        x: fingerprints (n, features); bits and counts are bytes.
        results: by assay, 1 for active, 0 for inactive and NaN where there is no result
            (n,).
        keys, scaffolds: keys of the structures and of their scaffolds, "" for what
            could not be read; see `structure_keys`.
    """

    x: Tensor
    results: dict[str, Tensor]
    keys: tuple[str, ...]
    scaffolds: tuple[str, ...]

    def pick(self, places: list[int]) -> Molecules:
        at = torch.tensor(places, dtype=torch.long)
        return Molecules(
            self.x[at],
            {name: values[at] for name, values in self.results.items()},
            tuple(self.keys[i] for i in places),
            tuple(self.scaffolds[i] for i in places),
        )

    def measured(self, name: str) -> Tensor:
        """The indices of the molecules with a result in an assay, and with a key."""
        known = torch.tensor([bool(key) for key in self.keys], dtype=torch.bool)
        return (known & ~self.results[name].isnan()).nonzero()[:, 0]

    def distinct(self, *, average: bool = False) -> Molecules:
        """Each structure once, with the results of all its rows. Where they disagree,
        there is no result; with `average`, their mean.
        """
        rows: dict[str, list[int]] = defaultdict(list)
        for i, key in enumerate(self.keys):
            if key:
                rows[key].append(i)
        first = self.pick([some[0] for some in rows.values()])
        for place, some in enumerate(rows.values()):
            if len(some) == 1:
                continue
            for name, values in self.results.items():
                known = [v for v in values[some].tolist() if v == v]
                agree = bool(known) and (average or len(set(known)) == 1)
                merged = sum(known) / len(known) if agree else float("nan")
                first.results[name][place] = merged
        return first


class Assays(TaskDistribution):
    """Binary tasks: is a molecule active in an assay? The second class is "active" in
    every task.

    Support x (n, 2 shots, features), y (n, 2 shots, 2); query likewise with `queries`.
    Support and query are disjoint and shuffled.

    Args:
        molecules: the molecules, with results in the assays.
        names: the assays that tasks are drawn from.
        shots: support molecules of each class.
        queries: query molecules of each class.
        reader: what made the fingerprints.
        note: what should be known of results on these tasks.
        assay_keys: what identifies each assay (default: its name).

    Assays with too few molecules of a class are left out. Raises InnerloopError where
    no assay has enough.
    """

    prefetch = True

    def __init__(
        self,
        molecules: Molecules,
        names: tuple[str, ...],
        shots: int,
        queries: int,
        reader: MoleculeReader | None = None,
        note: str = "",
        assay_keys: tuple[str, ...] = (),
    ):
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1; got {shots} and {queries}"
            )
        self.shots, self.queries = shots, queries
        self.reader, self.note = reader, note
        results = torch.stack([molecules.results[name] for name in names])
        # (assays, 2, molecules); what was not measured is neither
        kinds = torch.stack([results == 0, results == 1], 1)
        fewer = kinds.sum(-1).amin(1)  # molecules of the rarer class, by assay
        self.most = int(fewer.max())
        if self.most < shots + queries:
            raise InnerloopError(
                f"{shots} shots and {queries} queries need {shots + queries} molecules "
                f"of each class, and the largest assay has {self.most}: lower the "
                "shots or the queries"
            )
        enough = (fewer >= shots + queries).nonzero()[:, 0].tolist()
        self.left_out = len(names) - len(enough)  # assays with too few molecules
        self.names = tuple(names[i] for i in enough)
        self.assay_keys = tuple((assay_keys or names)[i] for i in enough)
        kinds = kinds[enough]
        used = [
            i
            for i, is_in in enumerate(kinds.any(1).any(0).tolist())
            if is_in and molecules.keys[i]
        ]
        self.molecules, self.kinds = molecules.pick(used), kinds[..., used]
        self.spec = TaskSpec("classes", (molecules.x.shape[1],), 2)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        # (n, 2, molecules)
        allowed = self.kinds[torch.randint(len(self.kinds), (n,), generator=generator)]
        # (n, 2, shots + queries)
        drawn = random_subset(
            tuple(allowed.shape), self.shots + self.queries, generator, allowed
        )
        examples = []
        for rows in drawn.split([self.shots, self.queries], -1):
            size = rows.shape[-1]
            order = random_subset((n, 2 * size), 2 * size, generator)
            labels = torch.arange(2).repeat_interleave(size)[order]
            x = self.molecules.x[rows.flatten(1).gather(1, order)].float()
            examples.append(Examples(x, torch.eye(2)[labels]))
        return Task(*examples)

    def describe(self) -> str:
        text = (
            f"tasks with {self.shots} active and {self.shots} inactive molecules from "
            f"{len(self.names)} assays of {self.kinds.shape[-1]:,} molecules"
        )
        if self.left_out:
            fewer = self.shots + self.queries
            text += (
                f"; {self.left_out} assays with fewer than {fewer} of a class unused"
            )
        return text

    def feasible(self, preferred: dict[str, int]) -> dict[str, int]:
        shots = min(10, self.most - 1)
        return {"shots": shots, "queries": min(32, self.most - shots)}

    def evaluate(self, learner: Learner, plan: TestPlan) -> Report:
        """How well the learner ranks molecules, beside methods that learn from the
        support set alone, on the same tasks; the scores of `meta_test` follow.
        """
        table = Table("ranking of molecules", compared(learner, self, plan))
        found = evaluate(learner, self, plan)
        notes = []
        if len(self.names) > self.spec.y_dim:  # else `found` says so
            notes.append(
                f"all tasks are of the same {len(self.names)} assays: the intervals "
                "say nothing about other assays"
            )
        if find_spec("sklearn") is None:
            notes.append("no random forest: pip install scikit-learn to see it")
        return Report((table, *found.tables), (*found.notes, *notes), found.context)

    def class_keys(self) -> frozenset[str]:
        return frozenset(f"assay {name}" for name in self.assay_keys)

    def class_names(self) -> tuple[str, ...]:
        return self.names

    def item_keys(self) -> frozenset[str]:
        return frozenset(self.molecules.keys)


@lru_cache(maxsize=2)
def tox21_molecules(fingerprint: str = FINGERPRINT) -> Molecules:
    """Tox21 as in its file. Fingerprints and keys are computed once and kept in the
    cache folder.

    Raises MissingPackageError where rdkit is needed and not installed.
    """
    file = fetch("tox21", "tox21.csv.gz", _URL, _SHA256)
    with (
        decoding(file, "Tox21"),
        gzip.open(file, "rt", encoding="utf-8") as opened,
    ):
        rows = list(csv.DictReader(opened))
        names = [name for name in rows[0] if name not in ("mol_id", "smiles")]
        results = {
            name: torch.tensor([float(row[name] or "nan") for row in rows])
            for name in names
        }
        smiles = [row["smiles"] for row in rows]
    x = fingerprints_of(smiles, MoleculeReader(fingerprint=fingerprint))
    return Molecules(x, results, *keys_of(smiles))


def fingerprints_of(smiles: list[str], reader: MoleculeReader) -> Tensor:
    """The fingerprints (n, features) of SMILES, from the cache where it has them."""

    def compute() -> Entry:
        return {"x": torch.from_numpy(reader.fingerprints(smiles)[0])}, {}

    how = [VERSION, reader.fingerprint, reader.radius, reader.bits]
    return cached("fingerprints", [how, smiles], compute)[0]["x"]


def keys_of(smiles: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys of structures and of their scaffolds, from the cache where it has
    them.
    """

    def compute() -> Entry:
        scaffolds = structure_keys(smiles, scaffold=True)
        return {}, {"keys": structure_keys(smiles), "scaffolds": scaffolds}

    data = cached("structures", [VERSION, smiles], compute)[1]
    return tuple(data["keys"]), tuple(data["scaffolds"])


def hash_share(key: str) -> float:
    """A number in 0..1 that is fixed by the key."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:16], 16) / 16**16


@lru_cache(maxsize=2)
def _split(protocol: Protocol, fingerprint: str) -> dict[str, Molecules]:
    return split_molecules(tox21_molecules(fingerprint).distinct(), protocol)


def split_molecules(whole: Molecules, protocol: Protocol) -> dict[str, Molecules]:
    """The molecules of every split. A molecule whose fingerprint is that of a molecule
    of a later split is left out.
    """
    keys = whole.scaffolds if protocol == "scaffold" else whole.keys
    shares = [hash_share(key) for key in keys]
    prints = [row.tobytes() for row in whole.x.numpy()]
    splits, later = {}, set()
    for split in reversed(SHARES):
        low, high = SHARES[split]
        own = [i for i, share in enumerate(shares) if low <= share < high]
        splits[split] = whole.pick([i for i in own if prints[i] not in later])
        later |= {prints[i] for i in own}
    return splits


@task_source
def tox21(
    split: str = "train",
    *,
    shots: Count = 10,
    queries: Count = 32,
    holdout: bool = False,
    molecules: Protocol = "disjoint",
    fingerprint: str = FINGERPRINT,
) -> Assays:
    """Tox21: toxicity assays; which molecules are active?

    Each task is an assay with a few active and inactive molecules. Nine assays are for
    training, SR-HSE, SR-MMP and SR-p53 for testing. NR-AhR and SR-ATAD5 are for
    validation, and with `holdout` are not used for training. A molecule is its
    fingerprint, by default ECFP of radius 2 with 2,048 bits; "ecfp+descriptors" is
    better (see `MoleculeReader`).

    A test compares the learner with methods that learn from the support set alone, on
    the same tasks: a random forest, ridge regression, a quadratic probe and the nearest
    class mean.

    By default no molecule of a test task is in any training or validation task. A
    structure is the largest fragment of a molecule without stereochemistry and
    protonation (the first block of its InChIKey); each is used once, and results that
    disagree are dropped. The first 16 hexadecimal digits of the SHA-256 of that key, as
    a fraction of 16^16, assign it to train (below 0.5), validation (below 0.7) or test.
    A molecule whose fingerprint is that of a molecule of a later split is not used.

    Reference: Altae-Tran, Ramsundar, Pappu and Pande 2017, "Low data drug discovery
    with one-shot learning", arXiv:1611.03199: the assays, and the protocol "shared".

    Data: Huang, Xia, Sakamuru, Zhao, Shahane, Attene-Ramos, Zhao, Austin and Simeonov
    2016, "Modelling the Tox21 10 K chemical profiles for in vivo toxicity prediction
    and mechanism characterization", Nature Communications 7:10425.

    Args:
        shots: support molecules of each class.
        queries: query molecules of each class.
        holdout: keep the validation assays out of training.
        molecules: with "disjoint", no molecule is in two splits. "scaffold" splits in
            the same way by Bemis-Murcko scaffold, so that test molecules also have
            other ring systems; molecules without rings are split one by one. "shared"
            is the published protocol: all molecules in all splits, so that training
            uses results of the test molecules in other assays.
        fingerprint: "ecfp", "count", "fcfp", "atompair", "torsion", "maccs",
            "descriptors", or several joined by "+".
    """
    shared = molecules == "shared"
    chosen = (
        tox21_molecules(fingerprint)
        if shared
        else _split(molecules, fingerprint)[split]
    )
    names = ASSAYS[split]
    if split == "train" and holdout:
        names = tuple(name for name in names if name not in ASSAYS["val"])
    note = "training uses results of the test molecules in other assays"
    reader = MoleculeReader(fingerprint=fingerprint)
    return Assays(chosen, names, shots, queries, reader, note if shared else "")
