"""`innerloop synthesize`: the columns of docs/synthesis.md as they are printed there,
files, and bad input.
"""

import csv
import re
import time
from pathlib import Path

import pytest
import torch

import innerloop
from innerloop.cli import main
from innerloop.runs import Run
from innerloop.tasks import string_programs

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "synthesis.md").read_text(
    "utf-8"
)
COLUMNS = re.findall(
    r"`(\w+)\.csv`:\n\n```csv\n(.*?)```\n\n`[^`]*` prints\n\n```text\n(.*?)```",
    PAGE,
    re.S,
)
NAMES = (
    'name,output\nAda Lovelace,"Lovelace, A."\nGrace Hopper,"Hopper, G."\n'
    "Emmy Noether,\nPlato,\n"
)


def table(folder: Path, text: str) -> str:
    (folder / "table.csv").write_text(text, "utf-8")
    return str(folder / "table.csv")


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a failing command prints."""
    assert main(["synthesize", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_the_page_has_five_columns() -> None:
    assert [name for name, *_ in COLUMNS] == [
        "names",
        "dates",
        "phones",
        "mails",
        "codes",
    ]


SLOW = ("phones", "names")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        pytest.param(*rest, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, *rest in COLUMNS
    ],
)
def test_columns_come_out_as_the_page_says(
    text: str, printed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["synthesize", "--examples", table(tmp_path, text), "--seconds", "60"])
        == 0
    )
    assert capsys.readouterr().out == printed


def test_rows_are_filled_and_what_is_not_found_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "filled.csv"
    assert (
        main(["synthesize", "--examples", table(tmp_path, NAMES), "--out", str(out)])
        == 0
    )
    with out.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["name"] for row in rows] == [
        "Ada Lovelace",
        "Grace Hopper",
        "Emmy Noether",
        "Plato",
    ]
    assert rows[0]["output"] == "Lovelace, A."
    assert rows[2]["output"] == "Noether, E."
    printed = capsys.readouterr().out
    assert "'Emmy Noether' gives 'Noether, E.'" in printed
    assert "1 of 2 rows filled" in printed


def test_a_guide_that_finds_nothing_leaves_time_to_enumerate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow:
        def version_space(
            self, inputs: list[str], outputs: list[str], seconds: float, wanted: int
        ) -> None:
            end = time.process_time() + seconds
            while time.process_time() < end:
                pass

    monkeypatch.setattr("innerloop.synthesis.guide", lambda run: Slow())
    assert (
        innerloop.synthesize([("a-b", "b"), ("c-d", "d")], run="a run", seconds=2.0)(
            "e-f"
        )
        == "f"
    )


def test_a_filled_table_keeps_its_columns(tmp_path: Path) -> None:
    out = tmp_path / "filled.csv"
    assert (
        main(
            [
                "synthesize",
                "--examples",
                table(tmp_path, "output,a\ny,x-y\nr,q-r\n,p-s\n"),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert out.read_text("utf-8").split() == ["output,a", "y,x-y", "r,q-r", "s,p-s"]


def test_constants_may_be_long_and_are_printed_as_they_are() -> None:
    found = innerloop.synthesize(
        [("ada", "ada@mail.example.org:key:"), ("bob", "bob@mail.example.org:key:")]
    )
    assert found("eve") == "eve@mail.example.org:key:"


def test_no_row_is_lost_and_what_is_missing_or_in_doubt_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        "a-17:key:,17:key:",
        "bcd-2:key:,2:key:",
        *(f"c-{n}:key:," for n in range(30)),
        ",",
        "nothing here,",
        f"{'x' * 1001}-3:key:,",
    ]
    out = tmp_path / "filled.csv"
    assert (
        main(
            [
                "synthesize",
                "--examples",
                table(tmp_path, "\n".join(["a,output", *rows, ""])),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    with out.open(encoding="utf-8", newline="") as opened:
        filled = list(csv.reader(opened))
    assert [row[0] for row in filled[1:]] == [row.split(",")[0] for row in rows]
    printed = capsys.readouterr().out
    assert "'nothing here' gives nothing: the program does not find" in printed
    assert "gives nothing: a text may have 1000 characters" in printed
    assert ":key:" in printed
    assert f"{sum(bool(row[1]) for row in filled[1:]) - 2} of 33 rows filled" in printed


def test_doubt_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One example, and many readings of it."""
    assert (
        main(["synthesize", "--examples", table(tmp_path, "a,output\nx-y,y\np-q-r,\n")])
        == 0
    )
    printed = capsys.readouterr().out
    assert "disagree on 1 of 1 rows" in printed
    assert re.search(r"gives 'r'  \(agreement \d+ %\)", printed)


def test_in_python() -> None:
    found = innerloop.synthesize([(("ada", "x"), "ADA/x"), (("bob", "yy"), "BOB/yy")])
    assert found(("eve", "z")) == "EVE/z"
    assert found("eve|z") == "EVE/z"
    assert 0 < sum(share for _, share in found.programs) <= 1
    assert len(found.programs) == 20 < found.fits
    assert 0 < found.agreement("eve|z") <= 1
    assert found.programs[0][0] == found.program


@pytest.fixture
def run_folder(tmp_path: Path) -> str:
    """An untrained run."""
    torch.manual_seed(0)
    tasks = string_programs()
    fields = {"width": 16, "heads": 2, "layers": 1, "hidden": 16}
    experiment = innerloop.Experiment(
        innerloop.Choice("robustfill", fields),
        innerloop.Choice("string-programs", {"shots": 4, "queries": 6}),
        spec=tasks.spec,
    )
    run = Run(tmp_path / "run")
    with run.locked():
        run.create(experiment.as_dict())
    run.save_weights(experiment.build_learner().state_dict())
    return str(tmp_path / "run")


def test_a_run_guides_the_search(
    run_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = table(
        tmp_path,
        "a,output\nx-y,y\nzz-w,w\nlong text of more than thirty-two characters-q,q\n",
    )
    assert main(["synthesize", "--examples", given, "--run", run_folder]) == 0
    assert "program: " in capsys.readouterr().out


def test_a_run_is_tested_beside_enumeration(
    run_folder: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = "innerloop.learners.synthesis.robustfill"
    monkeypatch.setattr(f"{module}.READY", 5000)
    test = ["test", run_folder, "--program-search", "--tasks", "3", "--seconds", "0.2"]
    figures = tmp_path / "figures.json"
    assert main([*test, "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("guided", "enumeration"))
    assert "solved" in figures.read_text()
    assert main([*test, "--no-compare"]) == 0
    assert "enumeration" not in capsys.readouterr().out
    assert main(["test", run_folder, "--on", "sinusoid"]) == 2
    assert "was trained for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("name,result\na,b\n", "needs a header"),
        ("output\nb\n", "needs a header"),
        ("a,a,output\n1,2,3\n", "several columns with the name a"),
        ("a,output\n1,2,3\n", "line 2 has 3 cells"),
        ("a,output\n1,\n", "no row of .* has an output"),
        ("a,output\n1,2\n1,3\n", "contradict each other"),
        ("a,output\nab,x\ncd,yy\n", "no program was found that fits the 2 examples"),
    ],
)
def test_bad_tables_are_refused(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(
        said, fails(capsys, "--examples", table(tmp_path, text), "--seconds", "0.3")
    )


def test_other_bad_input_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no file" in fails(capsys, "--examples", str(tmp_path / "none.csv"))
    given = table(tmp_path, NAMES)
    assert "not a finite" in fails(capsys, "--examples", given, "--seconds", "nan")
    assert "no folder" in fails(
        capsys, "--examples", given, "--out", str(tmp_path / "none" / "x.csv")
    )
    assert "no run folder" in fails(
        capsys, "--examples", given, "--run", str(tmp_path / "none")
    )
    (tmp_path / "table.csv").write_bytes(b"a,output\n\x00\xff\x81,x\n")
    assert "not a text file" in fails(capsys, "--examples", str(tmp_path / "table.csv"))
    with pytest.raises(ValueError, match="there is no example"):
        innerloop.synthesize([])
    with pytest.raises(ValueError, match="has no output"):
        innerloop.synthesize([("a", "")])
    with pytest.raises(ValueError, match="1000 characters"):
        innerloop.synthesize([("a" * 1001, "b")])


def test_tables_of_any_delimiter_and_encoding_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = tmp_path / "table.tsv", tmp_path / "out.csv"
    given.write_bytes("name\tOutput\nJos\xe9-a\ta\n\xe9-b\t\n".encode("cp1252"))
    assert main(["synthesize", "--examples", str(given), "--out", str(out)]) == 0
    assert "was read as cp1252" in capsys.readouterr().out
    assert out.read_text() == "name,output\nJos\xe9-a,a\n\xe9-b,b\n"


def test_no_cell_is_written_that_a_spreadsheet_runs(tmp_path: Path) -> None:
    given, out = tmp_path / "table.csv", tmp_path / "out.csv"
    given.write_text("name,output\nx =A1,=A1\ny =B2,\nz -3,-3\n")
    assert main(["synthesize", "--examples", str(given), "--out", str(out)]) == 0
    assert out.read_text().splitlines()[1:] == ["x =A1,'=A1", "y =B2,'=B2", "z -3,-3"]
