"""Molecules as fingerprints and descriptors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from innerloop.cli import main
from innerloop.engine.errors import InnerloopError
from innerloop.readers.detect import reader_for

pytest.importorskip("rdkit")

from innerloop.readers.fingerprints import FINGERPRINTS
from innerloop.readers.molecule import MoleculeReader

MOLECULES = ["OCC", "c1ccncc1", "CC(=O)Oc1ccccc1C(=O)O", "[Na+].[Cl-]"]
SIZES = {"maccs": 167, "descriptors": 66}


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_a_molecule_has_one_vector_however_it_is_written(name: str) -> None:
    reader = MoleculeReader(fingerprint=name)
    x = reader.convert(MOLECULES)
    assert x.shape == (4, *reader.x_shape) == (4, SIZES.get(name, 2048))
    assert x.isfinite().all()
    assert len(x[:3].unique(dim=0)) == 3
    # alone and written in another order of atoms
    assert torch.equal(reader.convert(["CCO"])[0], x[0])
    assert torch.equal(reader.convert(["O=C(O)c1ccccc1OC(C)=O"])[0], x[2])
    assert MoleculeReader.from_settings(reader.settings()) == reader


def test_fingerprints_are_what_their_names_say() -> None:
    toluene, xylene = "Cc1ccccc1", "Cc1ccccc1C"
    of = {n: MoleculeReader(fingerprint=n).convert([toluene, xylene]) for n in SIZES}
    of |= {
        n: MoleculeReader(fingerprint=n).convert([toluene, xylene])
        for n in ("ecfp", "count", "atompair", "torsion")
    }
    assert torch.equal((of["count"] > 0).float(), of["ecfp"])
    assert of["count"].max() >= 5  # aromatic CH
    assert of["atompair"].sum(1).tolist() == [21, 28]  # pairs of 7 and of 8 atoms
    assert of["descriptors"].abs().max() <= 3
    # pyridine and thiophene have other atoms, but the same pharmacophoric types
    assert not torch.equal(*MoleculeReader().convert(["Clc1ccccc1", "Brc1ccccc1"]))
    fcfp = MoleculeReader(fingerprint="fcfp")
    assert torch.equal(*fcfp.convert(["Clc1ccccc1", "Brc1ccccc1"]))
    wider = MoleculeReader(radius=0).convert([toluene])
    assert wider.sum() < of["ecfp"][0].sum()


def test_fingerprints_are_joined() -> None:
    reader = MoleculeReader(fingerprint="ecfp+count+descriptors", bits=256)
    assert reader.x_shape == (256 + 256 + 66,)
    x = reader.convert(MOLECULES)
    alone = [MoleculeReader(fingerprint=n, bits=256) for n in ("ecfp", "count")]
    ecfp, count = (r.convert(MOLECULES) for r in alone)
    assert torch.equal(x[:, :256], ecfp)
    scale = x[0, 256:512].sum() / count[0].sum()
    torch.testing.assert_close(x[:, 256:512], scale * count)
    assert 0.3 < float(scale) < 0.6  # counts are longer than bits
    for wrong in ("ecpf", "ecfp+", "ecfp+minilm", ""):
        with pytest.raises(InnerloopError, match="there is no fingerprint"):
            MoleculeReader(fingerprint=wrong)
    with pytest.raises(InnerloopError, match="named twice"):
        MoleculeReader(fingerprint="ecfp+ecfp")


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_molecules_are_ranked_without_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = table(
        tmp_path / "known.csv",
        "id,Canonical_SMILES,active\n1,CO,1\n2,CCO,1\n3,CCCCC,0\n4,CCCCCC,0\n",
    )
    new = table(
        tmp_path / "new.csv",
        "canonical_smiles,active\nCCCO,1\nCCCCCCC,0\nOCCO,1\nCCCC,0\n",
    )
    out = tmp_path / "out.csv"
    words = ["adapt", "--support", str(known), "--query", str(new), "--out", str(out)]
    assert main(words) == 0
    rows = [line.split(",") for line in out.read_text().splitlines()]
    assert rows[0][-2:] == ["probability_of_0", "probability_of_1"]
    ranking = sorted(rows[1:], key=lambda row: -float(row[-1]))
    assert {row[0] for row in ranking[:2]} == {"CCCO", "OCCO"}
    assert all(abs(float(a) + float(b) - 1) < 1e-5 for *_, a, b in rows[1:])
    assert "ROC-AUC 1.000" in capsys.readouterr().out
    assert main([*words, "--encoder", "maccs"]) == 0
    assert main([*words, "--encoder", "minilm"]) == 2
    assert "there is no fingerprint 'minilm'" in capsys.readouterr().err
    reader = reader_for(known)
    assert isinstance(reader, MoleculeReader)
    assert reader.fingerprint == "ecfp+descriptors"


def test_what_is_no_molecule_is_named_by_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = table(
        tmp_path / "s.csv",
        "structure,label\nCCO,1\n\nc1ccccc1,0\nCC(=O)[O-].[Na+],0\n[Pt](Cl)(Cl)(N)N,1\n",
    )
    new = table(tmp_path / "q.csv", "structure\nCCO\n\nxx\n[Na+].[Cl-]\n")
    out = tmp_path / "out.csv"
    words = ["adapt", "--support", str(known), "--query", str(new), "--out", str(out)]
    words += ["--smiles-column", "structure"]
    assert main(words) == 1
    assert "line 4: xx is not a valid SMILES" in capsys.readouterr().err
    assert len(out.read_text().splitlines()) == 3
    known.write_text(known.read_text() + "C1CC,1\n")
    assert main(words) == 2
    assert "line 7: C1CC is not a valid SMILES" in capsys.readouterr().err
    with pytest.raises(InnerloopError, match="smiles_column and label_column name"):
        MoleculeReader().read(known, labels=True)
