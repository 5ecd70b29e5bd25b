"""Labeling without a run: tables, pages, sorted folders, rejection and sets."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from innerloop import FewShotClassifier, ProtoNet, TaskSpec
from innerloop.cli import main
from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.estimators import untrained
from innerloop.labeling import UNKNOWN, label
from innerloop.learners.memory.pfn import PFN
from innerloop.readers import sources
from innerloop.readers.detect import kind_in_memory, kind_of, reader_for
from tests.encoders.conftest import Colors, Fake


def run(*words: object) -> int:
    return main([str(word) for word in words])


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def images(root: Path, colors: dict[str, tuple[int, int, int]], count: int = 3) -> Path:
    """Pictures of about one color for each class."""
    rng = np.random.default_rng(0)
    for name, color in colors.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            noise = rng.integers(-20, 20, (20, 16, 3))
            pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


THREE = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def test_the_table_has_three_guesses_and_the_command_says_the_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support = images(tmp_path / "support", THREE)
    out = tmp_path / "labels.csv"
    data = ("--support", support, "--query", support, "--encoder", "colors")
    assert run("adapt", *data, "--out", out) == 0
    assert "Accuracy 100.0 %: 9 of 9" in capsys.readouterr().out.replace("\n", " ")
    first = rows(out)[0]
    assert list(first)[:3] == ["file", "label", "probability"]
    assert {first[f"{w}label"] for w in ("", "second_", "third_")} == set(THREE)
    shares = [float(first[f"{w}probability"]) for w in ("", "second_", "third_")]
    assert sum(shares) == pytest.approx(1, abs=2e-4)
    assert shares == sorted(shares, reverse=True)


def test_accuracy_is_not_claimed_for_labels_of_other_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support = images(tmp_path / "support", THREE)
    query = images(tmp_path / "query", {"crimson": (220, 30, 30)})
    data = ("--support", support, "--query", query, "--encoder", "colors")
    assert run("adapt", *data, "--out", tmp_path / "labels.csv") == 0
    assert "Accuracy" not in capsys.readouterr().out


def test_files_are_sorted_and_none_is_lost(tmp_path: Path) -> None:
    support = images(tmp_path / "support", THREE)
    archive = tmp_path / "query.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for name in THREE:
            opened.write(support / name / "0.png", f"a/{name}.png")
            opened.write(support / name / "1.png", f"b/{name}.png")
    folder = tmp_path / "sorted"
    data = ("--support", support, "--query", archive, "--encoder", "colors")
    assert run("adapt", *data, "--sort-into", folder) == 0
    for name in THREE:
        found = sorted(p.read_bytes() for p in (folder / name).rglob("*.png"))
        wanted = [(support / name / f"{i}.png").read_bytes() for i in range(2)]
        assert found == sorted(wanted)
    # a second time, nothing may be overwritten
    assert run("adapt", *data, "--sort-into", folder) == 2


def test_labels_never_leave_the_folder_they_are_sorted_into(tmp_path: Path) -> None:
    support = images(tmp_path / "support", THREE)
    table = tmp_path / "support.csv"
    lines = [
        f"{support}/{name}/{i}.png,../../{name}" for name in THREE for i in range(3)
    ]
    table.write_text("\n".join(["image,label", *lines]))
    data = ("--support", table, "--query", support, "--encoder", "colors")
    before = set(tmp_path.rglob("*.png"))
    assert run("adapt", *data, "--sort-into", tmp_path / "deep" / "er" / "sorted") == 0
    new = set(tmp_path.rglob("*.png")) - before
    assert len(new) == 9
    assert all((tmp_path / "deep" / "er" / "sorted") in file.parents for file in new)


def test_texts_of_a_table_cannot_be_sorted(
    requests: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    data = ("--support", requests, "--query", requests, "--encoder", "letters")
    said = fails("adapt", *data, "--sort-into", tmp_path / "sorted")
    assert "only inputs that are files" in said
    assert not (tmp_path / "sorted").exists()


def test_something_must_be_written(pictures: Path, fails: Callable[..., str]) -> None:
    data = ("--support", pictures, "--query", pictures, "--encoder", "colors")
    assert "--out labels.csv" in fails("adapt", *data)


def test_the_page_shows_everything_and_runs_nothing(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    support = tmp_path / "support.csv"
    lines = [f"{w} {w} {i * 'x'},{w}" for w in ("aaa", "bbb") for i in range(3)]
    support.write_text("\n".join(["text,label", *lines]))
    query = tmp_path / "query.csv"
    query.write_text(f"text,label\naa {evil},bbb\nbb b,bbb\n")
    page = tmp_path / "page.html"
    data = ("--support", support, "--query", query, "--encoder", "letters")
    assert run("adapt", *data, "--report", page) == 0
    shown = page.read_text()
    assert "<script" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "its label is bbb" in shown  # the mistake is marked
    assert "http" not in shown  # complete in itself
    assert shown.count("<tr>") == 3


def test_the_page_of_images_has_their_pictures(tmp_path: Path) -> None:
    support = images(tmp_path / "support", THREE)
    page = tmp_path / "page.html"
    data = ("--support", support, "--query", support, "--encoder", "colors")
    assert run("adapt", *data, "--report", page) == 0
    assert page.read_text().count("data:image/jpeg;base64,") == 9 * 4


def test_what_is_like_no_class_is_rejected(tmp_path: Path) -> None:
    support = images(tmp_path / "support", THREE, 8)
    query = images(tmp_path / "query", {**THREE, "gray": (120, 120, 120)}, 4)
    out = tmp_path / "labels.csv"
    data = ("--support", support, "--query", query, "--encoder", "colors")
    assert run("adapt", *data, "--out", out, "--reject", "0.05") == 0
    found = {row["file"].split("/")[0]: [] for row in rows(out)}
    for row in rows(out):
        found[row["file"].split("/")[0]].append(row["label"])
    assert found["gray"] == [UNKNOWN] * 4
    known = [label for name in THREE for label in found[name]]
    assert known.count(UNKNOWN) <= 2


def test_possible_labels_hold_the_most_probable_one(tmp_path: Path) -> None:
    support = images(tmp_path / "support", THREE, 8)
    out = tmp_path / "labels.csv"
    data = ("--support", support, "--query", support, "--encoder", "colors")
    assert run("adapt", *data, "--out", out, "--sets", "0.1") == 0
    for row in rows(out):
        assert row["label"] in row["possible_labels"].split("; ")


def test_transductive_labels_use_the_other_inputs_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Callable[..., str]
) -> None:
    alike = {"a": (101, 100, 100), "b": (100, 101, 100), "c": (100, 100, 101)}
    support = images(tmp_path / "support", alike, 1)
    query = images(tmp_path / "query", alike, 6)
    data = ("--support", support, "--query", query, "--encoder", "colors")
    found = {}
    for flags in ((), ("--transductive",)):
        out = tmp_path / "labels.csv"
        assert run("adapt", *data, "--out", out, *flags) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert ("each label also depends on the other inputs" in said) == bool(flags)
        found[flags] = [row["probability"] for row in rows(out)]
    assert found[()] != found[("--transductive",)]


# ------------------------------------------------------------------ kinds of data


def test_the_kind_of_data_is_found(tmp_path: Path, pictures: Path) -> None:
    def table(name: str, *lines: str) -> Path:
        file = tmp_path / name
        file.write_text("\n".join(lines))
        return file

    assert kind_of(pictures, {}) == "image"
    assert kind_of(table("a.csv", "text,label", "x,1"), {}) == "text"
    assert kind_of(table("b.csv", "smiles,label", "CCO,1"), {}) == "molecule"
    assert kind_of(table("c.csv", "file,label", "a.jpg,1"), {}) == "image"
    assert kind_of(table("d.csv", "file,label", "a.wav,1"), {}) == "sound"
    assert kind_of(table("e.csv", "width,label", "3,1"), {}) == "row"
    assert kind_of(table("f.csv", "body,label", "x,1"), {"text_column": "body"}) == (
        "text"
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(InnerloopError, match="holds no images, texts or sounds"):
        kind_of(tmp_path / "empty", {})
    with pytest.raises(InnerloopError, match="there is no file or folder"):
        kind_of(tmp_path / "missing", {})


def test_rows_of_numbers_are_labeled_without_a_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [
        f"{c + 0.1 * rng.normal()},{1000 * c + rng.normal()},{'ab'[c]}"
        for c in (0, 1)
        for _ in range(6)
    ]
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(["width,weight,label", *lines]))
    reader = reader_for(file, None, {})
    support = reader.read(file, labels=True)
    network = untrained(reader, len(support.names))
    assert isinstance(network, PFN)
    for learner in (network, untrained(reader), untrained(reader, 12, True)):
        assert label(learner, support, support).correct == 12
    words = ["adapt", "--support", str(file), "--query", str(file)]
    assert main([*words, "--out", str(tmp_path / "labels.csv")]) == 0
    expected = label(network, support, support).table()
    assert (tmp_path / "labels.csv").read_bytes().decode() == expected


# ------------------------------------------------------------------ Python


def test_the_classifier_takes_images_and_texts_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = images(tmp_path / "images", THREE)
    files = sorted(root.rglob("*.png"))
    labels = [file.parent.name for file in files]
    classifier = FewShotClassifier(encoder="colors").fit(files, labels)
    assert classifier.predict([str(file) for file in files]).tolist() == labels
    arrays = np.stack([np.asarray(Image.open(file)) for file in files])
    assert classifier.predict(arrays).tolist() == labels
    classifier.save(tmp_path / "saved")
    again = FewShotClassifier.load(tmp_path / "saved")
    assert (again.predict_proba(files) == classifier.predict_proba(files)).all()


def test_without_an_encoder_the_usual_one_is_taken_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from innerloop import encoders

    monkeypatch.setattr(encoders, "ENCODERS", {"colors": Colors})
    files = sorted(images(tmp_path / "images", THREE).rglob("*.png"))
    labels = [file.parent.name for file in files]
    assert FewShotClassifier().fit(files, labels).score(files, labels) == 1
    with pytest.raises(InnerloopError, match="none of text"):
        FewShotClassifier().fit(["a text", "another"], [0, 1])
    monkeypatch.setattr(Fake, "package", "not-there-at-all")
    encoders._opened.cache_clear()
    with pytest.raises(MissingPackageError, match=r"innerloop\[fake\]"):
        FewShotClassifier().fit(files, labels)
    # arrays of numbers need no encoder
    x = np.array([[0.0, 1.0], [5.0, 5.0]])
    assert FewShotClassifier().fit(x, [0, 1]).predict(x).tolist() == [0, 1]


def test_the_kind_of_data_in_memory_is_found(tmp_path: Path) -> None:
    files = sorted(images(tmp_path / "images", THREE).rglob("*.png"))
    (tmp_path / "a.wav").write_bytes(b"")
    picture = Image.new("RGB", (4, 4))
    for data, kind in (
        (files, "image"),
        ([str(file) for file in files], "image"),
        ([picture, picture], "image"),
        (np.zeros((2, 5, 4, 3), np.uint8), "image"),
        (np.zeros((2, 3, 5, 4), np.uint8), "image"),
        ([tmp_path / "a.wav"], "sound"),
        (["a text", "another.png"], "text"),
        (np.array(["a text", "b"]), "text"),
        (np.array(["a text", "b"], dtype=object), "text"),
        (np.zeros((2, 5)), None),
        (np.zeros((2, 5, 4, 3)), None),
        ([[1.0, 2.0]], None),
        ([], None),
        ("a text", None),
    ):
        assert kind_in_memory(data) == kind, data


def test_a_learner_and_an_encoder_are_not_both_taken() -> None:
    learner = ProtoNet.build(TaskSpec("classes", (2,), 2))
    x = np.array([[0.0, 1.0], [5.0, 5.0]])
    with pytest.raises(InnerloopError, match="the learner has its own encoder"):
        FewShotClassifier(learner, encoder="colors").fit(x, [0, 1])


def test_a_file_that_is_too_large_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    support = images(tmp_path / "support", THREE)
    (support / "red" / "huge.png").write_bytes(bytes(3 << 20))
    monkeypatch.setattr(sources.content, "__defaults__", (1 << 20,))
    found = reader_for(support, "colors", {}).read(support, labels=True)
    assert found.unreadable == ("red/huge.png: it has more than 1 MiB",)
    assert len(found.names) == 9
