"""Texts as tokens, their tasks, and the way from a file to labels."""

import csv
import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from innerloop.cli import main
from innerloop.estimators import FewShotClassifier
from innerloop.runs import Run, reader
from innerloop.tasks import Tokenizer, clinc, cloze, text
from innerloop.tasks.text import DOMAINS, read_texts, requests
from innerloop.readers.text import UNKNOWN

CORPUS = [
    "low low low low low",
    "lower lower",
    "newest newest newest newest newest newest",
    "widest widest widest",
]
real = pytest.mark.skipif(
    not os.environ.get("INNERLOOP_DATA"),
    reason="INNERLOOP_DATA does not say where CLINC150 is",
)


def test_frequent_pairs_are_merged() -> None:
    """The words of Sennrich et al. 2016, section 3.2, where `est` and `low` are found;
    here words begin with a space.
    """
    tokenizer = Tokenizer.trained(CORPUS, size=100)
    assert {"".join(pair) for pair in tokenizer.merges[:4]} >= {"st", "est", "ow"}
    assert tokenizer.tokens("low lowest") == [" low", " low", "est"]


def test_incremental_counts_are_counts() -> None:
    """Training counts pairs by and by; counting them anew for every merge gives the
    same merges.
    """
    tokenizer = Tokenizer.trained(CORPUS, size=40)
    words = [list(" " + word) for line in CORPUS for word in line.split()]
    for merge in tokenizer.merges:
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
    tokenizer = Tokenizer.trained(CORPUS, size=40, length=4)
    rows = tokenizer.read_all(["low", "zzz low", "low " * 9])
    assert rows.shape == (3, 4)
    assert rows.max() < tokenizer.size
    assert rows[0].tolist()[1:] == [0, 0, 0]
    assert UNKNOWN in rows[1].tolist()
    assert (rows[2] == rows[0, 0]).all()
    again = Tokenizer(**tokenizer.settings())
    assert again == tokenizer
    assert torch.equal(again.read_all(["lowest"]), tokenizer.read_all(["lowest"]))


@real
def test_clinc_splits_by_domain() -> None:
    assert sorted(domain for some in DOMAINS.values() for domain in some) == sorted(
        requests()
    )
    banks = {part: clinc(part, ways=2).bank for part in DOMAINS}
    assert [len(bank) for bank in banks.values()] == [90, 15, 45]
    names = [name for bank in banks.values() for name in bank.names]
    assert len(set(names)) == 150
    task = clinc("test", ways=5, shots=2, queries=3).sample(
        2, torch.Generator().manual_seed(0)
    )
    assert task.support.x.shape == (2, 10, 24)
    spec = clinc("test").spec
    assert task.query.x.max() < spec.vocabulary == 2000


def own_file(folder: Path) -> Path:
    words = {
        f"class{i}": [
            f"{word} {other}" for other in ("please", "now", "today", "again")
        ]
        for i, word in enumerate("abcdefghijklmno")
    }
    with (folder / "texts.csv").open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label"])
        writer.writerows(
            (entry, label) for label, some in words.items() for entry in some
        )
    return folder / "texts.csv"


def test_own_texts_go_from_file_to_labels(tmp_path: Path) -> None:
    file = own_file(tmp_path)
    assert (
        len(text("train", file=file, ways=2, queries=2).bank)
        + len(text("val", file=file, ways=2, queries=2).bank)
        == 12
    )
    run = str(tmp_path / "run")
    assert (
        main(
            [
                "train",
                "protonet",
                "text",
                "--file",
                str(file),
                "--steps",
                "3",
                "--ways",
                "3",
                "--queries",
                "2",
                "--out",
                run,
            ]
        )
        == 0
    )
    other = tmp_path / "other.csv"
    other.write_text(
        "text,label\n"
        + "".join(
            f"zz{i} {word},label{i}\n" for i in range(12) for word in ("qq", "ww", "ee")
        )
    )
    again = [
        "train",
        "protonet",
        "text",
        "--file",
        str(other),
        "--from",
        run,
        "--steps",
        "1",
        "--ways",
        "2",
        "--queries",
        "1",
    ]
    assert main([*again, "--out", str(tmp_path / "second")]) == 0
    # its embeddings are of these tokens
    assert Run(tmp_path / "second").settings().reads == Run(run).settings().reads
    assert Run(run).settings().distribution(
        "val", file=other, ways=1, queries=1
    ).bank.reader == reader(Run(run).settings().reads)
    with pytest.raises(ValueError, match="24 tokens"):
        text(
            "train",
            file=file,
            ways=2,
            queries=1,
            length=12,
            reader=reader(Run(run).settings().reads),
        )
    table = tmp_path / "table.csv"
    table.write_text("y,size\n" + "".join(f"{i % 12},{i}\n" for i in range(48)))
    assert (
        main(
            [
                "train",
                "protonet",
                "arrays",
                "--file",
                str(table),
                "--from",
                run,
                "--steps",
                "1",
                "--out",
                str(tmp_path / "none"),
            ]
        )
        == 2
    )
    query = tmp_path / "query.csv"
    query.write_text("text\na now\nb now\n")
    assert (
        main(
            [
                "adapt",
                run,
                "--support",
                str(file),
                "--query",
                str(query),
                "--out",
                str(tmp_path / "out.csv"),
            ]
        )
        == 0
    )
    with (tmp_path / "out.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert [row["text"] for row in rows] == ["a now", "b now"]
    assert {row["label"] for row in rows} <= {f"class{i}" for i in range(15)}
    classifier = FewShotClassifier(run).fit(["a please", "b please"], ["x", "y"])
    classifier.save(tmp_path / "kept")
    again = FewShotClassifier.load(tmp_path / "kept")
    assert (
        again.predict_proba(["a now", "c"]) == classifier.predict_proba(["a now", "c"])
    ).all()


def test_texts_are_refused_with_reasons(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_texts(tmp_path / "nothing.csv")
    (tmp_path / "bad.csv").write_text("words,label\na,b\n")
    with pytest.raises(ValueError, match="columns text and label"):
        read_texts(tmp_path / "bad.csv")
    (tmp_path / "empty.csv").write_text("text,label\n ,b\n")
    with pytest.raises(ValueError, match="empty text or label in line 2"):
        read_texts(tmp_path / "empty.csv")
    with pytest.raises(ValueError, match="only a learner from a run on texts"):
        FewShotClassifier().fit(["a", "b"], ["x", "y"])


def test_a_gap_is_one_token_that_its_text_had(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    texts = ["pay my bill", "what is new", "call me back"]  # of other words each
    file.write_text("text\n" + "\n".join(texts) + "\n")
    tasks = cloze(file=file).labelled(20)
    whole = {tuple(row.tolist()) for row in tasks.reader.read_all(texts)}
    query = tasks.sample(3, torch.Generator().manual_seed(0)).query
    assert query.y.shape == (3, 20, tasks.spec.y_dim)
    for x, y in zip(query.x.flatten(0, 1), query.y.flatten(0, 1), strict=True):
        assert int((x == UNKNOWN).sum()) == 1
        assert tuple(torch.where(x == UNKNOWN, y.argmax().float(), x).tolist()) in whole


def test_texts_with_a_gap_are_for_learners_of_fixed_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "texts.csv"
    file.write_text("text\npay my bill\n")
    assert (
        main(
            [
                "train",
                "protonet",
                "cloze",
                "--file",
                str(file),
                "--steps",
                "1",
                "--out",
                str(tmp_path / "run"),
            ]
        )
        == 2
    )
    assert "the labels of cloze never change" in capsys.readouterr().err


def test_texts_with_a_gap_are_for_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no other part than train"):
        cloze("test", file=tmp_path / "texts.csv")
