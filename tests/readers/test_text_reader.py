"""Texts as token numbers."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from innerloop.engine.errors import InnerloopError
from innerloop.readers.text import UNKNOWN, TextReader

CORPUS = [
    "low low low low low",
    "lower lower",
    "newest newest newest newest newest newest",
    "widest widest widest",
]


def test_frequent_pairs_are_merged() -> None:
    """The words of Sennrich et al. 2016, section 3.2, where `est` and `low` are found;
    here words begin with a space.
    """
    reader = TextReader.fitted(CORPUS, vocabulary=100)
    assert {"".join(pair) for pair in reader.merges[:4]} >= {"st", "est", "ow"}
    assert reader.tokens("low lowest") == [" low", " low", "est"]


def test_incremental_counts_are_counts() -> None:
    """Fitting updates the counts of pairs; counting them anew for every merge gives the
    same merges.
    """
    reader = TextReader.fitted(CORPUS, vocabulary=40)
    words = [list(" " + word) for line in CORPUS for word in line.split()]
    for merge in reader.merges:
        counts: dict[tuple[str, str], int] = {}
        for word in words:
            for pair in pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        assert merge == max(counts, key=lambda pair: (counts[pair], pair))
        for word in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == merge:
                    word[i : i + 2] = ["".join(merge)]
                i += 1


def test_tokens_are_numbers_with_padding() -> None:
    reader = TextReader.fitted(CORPUS, vocabulary=40, length=4)
    rows = reader.convert(["low", "zzz low", "low " * 9])
    assert rows.shape == (3, 4)
    assert rows.max() < reader.vocabulary
    assert rows[0].tolist()[1:] == [0, 0, 0]
    assert UNKNOWN in rows[1].tolist()
    assert (rows[2] == rows[0, 0]).all()
    again = TextReader.from_settings(json.loads(json.dumps(reader.settings())))
    assert again == reader
    assert torch.equal(again.convert(["lowest"]), reader.convert(["lowest"]))


def test_the_length_suits_the_texts() -> None:
    few = TextReader.fitted([f"word{i}" for i in range(20)])
    many = TextReader.fitted(["a b c d e f g h i j " * 4] * 20)
    endless = TextReader.fitted(["a b c d e f g h i j " * 400])
    assert (few.length, many.length, endless.length) == (8, 60, 128)
    assert TextReader.fitted(CORPUS, length=5).length == 5


def test_cut_texts_are_counted(tmp_path: Path) -> None:
    reader = TextReader.fitted(CORPUS, length=4)
    file = tmp_path / "texts.csv"
    file.write_text("text\nlow low\nlow low low low low\nlow low low low\n")
    inputs = reader.read(file, labels=False)
    assert inputs.note.startswith("1 of 3 texts have more than 4 tokens and were cut")
    assert "a run that is trained with a larger length" in inputs.note
    assert inputs.names[0] == "low low"


def test_texts_may_be_in_any_container() -> None:
    reader = TextReader.fitted(CORPUS, length=4)
    texts = ["low", "newest"]
    expected = reader.convert(texts)
    containers = [
        tuple(texts),
        np.array(texts),
        np.array(texts, dtype=object),
        np.array(texts, dtype=np.dtypes.StringDType()),
        np.array(texts)[:, None],
    ]
    for container in containers:
        assert torch.equal(reader.convert(container), expected)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": [1, 2], "text": texts})
    assert torch.equal(reader.convert(frame["text"]), expected)
    assert torch.equal(reader.convert(frame), expected)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("low", "a list of texts is expected.*got 'low'"),
        (7, "a list of texts is expected"),
        (["low", None], r"X\[1\] must be a text; got None"),
        (["low", 3.5], r"X\[1\] must be a text; got 3.5"),
        (["low", " "], r"X\[1\] must be a text"),
        (np.array([["low", "low"]]), r"X\[0\] must be a text"),
        ([], "0 texts"),
    ],
)
def test_what_is_no_text_is_named(X: object, message: str) -> None:
    with pytest.raises(InnerloopError, match=message):
        TextReader.fitted(CORPUS).convert(X)


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    file = tmp_path / "reviews.tsv"
    file.write_text("stars\tReview\n5 \tlow\n5\tnewest\n")
    reader = TextReader.fitted(CORPUS, text_column="review", label_column="stars")
    inputs = reader.read(file, labels=True)
    assert (inputs.names, inputs.labels) == (["low", "newest"], ["5", "5"])
    with pytest.raises(
        InnerloopError, match=r"no column 'text'.*has stars, Review; text_column"
    ):
        TextReader.fitted(CORPUS).read(file, labels=True)


def test_lines_without_a_text_are_named(tmp_path: Path) -> None:
    reader = TextReader.fitted(CORPUS)
    file = tmp_path / "texts.csv"
    file.write_text("text,label\nlow,a\n ,b\nlow,so,c\nnewest,a\n")
    inputs = reader.read(file, labels=False)
    assert (inputs.names, inputs.labels) == (["low", "newest"], ["a", "a"])
    assert inputs.unreadable == ("line 3 has no text", "line 4 has 3 cells")
    with pytest.raises(InnerloopError, match="line 4 has 3 cells: put quotes"):
        reader.read(file, labels=True)
    file.write_text("text,label\nlow,a\n ,b\n")
    with pytest.raises(InnerloopError, match="line 3 has no text"):
        reader.read(file, labels=True)
    file.write_text("text,label\nlow,a\nlow,\n")
    with pytest.raises(InnerloopError, match="no label in line 3"):
        reader.read(file, labels=True)
