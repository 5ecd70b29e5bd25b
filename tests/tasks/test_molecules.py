"""Molecules, their fingerprints, and the tasks of their assays."""

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score, roc_auc_score

import innerloop
from innerloop.engine.errors import InnerloopError
from innerloop.engine.scores import average_precision, roc_auc
from innerloop.evaluation.chunks import chunks
from innerloop.measurements import TestPlan
from innerloop.readers.molecule import MoleculeReader, structure_keys
from innerloop.tasks.molecules import (
    ASSAYS,
    SHARES,
    Assays,
    Molecules,
    hash_share,
    tox21,
    tox21_molecules,
)
from innerloop.tasks.splits import SPLITS

real = pytest.mark.skipif(
    not os.environ.get("INNERLOOP_DATA"),
    reason="INNERLOOP_DATA does not say where Tox21 is",
)
ETHANOL, PYRIDINE, ASPIRIN = "OCC", "c1ccncc1", "CC(=O)Oc1ccccc1C(=O)O"


def test_roc_auc_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        scores = torch.randint(0, 6, (30,), generator=generator).float()  # with ties
        positive = (torch.rand(30, generator=generator) < 0.4).float()
        assert float(roc_auc(scores, positive)) == pytest.approx(
            roc_auc_score(positive.numpy(), scores.numpy())
        )
    assert float(roc_auc(scores, torch.ones(30))) == 0.5


def test_average_precision_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        scores = torch.randint(0, 6, (30,), generator=generator).float()  # with ties
        positive = (torch.rand(30, generator=generator) < 0.4).float()
        assert float(average_precision(scores, positive)) == pytest.approx(
            average_precision_score(positive.numpy(), scores.numpy())
        )
    assert float(average_precision(scores, torch.zeros(30))) == 0
    assert float(average_precision(torch.zeros(4), torch.eye(4)[0])) == 0.25


def test_a_task_is_of_one_assay_and_its_sides_are_disjoint() -> None:
    results = torch.tensor(
        [[0.0, 1.0, float("nan")] * 10, [1.0, float("nan"), 0.0] * 10]
    )
    x = torch.arange(30)[:, None]  # every molecule is its own number
    keys = tuple(str(i) for i in range(30))
    by_name = dict(zip("ab", results, strict=True))
    molecules = Molecules(x, by_name, keys, keys)
    tasks = Assays(molecules, ("a", "b"), shots=3, queries=4)
    seen = set()
    for task in tasks.sample(50, torch.Generator().manual_seed(0)).unbind():
        rows, y = (
            torch.cat([task.support.x, task.query.x])[:, 0].long(),
            torch.cat([task.support.y, task.query.y]),
        )
        assert len(set(rows.tolist())) == 14
        fits = [bool((results[assay][rows] == y[:, 1]).all()) for assay in range(2)]
        assert sum(fits) == 1  # what was not measured is never drawn
        seen.add(fits.index(True))
        assert task.support.y.sum(0).tolist() == [3, 3]
        assert task.query.y.sum(0).tolist() == [4, 4]
    assert seen == {0, 1}
    assert tasks.feasible({"ways": 5, "shots": 1}) == {"shots": 9, "queries": 1}
    with pytest.raises(InnerloopError, match="and the largest assay has 10: lower"):
        Assays(molecules, ("a", "b"), shots=3, queries=8)
    by_name["a"] = torch.tensor([0.0] * 27 + [1.0] * 3)
    tasks = Assays(Molecules(x, by_name, keys, keys), ("a", "b"), shots=3, queries=4)
    assert tasks.names == ("b",)
    assert "1 assays with fewer than 7 of a class unused" in tasks.describe()


def test_learners_are_tested_beside_baselines_on_the_same_tasks() -> None:
    generator = torch.Generator().manual_seed(0)
    active = torch.arange(200) % 2
    x = torch.randn(200, 8, generator=generator)
    x[:, 0] += 1.5 * active  # the first feature says which are active
    keys = tuple(map(str, range(200)))
    molecules = Molecules(x, {"a": active.float()}, keys, keys)
    tasks = Assays(molecules, ("a",), shots=10, queries=20)
    learner = innerloop.ProtoNet.build(tasks.spec, encoder="flatten")
    plan = TestPlan(n=6, seed=3, labels={"shots": 10})
    report = tasks.evaluate(learner, plan)
    rows = {row.labels["method"]: row for row in report.tables[0].rows}
    methods = ["ProtoNet", "class means", "ridge regression", "quadratic probe"]
    assert list(rows) == [*methods, "random forest"]
    own = {m.name: m for m in rows["ProtoNet"].values}
    assert report.tables[1].rows[0].values[2].name == "roc_auc"
    few_shot = {m.name: m.mean for m in report.tables[1].rows[0].values}
    assert own["roc_auc"].mean == pytest.approx(few_shot["roc_auc"])  # the same tasks
    for name, row in rows.items():
        assert row.labels["shots"] == 10
        area, above, *lead = row.values
        assert 0.6 < area.mean < 0.95
        assert area.interval is not None
        assert 0.05 < above.mean < 0.5  # half of the molecules are active
        assert bool(lead) == (name != "ProtoNet")
        for difference in lead:
            assert difference.name == "roc_auc of ProtoNet minus this"
            assert difference.mean == pytest.approx(own["roc_auc"].mean - area.mean)
    expected = []
    for batch in chunks(learner, tasks, 6, 25, plan.generator()):
        for task in batch.unbind():
            model = RandomForestClassifier(100, random_state=0)
            model.fit(task.support.x.numpy(), task.support.y[:, 1].numpy())
            found = model.predict_proba(task.query.x.numpy())[:, 1]
            expected.append(roc_auc_score(task.query.y[:, 1].numpy(), found))
    assert rows["random forest"].values[0].mean == pytest.approx(np.mean(expected))
    assert "the same 1 classes: the intervals say nothing" in report.notes[-1]


def test_structures_are_used_once() -> None:
    x = torch.arange(5)[:, None]
    nan = float("nan")
    results = {
        "a": torch.tensor([1.0, 1.0, 0.0, nan, 0.0]),
        "b": torch.tensor([1.0, 0.0, nan, 1.0, 0.0]),
    }
    keys = ("u", "u", "v", "v", "")  # the last could not be read
    found = Molecules(x, results, keys, keys).distinct()
    assert found.keys == ("u", "v")
    assert found.x.flatten().tolist() == [0, 2]
    assert found.results["a"].tolist() == [1, 0]
    torch.testing.assert_close(
        found.results["b"], torch.tensor([nan, 1.0]), equal_nan=True
    )
    averaged = Molecules(x, results, keys, keys).distinct(average=True)
    assert averaged.results["b"].tolist() == [0.5, 1]


def test_a_structure_is_a_molecule_without_stereochemistry_and_salt() -> None:
    acid = [
        "C[C@H](N)C(=O)O",
        "C[C@@H](N)C(=O)O",
        "CC(N)C(=O)O.Cl",
        "CC([NH3+])C(=O)[O-]",
    ]
    assert len(set(structure_keys(acid))) == 1
    assert structure_keys(["no molecule", ""]) == ["", ""]
    assert len({*structure_keys([ETHANOL, "OCCC", PYRIDINE])}) == 3
    # one ring system; a molecule without rings keeps its own key
    same, other = ["Cc1ccncc1", "c1ccncc1CCO", PYRIDINE], ["c1ccccc1", ETHANOL, "OCCC"]
    assert len({*structure_keys(same, scaffold=True)}) == 1
    assert len({*structure_keys([*same, *other], scaffold=True)}) == 4


def test_smiles_are_read(tmp_path: Path) -> None:
    reader = MoleculeReader()
    x = reader.convert([ETHANOL, ASPIRIN])
    assert x.shape == (2, 2048)
    assert x.dtype == torch.float32
    assert set(x.unique().tolist()) == {0, 1}
    assert torch.equal(x[0], reader.convert(np.array(["CCO"]))[0])
    assert MoleculeReader.from_settings(reader.settings()) == reader
    with pytest.raises(InnerloopError, match=r"not a valid SMILES: X\[1\] 'C1CC'"):
        reader.convert([ETHANOL, "C1CC"])
    with pytest.raises(InnerloopError, match="bits of MoleculeReader must be at least"):
        MoleculeReader(bits=0)
    file = tmp_path / "mine.csv.gz"
    file.write_bytes(gzip.compress(b"SMILES;label\nOCC;a\nC1CC;b\n"))
    inputs = reader.read(file, labels=False)
    assert (inputs.names, inputs.labels) == ([ETHANOL], ["a"])
    assert inputs.unreadable == ("line 3: C1CC is not a valid SMILES",)
    with pytest.raises(InnerloopError, match="line 3: C1CC is not a valid SMILES"):
        reader.read(file, labels=True)


@real
def test_tox21_splits_by_assay() -> None:
    molecules = tox21_molecules()
    assert molecules.x.shape == (8014, 2048)
    assert set(molecules.results) == set(ASSAYS["train"]) | set(ASSAYS["test"])
    assert not set(ASSAYS["train"]) & set(ASSAYS["test"])
    assert len(tox21("train", holdout=True).names) == 7
    assert not tox21("train").class_keys() & tox21("test").class_keys()
    described = tox21("test", fingerprint="maccs")
    assert described.spec.x_shape == (167,)
    assert described.item_keys() == tox21("test").item_keys()
    shared = tox21("test", molecules="shared")
    assert int(shared.kinds[1, 1].sum()) == 936  # active in SR-MMP
    assert "results of the test molecules" in shared.note


@real
@pytest.mark.parametrize("protocol", ["disjoint", "scaffold"])
def test_no_molecule_of_tox21_is_in_two_splits(protocol: str) -> None:
    tasks = {part: tox21(part, molecules=protocol) for part in SPLITS}
    assert tox21("test").item_keys() == tox21("test", molecules="disjoint").item_keys()
    for part, own in tasks.items():
        low, high = SHARES[part]
        keys = own.molecules.scaffolds if protocol == "scaffold" else own.molecules.keys
        assert all(low <= hash_share(key) < high for key in keys)
        assert min(own.kinds.sum(-1).flatten().tolist()) >= 42  # 10 + 32 of each class
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not tasks[one].item_keys() & tasks[other].item_keys()
        prints = [
            {row.tobytes() for row in tasks[part].molecules.x.numpy()}
            for part in (one, other)
        ]
        assert not prints[0] & prints[1]
    shared = [tox21(part, molecules="shared").item_keys() for part in SPLITS]
    assert len(shared[0] & shared[2]) > 7000


@real
def test_no_smiles_of_tox21_is_in_two_splits() -> None:
    from rdkit import Chem

    file = Path(os.environ["INNERLOOP_DATA"]) / "tox21" / "tox21.csv.gz"
    with gzip.open(file, "rt") as opened:
        smiles = [row["smiles"] for row in csv.DictReader(opened)][:1500]
    _, valid = MoleculeReader().fingerprints(smiles)
    assert valid.sum() > 1490
    splits: dict[str, set[str]] = {}
    tasks = {part: tox21(part).item_keys() for part in SPLITS}
    for text, key in zip(smiles, structure_keys(smiles), strict=True):
        if key:
            canonical = Chem.CanonSmiles(text)
            found = {part for part, keys in tasks.items() if key in keys}
            splits.setdefault(canonical, set()).update(found)
    assert max(len(found) for found in splits.values()) == 1
    assert sum(found == {"test"} for found in splits.values()) > 300
