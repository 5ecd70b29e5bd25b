"""Tasks from texts: CLINC150, and users' own files."""

import csv
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from innerloop.cli import main
from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.estimators import FewShotClassifier
from innerloop.experiment import load
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.metagrad.meta_train import meta_train
from innerloop.readers.table import TableReader
from innerloop.readers.text import UNKNOWN, TextReader, Texts
from innerloop.tasks.text import DOMAINS, clinc, cloze, requests, text

real = pytest.mark.skipif(
    not os.environ.get("INNERLOOP_DATA"),
    reason="INNERLOOP_DATA does not say where CLINC150 is",
)


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
    note = "321 of 6,750 texts have more than 24 tokens and were cut"
    assert note in clinc("test").note


@real
def test_no_request_of_clinc_is_in_two_splits() -> None:
    splits = defaultdict(set)
    for split, domains in DOMAINS.items():
        for domain in domains:
            for texts in requests()[domain].values():
                for entry in texts:
                    splits[" ".join(entry.lower().split())].add(split)
    assert len(splits) == 22_495  # of 22,500: 4 have two intents, and one repeats
    assert not [entry for entry, found in splits.items() if len(found) > 1]


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
    tasks, val = (text(part, file=file, ways=2, queries=2) for part in ("train", "val"))
    assert len(tasks.bank) + len(val.bank) == 12
    assert "train 10, val 2, test 3" in tasks.describe()
    assert len(text("val", file=file, queries=1, all_classes=True).bank) == 15
    learner = ProtoNet.build(tasks.spec)
    list(meta_train(learner, tasks, steps=3, batch=2))
    settings = json.loads(json.dumps(tasks.reader.settings()))
    reader = TextReader.from_settings(settings)
    other = tmp_path / "other.csv"
    other.write_text(
        "text,label\n"
        + "".join(
            f"zz{i} {word},label{i}\n" for i in range(12) for word in ("qq", "ww", "ee")
        )
    )
    # the tokens of other texts are those that the embeddings were learned for
    assert text(file=other, ways=2, queries=1, reader=reader).bank.reader == reader
    with pytest.raises(InnerloopError, match="length must be 8, as in the run"):
        text(file=file, ways=2, queries=1, length=12, reader=reader)
    with pytest.raises(InnerloopTypeError, match="the reader reads rows"):
        text(file=file, reader=TableReader.fitted({"a": [1, 2]}))
    support = reader.read(file, labels=True)
    query = tmp_path / "query.csv"
    query.write_text("text\na now\nb now\n")
    found = reader.read(query, labels=False)
    assert (found.names, found.labels) == (["a now", "b now"], None)
    assert support.labels is not None
    names = sorted(set(support.labels))
    y = torch.eye(len(names))[[names.index(label) for label in support.labels]]
    state = learner.adapt(Examples(support.x, y))
    outputs = learner.predict(state, found.x)
    assert outputs.shape == (2, 15)
    assert torch.equal(
        learner.predict(state, reader.convert(["a now", "b now"])), outputs
    )


def test_own_texts_go_from_train_to_adapt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = own_file(tmp_path), str(tmp_path / "run")
    sizes = ["--steps", "3", "--ways", "3", "--queries", "2", "--length", "2"]
    source = ["train", "protonet", "text", "--file"]
    assert main([*source, str(file), *sizes, "--out", run]) == 0
    assert "texts have more than 2 tokens and were cut" in capsys.readouterr().out
    other = tmp_path / "other.csv"
    other.write_text(
        "text,label\n"
        + "".join(f"zz{i} {w},label{i}\n" for i in range(12) for w in ("q", "w", "e"))
    )
    again = [*source, str(other), "--init-from", run, *sizes[:2], "--out"]
    assert main([*again, str(tmp_path / "second")]) == 0
    # its embeddings are of the first run's tokens
    assert load(tmp_path / "second").reader == load(run).reader
    query = tmp_path / "query.csv"
    query.write_text("text\na now\nb now\n")
    command = ["adapt", run, "--support", str(file), "--query", str(query), "--out"]
    assert main([*command, str(tmp_path / "out.csv")]) == 0
    with (tmp_path / "out.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert [row["text"] for row in rows] == ["a now", "b now"]
    assert {row["label"] for row in rows} <= {f"class{i}" for i in range(15)}
    classifier = FewShotClassifier(run).fit(["a please", "b please"], ["x", "y"])
    classifier.save(tmp_path / "kept")
    kept = FewShotClassifier.load(tmp_path / "kept").predict_proba(["a now", "c"])
    assert (kept == classifier.predict_proba(["a now", "c"])).all()


def test_columns_of_a_file_may_have_other_names(tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    content = own_file(tmp_path).read_text().replace("text,label", "Review;Stars", 1)
    file.write_text(content.replace(",", ";"))
    tasks = text(file=file, text_column="review", label_column="stars", queries=2)
    assert len(tasks.bank) == 10
    assert (tasks.reader.text_column, tasks.reader.label_column) == ("review", "stars")
    with pytest.raises(InnerloopError, match=r"no column 'text'.*text_column"):
        text(file=file)


def test_a_text_of_two_splits_is_not_trained_on(tmp_path: Path) -> None:
    file = own_file(tmp_path)
    banks = {
        part: text(part, file=file, ways=2, queries=1).bank
        for part in ("train", "val", "test")
    }
    train, test = banks["train"].names[0], banks["test"].names[0]
    with file.open("a") as opened:
        opened.write(f"secret words,{train}\nSecret  Words,{test}\n")
        opened.write(f"again,{train}\nagain ,{train}\n")
    tasks, held_out = (
        text(part, file=file, ways=2, queries=1) for part in ("train", "test")
    )
    secret = held_out.reader.convert(["secret words"])[0]
    assert not (tasks.bank.values[: int(tasks.bank.counts[0])] == secret).all(-1).any()
    assert not tasks.item_keys() & held_out.item_keys()
    assert int(tasks.bank.counts.sum()) == 41  # 10 labels of 4 texts, and "again"
    assert int(held_out.bank.counts.sum()) == 13
    assert "1 texts that stand in two splits" in tasks.note
    assert "1 texts that repeat within their label" in tasks.note


def test_texts_are_refused_with_reasons(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        text(file=tmp_path / "nothing.csv")
    file = tmp_path / "bad.csv"
    for content, message in (
        ("words,label\na,b\n", "no column 'text'"),
        ("text,label\n ,b\n", "line 2 has no text"),
        ("text,label\na,\n", "no label in line 2"),
        ("text,label\nwell, yes,a\nno,b\n", "line 2 has 3 cells"),
        ("text,label\na,x\nb,y\n", "split of bad.csv has 1 of 2 classes"),
    ):
        file.write_text(content)
        with pytest.raises(InnerloopError, match=message):
            text(file=file, shots=1, queries=1)


def test_a_gap_is_one_token_that_its_text_had(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    texts = ["pay my bill", "what is new", "call me back"]  # of other words each
    file.write_text("text\n" + "\n".join(texts) + "\n")
    tasks = cloze(file=file).for_supervised(20)
    whole = {tuple(row.tolist()) for row in tasks.reader.convert(texts)}
    query = tasks.sample(3, torch.Generator().manual_seed(0)).query
    assert query.y.shape == (3, 20, tasks.spec.y_dim)
    for x, y in zip(query.x.flatten(0, 1), query.y.flatten(0, 1), strict=True):
        assert int((x == UNKNOWN).sum()) == 1
        assert tuple(torch.where(x == UNKNOWN, y.argmax().float(), x).tolist()) in whole


def test_texts_with_a_gap_are_for_learners_of_fixed_labels(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    file.write_text("text\npay my bill\n")
    tasks = cloze(file=file)
    with pytest.raises(InnerloopError, match="labels of cloze are the same in all"):
        tasks.sample(1, torch.Generator())


def test_texts_with_a_gap_are_for_training(tmp_path: Path) -> None:
    with pytest.raises(InnerloopError, match="cloze has only the split train"):
        cloze("test", file=tmp_path / "texts.csv")


def test_cloze_names_the_lines_that_it_leaves_out(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    file.write_text("id,text\n1,pay my bill\n2,\n3,what is new\n")
    assert "left out: line 3 has no text" in cloze(file=file).note


def in_files(table: Path, root: Path) -> Path:
    with table.open() as opened:
        for i, row in enumerate(csv.DictReader(opened)):
            (root / row["label"]).mkdir(parents=True, exist_ok=True)
            (root / row["label"] / f"{i:03d}.txt").write_text(row["text"])
    return root


def test_texts_in_folders_and_archives_are_the_same_tasks(tmp_path: Path) -> None:
    table = own_file(tmp_path)
    root = in_files(table, tmp_path / "texts")
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "texts")
    wanted = text(file=table, ways=2, queries=1)
    for path in (root, packed):
        tasks = text(file=path, ways=2, queries=1)
        assert tasks.bank.names == wanted.bank.names
        assert torch.equal(tasks.bank.values, wanted.bank.values)
    (root / "class0" / "zzz.txt").write_text("")
    assert "class0/zzz.txt: it has no text" in text(file=root, queries=1).note
    assert len(cloze(file=root).values) == 60
    assert "zzz.txt" in cloze(file=root).note


@dataclass(frozen=True)
class Letters(Texts):
    """Texts as counts of letters, as from a pretrained encoder."""

    text_column: str = "text"
    label_column: str = "label"
    kind = "letters"

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (26,)

    def encode(self, texts: Sequence[str]) -> tuple[torch.Tensor, int]:
        letters = [chr(97 + i) for i in range(26)]
        counts = [[entry.count(letter) for letter in letters] for entry in texts]
        return torch.tensor(counts).float(), 0

    def cut_note(self, cut: int, of: int) -> str:
        return ""


def test_any_reader_of_texts_makes_tasks(tmp_path: Path) -> None:
    file = own_file(tmp_path)
    tasks = text(file=file, ways=2, queries=2, reader=Letters())
    assert (tasks.spec.x_shape, tasks.spec.vocabulary) == ((26,), 0)
    assert tasks.reader == Letters()
    assert tasks.sample(3, torch.Generator().manual_seed(0)).query.x.shape == (3, 4, 26)
    with pytest.raises(InnerloopError, match="length is an option of token readers"):
        text(file=file, length=9, reader=Letters())
    with pytest.raises(InnerloopTypeError, match=r"cloze hides tokens.*'letters'"):
        cloze(file=file, reader=Letters())


def test_a_reader_of_an_earlier_run_takes_other_columns(tmp_path: Path) -> None:
    file = own_file(tmp_path)
    reader = text(file=file, ways=2, queries=1).reader
    file.write_text(file.read_text().replace("text,label", "review,stars", 1))
    columns = {"text_column": "review", "label_column": "stars"}
    tasks = text(file=file, ways=2, queries=1, reader=reader, **columns)
    assert tasks.reader == replace(reader, **columns)
    assert tasks.reader.read(file, labels=True).labels[0] == "class0"


def test_a_run_may_begin_from_a_run_on_other_columns(tmp_path: Path) -> None:
    file, run = own_file(tmp_path), str(tmp_path / "run")
    sizes = ["--steps", "2", "--ways", "2", "--queries", "1"]
    source = ["train", "protonet", "text", "--file", str(file)]
    assert main([*source, *sizes, "--out", run]) == 0
    file.write_text(file.read_text().replace("text,label", "review,stars", 1))
    columns = ["--text-column", "review", "--label-column", "stars"]
    again = [*source, *columns, "--steps", "2", "--init-from", run]
    assert main([*again, "--out", str(tmp_path / "second")]) == 0
    reader = load(tmp_path / "second").reader
    assert (reader.text_column, reader.label_column) == ("review", "stars")
    assert reader.merges == load(run).reader.merges
