"""Users' files with rows of cells: delimiters, encodings, headers, and what is said
about files that cannot be read.
"""

import csv
import gzip
import os
import zipfile
from pathlib import Path

import pytest

from innerloop.engine.errors import (
    InnerloopError,
    InnerloopFileError,
    MissingPackageError,
)
from innerloop.readers import files
from innerloop.readers.files import label_text, read_npz, read_sheet


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    rows = [["text", "label"], ["1,5; yes", "a"], ["no\tor, so; on", "b"], ["x", "c"]]
    file = tmp_path / "file.txt"
    with file.open("w", newline="") as opened:
        csv.writer(opened, delimiter=delimiter).writerows(rows)
    sheet = read_sheet(file)
    assert [list(sheet.columns), *sheet.rows] == rows


def test_a_file_with_one_column_has_no_delimiter(tmp_path: Path) -> None:
    sheet = read_sheet(write(tmp_path / "a.csv", "text\nwell, yes\n\nno; not\n"))
    assert (sheet.rows, sheet.lines) == ([["well, yes"], ["no; not"]], [2, 4])


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"]
)
def test_encodings_are_found(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "file.csv"
    write(file, "text,label\ncafé “à la crème”,straße\n".encode(encoding))
    sheet = read_sheet(file)
    assert sheet.columns == ("text", "label")
    assert sheet.rows == [["café “à la crème”", "straße"]]
    assert bool(sheet.notes) == (encoding == "cp1252")


def test_compressed_files_are_read(tmp_path: Path) -> None:
    file = write(tmp_path / "file.csv.gz", gzip.compress(b"a,y\n1,2\n"))
    assert read_sheet(file).rows == [["1", "2"]]
    half = write(tmp_path / "half.csv.gz", file.read_bytes()[:-9])
    with pytest.raises(InnerloopError, match=r"half\.csv\.gz cannot be read"):
        read_sheet(half)


def test_lines_are_counted_after_quoted_line_breaks(tmp_path: Path) -> None:
    text = 'text,label\n"one\ntwo\r\nthree",a\nx,b\nx,y,z\n'
    sheet = read_sheet(write(tmp_path / "a.csv", text))
    assert sheet.lines == [2, 5]
    with pytest.raises(InnerloopError, match=r"2 cells, but line 6 has 3 cells"):
        sheet.check()


def test_all_rows_of_another_width_are_named(tmp_path: Path) -> None:
    rows = ["a,b", "well, this,x", "a,b", "a", *["a,b"] * 9, *["a,b,c"] * 9]
    sheet = read_sheet(write(tmp_path / "a.csv", "text,label\n" + "\n".join(rows)))
    with pytest.raises(
        InnerloopError,
        match=r"line 3 has 3 cells, line 5 has 1 cell, line 15 .* and 6 more",
    ):
        sheet.check()
    assert len(sheet.rows) == 11


def test_long_cells_are_read(tmp_path: Path) -> None:
    long = "word " * 50_000  # csv refuses more than 131,072 characters by default
    sheet = read_sheet(write(tmp_path / "a.csv", f"text,label\n{long},a\n"))
    assert sheet.rows[0][0] == long


def test_an_open_quote_is_said(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", 'text,label\na,b\n"never closed,b\nc,d\n')
    with pytest.raises(InnerloopError, match=r"a\.csv, row from line 3: .*quote"):
        read_sheet(file)


def test_columns_are_found_in_any_case(tmp_path: Path) -> None:
    sheet = read_sheet(write(tmp_path / "a.csv", "Text, LABEL \nhello, A\nhi,A \n"))
    assert sheet.column("text") == ["hello", "hi"]
    assert sheet.labels("label") == ["A", "A"]
    with pytest.raises(InnerloopError, match=r"no column 'y'.* has Text, LABEL"):
        sheet.column("y")


def test_columns_with_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InnerloopError, match="several columns with the name a"):
        read_sheet(write(tmp_path / "a.csv", "a,a ,y\n1,2,3\n"))


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_row_numbers_of_pandas_are_no_column(tmp_path: Path, name: str) -> None:
    sheet = read_sheet(write(tmp_path / "a.csv", f"{name},a,y\n0,5,x\n1,6,z\n"))
    assert (sheet.columns, sheet.rows) == (("a", "y"), [["5", "x"], ["6", "z"]])
    assert "row numbers" in sheet.notes[0]
    with pytest.raises(InnerloopError, match="column 2 of the header has no name"):
        read_sheet(write(tmp_path / "b.csv", "a,,y\n1,2,3\n"))


def test_empty_labels_are_named(tmp_path: Path) -> None:
    sheet = read_sheet(write(tmp_path / "a.csv", "a,y\n1,x\n2,\n3, \n4,z\n"))
    with pytest.raises(InnerloopError, match="no y in line 3, 4:"):
        sheet.labels("y")


def test_labels_read_the_same_in_every_type() -> None:
    labels = ["A ", 1, 1.0, "1.50", 2.5, None, float("nan"), True, b"x"]
    assert [label_text(label) for label in labels] == [
        "A", "1", "1", "1.50", "2.5", "", "", "True", "x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"a,y\n", r"header \(a, y\) but no rows"),
        (b"\x00\x01\x02\x03a,y", "not a text file"),
        (b"a,y\n\x81\x8d,1\n", "neither as UTF-8 .line 2. nor as cp1252"),
        (b"PK\x03\x04 no archive", "cannot be read|needs openpyxl"),
        (b"PAR1 and nothing", "cannot be read|needs pyarrow"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "Excel 2003"),
        (b"\x1f\x8b broken", "cannot be read"),
    ],
)
def test_files_without_a_table_are_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(InnerloopError, match=message) as error:
        read_sheet(write(tmp_path / "file.csv", content))
    assert "file.csv" in str(error.value)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path, message in [
        (tmp_path / "gone.csv", "there is no file"),
        (tmp_path, "is a folder"),
        (tmp_path / "pipe.csv", "is a pipe or a device"),
        ("/dev/null", "is a pipe or a device"),
    ]:
        for read in (read_sheet, read_npz):
            with pytest.raises(InnerloopFileError, match=message):
                read(path)


def test_large_texts_are_refused_before_they_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 20)
    file = write(tmp_path / "a.csv.gz", gzip.compress(b"a,y\n" + b"1,2\n" * (1 << 19)))
    with pytest.raises(InnerloopError, match="more than 1 MiB of text"):
        read_sheet(file)


@pytest.mark.parametrize(
    ("start", "package"), [(b"PK\x03\x04", "openpyxl"), (b"PAR1", "pyarrow")]
)
def test_missing_packages_are_named(
    tmp_path: Path, start: bytes, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(files, "import_module", missing)
    expected = f"needs {package}: pip install .innerloop.files"
    with pytest.raises(MissingPackageError, match=expected):
        read_sheet(write(tmp_path / "table", start + b"rest"))


def test_workbooks_are_read(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [["size", "y", None], [1.5, 2, None], [], [None, "b ", None]]:
        book.active.append(row)
    book.create_sheet("other")
    book.save(tmp_path / "a.xlsx")
    sheet = read_sheet(tmp_path / "a.xlsx")
    assert (sheet.columns, sheet.lines) == (("size", "y"), [2, 4])
    assert sheet.rows == [[1.5, 2], [None, "b "]]
    assert sheet.labels("y") == ["2", "b"]
    assert "first of 2 sheets" in sheet.notes[0]


def test_parquet_files_are_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"size": [1.5, None], "y": ["a", "b"], "__index_level_0__": [7, 8]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    sheet = read_sheet(tmp_path / "a.parquet")
    assert (sheet.columns, sheet.lines) == (("size", "y"), [1, 2])
    assert sheet.rows == [[1.5, "a"], [None, "b"]]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"a": 1}\n{"a": }\n', "line 2, is not JSON"),
        ('[{"a": 1}, {"a"', "is not JSON"),
        ('[{"a": 1}', "is not JSON"),
        ('{"a": 1}\n7\n', "line 2: expected a JSON object .*; got 7"),
        ('["a"]', "line 1: expected a JSON object"),
        ("[]", "no JSON objects"),
        ("[" * 100_000, "cannot be read as a table"),
        ('[{"a": ' + "9" * 5000 + "}]", "cannot be read as a table"),
        ("", "is empty"),
        ("ab\0\0b", "zero bytes"),
    ],
)
def test_json_that_is_no_table_is_one_line(
    tmp_path: Path, content: str, why: str
) -> None:
    with pytest.raises(InnerloopError, match=why) as raised:
        read_sheet(write(tmp_path / "a.json", content))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value).replace(str(tmp_path), "")) < 300


def test_json_objects_may_have_different_keys(tmp_path: Path) -> None:
    text = '{"text": "a", "n": 1}\n\n{"label": "b", "text": "\\ud83c"}\n'
    sheet = read_sheet(write(tmp_path / "a.jsonl", text))
    assert sheet.columns == ("text", "n", "label")
    assert sheet.rows == [["a", 1, None], ["\ufffd", None, "b"]]
    assert sheet.lines == [1, 3]


def test_compressed_tables_that_grow_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [0] * 2000, "b": [0] * 2000})
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    monkeypatch.setattr(files, "MAX_BYTES", 100_000)
    monkeypatch.setattr(files, "MAX_CELLS", 3000)
    for name, why in (
        ("a.xlsx", "decompressed"),
        ("a.parquet", "4,000 cells"),
        ("a.jsonl", "4,000 cells"),
    ):
        with pytest.raises(InnerloopError, match=why):
            read_sheet(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("a.txt", "x")
    with pytest.raises(InnerloopError, match="an archive and not a workbook"):
        read_sheet(tmp_path / "a.zip")
