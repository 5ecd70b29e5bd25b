"""Rows of tables as vectors."""

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.readers.table import MAX_WORDS, TableReader, label_texts


def reader_of(name: str, cells: list[Any]) -> TableReader:
    return TableReader.fitted({name: cells})


def values(cells: list[Any]) -> list[float]:
    """The numbers that a column was read as, before they were standardized."""
    column = reader_of("a", cells).columns[0]
    assert column.kind in ("numbers", "dates"), column
    return [round(v, 9) for v in column.values(cells).tolist()]


def read(tmp_path: Path, text: str, **options: Any) -> Any:
    """What a fitted reader reads from the file that it was fitted to."""
    file = tmp_path / "table.csv"
    file.write_text(text)
    header, *rows = (line.split(";") for line in text.splitlines())
    cells = {name: list(column) for name, column in zip(header, zip(*rows))}  # noqa: B905
    cells.pop("y", None)
    return TableReader.fitted(cells, **options).read(file, labels="y" in header)


def test_numbers_words_and_gaps_of_a_table() -> None:
    rows = [
        {"a": "1", "b": "red", "c": "5"},
        {"a": "", "b": "blue ", "c": "7"},
        {"a": "3", "b": "?", "c": "6"},
        {"a": "1", "b": "blue", "c": "5"},
        {"a": "3", "b": "red", "c": "7"},
        {"a": "100", "b": "green", "c": "nan"},
    ]
    cells = {name: [row[name] for row in rows] for name in "abc"}
    # the last row does not train: its number, word and gap shape the layout alone
    reader = TableReader.fitted(cells, range(5))
    a, b, c = reader.columns
    assert (a.kind, a.mean, a.deviation, a.gaps) == ("numbers", 2.0, 1.0, True)
    assert (b.kind, b.words) == ("words", ("blue", "red"))
    assert (c.mean, c.deviation) == (6.0, pytest.approx(0.8**0.5))
    x = reader.convert(rows)
    expected = [[-1.0, 0], [0, 1], [1, 0], [-1, 0], [1, 0], [98, 0]]
    assert x[:, :2].tolist() == expected
    assert x[:, 2:4].tolist() == [[0, 1], [1, 0], [0, 0], [1, 0], [0, 1], [0, 0]]
    assert x[5, 4:].tolist() == [0, 1]
    again = TableReader.from_settings(json.loads(json.dumps(reader.settings())))
    assert again == reader
    assert torch.equal(again.convert(rows), x)
    # the columns of a row may come in another order, and in another case
    swapped = [{"C": row["c"], "b": row["b"], " A": row["a"]} for row in rows]
    assert torch.equal(reader.convert(swapped), x)
    assert torch.equal(reader.convert(cells), x)
    with pytest.raises(InnerloopError, match="rows of a table are needed"):
        reader.convert([[1.0, 2.0]])
    with pytest.raises(
        InnerloopError, match="row 1 has 'many' in column c, which holds numbers"
    ):
        reader.convert([{"a": 1, "b": "red", "c": "many"}])
    with pytest.raises(InnerloopError, match="row 1 has no column b, c"):
        reader.convert([{"a": 1}])


def test_a_constant_column_is_not_scaled() -> None:
    reader = reader_of("a", ["0.1"] * 7)
    assert reader.convert([{"a": 0.2}]).tolist() == [[pytest.approx(0.1)]]


def test_small_numbers_are_no_constants() -> None:
    x = reader_of("a", [1e-12, 3e-12]).convert([{"a": 1e-12}, {"a": 3e-12}])
    assert x.flatten().tolist() == pytest.approx([-1.0, 1.0])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1,137", "2,250.5", "3"], [1137, 2250.5, 3]),
        (["12,5", "9,75", "13"], [12.5, 9.75, 13]),
        (["0,125", "2,250"], [0.125, 2.25]),
        (["1.137,5", "2.250,25", "7"], [1137.5, 2250.25, 7]),
        (["3.1%", "50 %", "0.2"], [0.031, 0.5, 0.2]),
        (["$1,200", "-$3.50", "4 €", "£5"], [1200, -3.5, 4, 5]),
        (["1'137", "1 137", "1\u00a0137", "−5"], [1137, 1137, 1137, -5]),
        (["1e3", ".5", "+2", "7."], [1000, 0.5, 2, 7]),
        ([1, 2.5, np.float32(0.5), np.int64(3)], [1, 2.5, 0.5, 3]),
    ],
)
def test_numbers_are_read_as_people_write_them(
    cells: list[Any], expected: list[float]
) -> None:
    assert values(cells) == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1970-01-02", "1970-01-31 12:00", "1969-12-31T00:00:00Z"], [1, 30.5, -1]),
        (["02.01.1970", "31.1.1970"], [1, 30]),
        (["1/2/1970", "1/31/1970"], [1, 30]),
        (["2/1/1970", "31/1/1970"], [1, 30]),
        ([datetime.date(1970, 1, 2), np.datetime64("1970-01-31")], [1, 30]),
        (["1970-01-02 01:00:00+01:00", "1970-01-03"], [1, 2]),
    ],
)
def test_dates_are_days(cells: list[Any], expected: list[float]) -> None:
    assert values(cells) == expected


def test_one_typo_leaves_a_column_of_numbers(tmp_path: Path) -> None:
    rows = "".join(f"{i}.5;x\n" for i in range(9))
    inputs = read(tmp_path, f"size;y\n{rows}12..3;x\n")
    assert inputs.x.shape == (10, 2)  # the number, and whether it is missing
    assert inputs.x[9].tolist() == [0, 1]
    assert "numbers: size" in inputs.note
    assert "'12..3' in column size, which holds numbers (line 11)" in inputs.note


def test_the_reader_says_what_every_column_was_taken_for(tmp_path: Path) -> None:
    text = "a;price;when;color;id;none;y\n" + "".join(
        f"{i};{i},5;0{i}.01.2024;{'red' if i % 2 else 'blue'};id{i};;x\n"
        for i in range(1, 9)
    )
    assert read(tmp_path, text).note == (
        "numbers: a, price (decimal comma); dates: when (day first); words: color "
        "(2 words); unused: id (all words differ), none (empty)"
    )


def test_separators_of_thousands_are_said(tmp_path: Path) -> None:
    note = read(tmp_path, "a;y\n1,137;x\n2,250;x\n").note
    assert "',' separates thousands in a" in note


def test_the_words_of_a_column_are_bounded() -> None:
    n = 20_000
    cells = {"id": [f"id{i}" for i in range(n)], "size": [1.0] * n}
    reader = TableReader.fitted(cells)
    assert reader.convert(cells).shape == (n, 1)
    often = [f"w{i % 300}" for i in range(n)] + ["common"] * 3000
    words = reader_of("a", often).columns[0].words
    assert len(words) == MAX_WORDS
    assert "common" in words


def test_a_table_without_features_is_refused() -> None:
    with pytest.raises(InnerloopError, match=r"no column of features.*all words"):
        reader_of("id", ["a", "b", "c"])


def test_whole_numbers_as_words_match_in_every_form() -> None:
    reader = reader_of("a", ["1", "1", "x", "y", "x", "y", "x"])
    assert reader.columns[0].words == ("1", "x", "y")
    rows = [{"a": cell} for cell in ("1", "1.0", 1, 1.0, "x ", "X")]
    assert reader.convert(rows).tolist() == [[1.0, 0, 0]] * 4 + [[0, 1, 0], [0, 0, 0]]


def test_infinity_is_a_word_among_words_and_refused_among_numbers(
    tmp_path: Path,
) -> None:
    names = ["Infinity", "Dune", "Infinity", "Dune", "Alien", "Alien"]
    assert "Infinity" in reader_of("film", names).columns[0].words
    with pytest.raises(InnerloopError, match="line 4: inf in column a is infinite"):
        read(tmp_path, "a;y\n1;x\n2;x\ninf;x\n")


def test_numbers_beyond_float32_are_named(tmp_path: Path) -> None:
    with pytest.raises(InnerloopError, match="line 3: 1e39 in column a is too large"):
        read(tmp_path, "a;y\n1;x\n1e39;x\n2;x\n")
    reader = reader_of("a", [1.0, 2.0])
    with pytest.raises(InnerloopError, match="row 2 has 1e39 in column a is too large"):
        reader.convert([{"a": 1}, {"a": "1e39"}])


def test_numbers_are_centered_in_float64() -> None:
    cells = [1e7 + 0.1 * i for i in range(8)]
    x = reader_of("a", cells).convert(np.array(cells)[:, None])
    expected = (np.arange(8) - 3.5) / np.arange(8).std()
    torch.testing.assert_close(
        x[:, 0], torch.tensor(expected).float(), atol=1e-5, rtol=0
    )


def test_arrays_that_lose_their_differences_are_refused() -> None:
    x = np.stack([np.arange(8.0), 1e7 + 0.1 * np.arange(8)], 1)
    with pytest.raises(InnerloopError, match="feature 1 of x loses its differences"):
        TableReader.of_array(x, range(8), standardize=False)
    scaled = TableReader.of_array(x, range(8), standardize=True).convert(x)
    torch.testing.assert_close(scaled[:, 0], scaled[:, 1], atol=1e-5, rtol=0)


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(InnerloopTypeError, match="complex"):
        reader_of("a", [1 + 2j, 3.0])
    with pytest.raises(InnerloopTypeError, match="complex"):
        label_texts(np.array([1j, 2j]), 2)


def test_rows_that_cannot_be_read_are_named_and_the_others_are_read(
    tmp_path: Path,
) -> None:
    reader = TableReader.fitted({"a": [1.0, 3.0], "b": [1.0, 3.0]})
    file = tmp_path / "query.csv"
    file.write_text("b,A\n1,1\n1\n1,1e39\n3,3\n")
    inputs = reader.read(file, labels=False)
    assert inputs.x.tolist() == [[-1, -1], [1, 1]]
    assert inputs.names == ["2", "5"]
    assert inputs.unreadable == (
        "line 3: has 1 cell",
        "line 4: 1e39 in column a is too large for float32",
    )
    assert inputs.labels is None
    file.write_text("a,b\n1,1\n")
    with pytest.raises(InnerloopError, match="no column 'y'"):
        reader.read(file, labels=True)
    file.write_text("y,a,b\nu ,1,1\nv,3,3\n")
    assert reader.read(file, labels=False).labels == ["u", "v"]
    file.write_text("y,a,b\n,1,1\nv,3,3\n")
    assert reader.read(file, labels=False).labels is None
    with pytest.raises(InnerloopError, match="no y in line 2"):
        reader.read(file, labels=True)


def test_frames_and_tensors_are_rows(tmp_path: Path) -> None:
    reader = TableReader.fitted({"a": [1.0, 3.0], "b": [1.0, 3.0]})
    expected = [[-1.0, 1.0]]
    for X in (
        torch.tensor([[1.0, 3.0]], dtype=torch.bfloat16),
        torch.tensor([[1, 3]]),
        np.array([["1", "3"]]),
        [[1, 3]],
        {"b": [3], "a": [1]},
    ):
        assert reader.convert(X).tolist() == expected
    pandas = pytest.importorskip("pandas")
    assert reader.convert(pandas.DataFrame({"b": [3], "a": [1]})).tolist() == expected


def test_durations_are_numbers_of_days() -> None:
    days = [datetime.timedelta(days) for days in (2, 0.5, 0)]
    reader = TableReader.fitted({"wait": days}, standardize=False)
    assert reader.convert({"wait": days}).tolist() == [[2], [0.5], [0]]
    in_numpy = np.array([48, 12, 0], "timedelta64[h]")
    assert torch.equal(
        reader.convert({"wait": in_numpy}), reader.convert({"wait": days})
    )
    gap = np.array([48, "NaT"], "timedelta64[h]")
    assert TableReader.fitted({"wait": gap}, standardize=False).columns[0].gaps


def test_a_missing_column_says_what_it_is_for(tmp_path: Path) -> None:
    reader = TableReader.fitted({"age": [1, 2], "size": [3, 4]})
    (tmp_path / "a.csv").write_text("age,y\n1,a\n")
    with pytest.raises(InnerloopError, match=r"no column .size.*takes features from"):
        reader.read(tmp_path / "a.csv", labels=True)


def test_json_objects_are_rows(tmp_path: Path) -> None:
    rows = '{"age": 1, "city": "Rome", "y": "a"}\n{"age": null, "y": "b"}\n'
    (tmp_path / "a.jsonl").write_text(rows)
    reader = TableReader.fitted(
        {"age": [0.0, None], "city": ["Rome", "Rome"]}, standardize=False
    )
    found = reader.read(tmp_path / "a.jsonl", labels=True)
    assert found.x.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert found.labels == ["a", "b"]
