"""Texts as token numbers."""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from innerloop.engine.errors import InnerloopError
from innerloop.readers import text as module
from innerloop.readers.text import UNKNOWN, TextReader, Texts, read_texts

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


# ------------------------------------------------------------------ texts in files

MANY = {
    "animals/1.txt": "low 狗和猫",
    "animals/deep/2.txt": "مرحبا بالعالم",
    "food/3.txt": "newest 🍕🍝",
}


def texts_in_files(root: Path) -> Path:
    for name, text in MANY.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"\n{text}\n", encoding="utf-8")
    return root


def packed(root: Path, around: str = "") -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as opened:
        for file in sorted(root.rglob("*.*")):
            opened.write(file, around + file.relative_to(root).as_posix())
    return path


@pytest.mark.parametrize("labels", [True, False])
def test_a_folder_or_archive_of_texts_is_read(tmp_path: Path, labels: bool) -> None:
    reader = TextReader.fitted([*CORPUS, *MANY.values()])
    root = texts_in_files(tmp_path / "texts")
    for path in (root, packed(root), packed(root, "around/")):
        found = reader.read(path, labels=labels)
        assert [name.removeprefix("around/") for name in found.names] == list(MANY)
        assert found.labels == ["animals", "animals", "food"]
        assert torch.equal(found.x, reader.convert(list(MANY.values())))
        assert found.unreadable == ()
    (root / "loose.txt").write_text("low")
    assert reader.read(root, labels=False).labels is None
    assert len(reader.read(root, labels=False).x) == 4


def test_texts_in_files_have_any_encoding(tmp_path: Path) -> None:
    text = "café “naïve” straße"
    encodings = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252")
    for encoding in encodings:
        (tmp_path / f"{encoding}.txt").write_bytes(text.encode(encoding))
    found = read_texts(tmp_path, "text", "label", labels=False)
    assert found.texts == [text] * 6
    assert found.notes == (
        "texts that are not UTF-8 and were read as cp1252: cp1252.txt",
    )


def test_texts_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TEXT", 100)
    reader = TextReader.fitted(CORPUS)
    root = texts_in_files(tmp_path / "texts")
    bad = {
        "empty": b" \n",
        "zeros": b"\0\1\2\0",
        "large": b"x" * 101,
        "odd": b"\x81\xff",
    }
    for name, content in bad.items():
        (root / "food" / f"{name}.txt").write_bytes(content)
    (root / "food" / "report.pdf").write_bytes(b"%PDF")
    for path in (root, packed(root)):
        found = reader.read(path, labels=True)
        assert len(found.x) == 3
        assert sorted(line.split(":")[0] for line in found.unreadable) == sorted(
            [*(f"food/{name}.txt" for name in bad), "food/report.pdf"]
        )
        lines = " ".join(found.unreadable)
        for why in ("it has no text", "zero bytes", "more than 0 MiB", "save it as"):
            assert why in lines
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "1.txt").write_text("x")
    with pytest.raises(InnerloopError, match=r"no class folders.*CLASS/text\.txt"):
        reader.read(tmp_path / "flat", labels=True)


def test_an_archive_may_hold_one_table_of_texts(tmp_path: Path) -> None:
    root = tmp_path / "texts"
    root.mkdir()
    (root / "texts.jsonl").write_text('{"text": "low", "label": "a"}\n')
    found = TextReader.fitted(CORPUS).read(packed(root, "data/"), labels=True)
    assert (found.names, found.labels) == (["low"], ["a"])


ANY_LANGUAGE = ["狗和猫", "مرحبا بالعالم", "🍕 pizza 🍝", "नमस्ते", "low"]


@pytest.mark.parametrize("form", ["lines", "list", "indented"])
def test_json_objects_are_texts_in_any_language(tmp_path: Path, form: str) -> None:
    rows = [{"text": text, "label": str(i)} for i, text in enumerate(ANY_LANGUAGE)]
    file = tmp_path / ("texts.jsonl" if form == "lines" else "texts.json")
    if form == "lines":
        content = "\n\n".join(json.dumps(row) for row in rows)
    else:
        content = json.dumps(
            rows, ensure_ascii=False, indent=2 if form == "indented" else None
        )
    file.write_text(content, encoding="utf-8")
    reader = TextReader.fitted(ANY_LANGUAGE)
    found = reader.read(file, labels=True)
    assert (found.names, found.labels) == (ANY_LANGUAGE, [*"01234"])
    assert UNKNOWN not in found.x
    other = reader.with_columns(text_column="label", label_column="text")
    assert other.read(file, labels=False).names == [*"01234"]
    assert reader.with_columns(text_column="text") is reader


@dataclass(frozen=True)
class Lengths(Texts):
    """Texts as their lengths: a subclass as of pretrained encoders."""

    text_column: str = "text"
    label_column: str = "label"
    kind = "lengths"

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (2,)

    def encode(self, texts: Sequence[str]) -> tuple[torch.Tensor, int]:
        found = torch.tensor([[len(text), len(text.split())] for text in texts])
        return found.float(), sum(len(text) > 20 for text in texts)

    def cut_note(self, cut: int, of: int) -> str:
        return f"{cut} of {of} are long"


def test_a_subclass_says_what_becomes_of_a_text(tmp_path: Path) -> None:
    reader = Lengths(text_column="review")
    (tmp_path / "a.csv").write_text("review,label\nlow low,a\n" + "x" * 21 + ",b\n")
    found = reader.read(tmp_path / "a.csv", labels=True)
    assert found.x.tolist() == [[7, 2], [21, 1]]
    assert (found.labels, found.note) == (["a", "b"], "1 of 2 are long")
    assert reader.convert(["low"]).tolist() == [[3, 1]]
    with pytest.raises(InnerloopError, match="length is an option of token readers"):
        reader.check_length(9)
    assert Lengths.from_settings(reader.settings()) == reader


def test_only_the_beginning_of_a_long_text_is_split_into_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = TextReader.fitted(CORPUS, length=4)
    merged: list[object] = []
    original = module._merged
    monkeypatch.setattr(module, "_merged", lambda *a: merged.append(a) or original(*a))
    x, cut = reader.encode([" ".join(f"low{i}" for i in range(1000))])
    assert (cut, x.shape) == (1, (1, 4))
    assert len(merged) < 50
