"""A user's own table of molecules with assay columns."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

import innerloop
from innerloop.cli import main
from innerloop.engine.errors import InnerloopError
from innerloop.tasks import molecules
from innerloop.tasks.molecules import Assays
from innerloop.tasks.splits import SPLITS

pytest.importorskip("rdkit")

ENDS = ("C", "O", "N", "F", "Cl", "Br", "CC", "CO")
RINGS = ("{}c1ccc({})nc1", "{}c1ncc({})cn1")
SMILES = [ring.format(a, b) for ring in RINGS for a in ENDS for b in ENDS]
NAMES = [f"assay {i}" for i in range(8)]


def table(path: Path, names: list[str], rows: list[str] = SMILES) -> Path:
    """Results that depend on the row and the assay, with a gap in every fifth cell."""
    lines = ["id,SMILES,weight," + ",".join(names)]
    for i, smiles in enumerate(rows):
        cells = [
            "" if (i + k) % 5 == 0 else str((i // (k + 1)) % 2)
            for k in range(len(names))
        ]
        lines.append(f"m{i},{smiles},{i * 1.5},{','.join(cells)}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_columns_of_zeros_and_ones_are_assays(tmp_path: Path) -> None:
    file = table(tmp_path / "mine.csv", NAMES, [*SMILES, "C1CC"])
    splits = {s: molecules(s, file=file, shots=2, queries=2) for s in SPLITS}
    names = [set(tasks.names) for tasks in splits.values()]
    assert names[0] | names[1] | names[2] == set(NAMES)
    assert sum(map(len, names)) == 8  # no assay is in two splits
    items = [tasks.item_keys() for tasks in splits.values()]
    assert len(items[0] | items[1] | items[2]) == sum(map(len, items))
    train = splits["train"]
    assert "not used: id, weight" in train.note
    assert "without a valid SMILES are left out: line 130" in train.note
    task = train.sample(1, torch.Generator().manual_seed(0)).unbind()[0]
    assert task.support.x.shape == (4, 2048 + 66)
    assert task.support.y.sum(0).tolist() == [2, 2]


def test_one_row_for_each_result_is_the_same_table(tmp_path: Path) -> None:
    wide = table(tmp_path / "wide.csv", NAMES)
    lines = ["smiles;task;y"]
    for line in wide.read_text().splitlines()[1:]:
        _, smiles, _, *cells = line.split(",")
        lines += [
            f"{smiles};{name};{cell}"
            for name, cell in zip(NAMES, cells, strict=True)
            if cell
        ]
    long = tmp_path / "long.csv.gz"
    long.write_bytes(gzip.compress("\n".join(lines).encode()))
    one, other = (molecules(file=f, shots=2, queries=2) for f in (wide, long))
    assert one.class_keys() == other.class_keys()
    assert one.item_keys() == other.item_keys()
    long.write_bytes(gzip.compress(b"smiles;task;y\nCO;a;0.3\n"))
    with pytest.raises(InnerloopError, match="y must hold 0 or 1"):
        molecules(file=long)


def numbers(path: Path, suffix: str = "") -> Path:
    """Columns of numbers, some empty; a molecule is in two rows."""
    lines = ["name,smiles,weight,pIC50 a,pIC50 b,Ki c"]
    for i, smiles in enumerate([*SMILES, SMILES[0]]):
        cells = ["" if (i + k) % 5 == 0 else str(4 + (i * (k + 3)) % 7) for k in (0, 1)]
        lines.append(f"m{i},{smiles},{i * 1.5},{','.join(cells)},{i}{suffix}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_numbers_become_classes_by_a_threshold(tmp_path: Path) -> None:
    file = numbers(tmp_path / "mine.csv")
    sizes = {"file": file, "shots": 2, "queries": 2, "all_assays": True}
    wanted = {**sizes, "assay_columns": "pIC50*", "molecules": "shared"}
    above = molecules(active_above=7, **wanted)
    below = molecules(active_below=7, **wanted)
    assert isinstance(above, Assays)
    assert above.names == ("pIC50 a", "pIC50 b")
    cells = [row.split(",")[3] for row in file.read_text().splitlines()[1:]]
    known = [float(cell) for cell in cells if cell]
    active = above.molecules.results["pIC50 a"]
    assert int((active == 1).sum()) == sum(value >= 7 for value in known)
    inactive = below.molecules.results["pIC50 a"] == 0
    assert int(inactive.sum()) == sum(value > 7 for value in known)
    with pytest.raises(InnerloopError, match="assay_columns must say which columns"):
        molecules(active_above=7, **sizes)
    with pytest.raises(InnerloopError, match=r"has no column 'IC50\*'; it has name"):
        molecules(active_above=7, assay_columns="IC50*", **sizes)
    with pytest.raises(InnerloopError, match="choose one of active_above"):
        molecules(active_above=7, regression=True, **wanted)
    with pytest.raises(InnerloopError, match="for numbers, see active_above"):
        molecules(**{**sizes, "assay_columns": "pIC50 a"})
    bad = numbers(tmp_path / "bad.csv", suffix=" nM")
    with pytest.raises(InnerloopError, match="Ki c in line 2 must be a number"):
        molecules(active_below=7, **{**sizes, "file": bad, "assay_columns": "Ki c"})


def test_numbers_are_predicted_by_regression(tmp_path: Path) -> None:
    file = numbers(tmp_path / "mine.csv")
    sizes = {"shots": 3, "queries": 4, "all_assays": True, "assay_columns": "pIC50*"}
    splits = {
        s: molecules(s, file=file, regression=True, fingerprint="maccs", **sizes)
        for s in SPLITS
    }
    rows = [set(map(tuple, tasks.bank.values.tolist())) for tasks in splits.values()]
    assert not rows[0] & rows[2]  # molecules of two splits differ
    task = splits["train"].sample(1, torch.Generator().manual_seed(0)).unbind()[0]
    assert (task.support.x.shape, task.query.y.shape) == ((3, 167), (4, 1))
    assert splits["train"].spec.kind == "reals"
    every = torch.cat([tasks.targets for tasks in splits.values()])
    assert 4 <= every.min() < every.max() <= 10
    run = tmp_path / "run"
    line = f"train maml molecules --steps 1 --shots 3 --queries 3 --file {file}"
    flags = ["--regression", "--assay-columns", "pIC50*", "--all-assays"]
    flags += ["--out", str(run)]
    assert main([*line.split(), *flags]) == 0
    assert main(["test", str(run), "--tasks", "2"]) == 0
    regressor = innerloop.FewShotRegressor(run).fit(SMILES[:4], [4.0, 5.0, 6.0, 7.0])
    assert regressor.predict(SMILES[:2]).shape == (2,)


def test_an_assay_is_known_by_its_results_and_not_by_its_name(tmp_path: Path) -> None:
    one = molecules(file=table(tmp_path / "a.csv", NAMES), shots=1, queries=1)
    rows = SMILES[::-1]
    other = molecules(file=table(tmp_path / "b.csv", NAMES, rows), shots=1, queries=1)
    assert one.names == other.names
    assert not one.class_keys() & other.class_keys()


def test_what_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    few = table(tmp_path / "few.csv", NAMES[:2])
    with pytest.raises(InnerloopError, match=r"has none of 2 assays \(train 1, val 1"):
        molecules("test", file=few)
    assert len(molecules("test", file=few, shots=1, queries=1, all_assays=True).names)
    with pytest.raises(InnerloopError, match="need 120 molecules of each class"):
        molecules(file=few, shots=20, queries=100)
    with pytest.raises(InnerloopError, match="has no assay"):
        molecules(file=table(tmp_path / "none.csv", []))
    with pytest.raises(InnerloopError, match="smiles_column names another"):
        molecules(file=few, smiles_column="structure")


def test_own_molecules_go_from_file_to_labels(tmp_path: Path) -> None:
    file, run = table(tmp_path / "mine.csv", NAMES), tmp_path / "run"
    line = f"train protonet molecules --shots 2 --queries 2 --steps 1 --file {file}"
    assert main([*line.split(), "--out", str(run)]) == 0
    assert main(["test", str(run), "--tasks", "2"]) == 0
    known, new = tmp_path / "known.csv", tmp_path / "new.csv"
    known.write_text("smiles,label\nCO,polar\nCCCCC,greasy\n")
    new.write_text("smiles\nCCO\nCCCCCC\n")
    out = tmp_path / "out.csv"
    words = ["--support", known, "--query", new, "--out", out]
    assert main(["adapt", str(run), *map(str, words)]) == 0
    header = (
        "molecule,label,probability,second_label,second_probability,"
        "probability_of_greasy,probability_of_polar"
    )
    assert out.read_text().splitlines()[0] == header
    assert isinstance(innerloop.load(run), innerloop.ProtoNet)
