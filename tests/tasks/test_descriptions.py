"""Descriptions of packages: ROUGE, sentences, and tasks from what apt prints."""

from collections.abc import Iterator

import pytest
import torch

from innerloop import CNP
from innerloop.engine.errors import InnerloopError
from innerloop.measurements import TestPlan
from innerloop.tasks import descriptions as source
from innerloop.tasks.descriptions import Package, records, scored
from innerloop.tasks.sentences import FEATURES, features, rouge, sentences_of

module = __import__("sys").modules["innerloop.tasks.descriptions"]


def test_rouge_is_that_of_the_paper() -> None:
    """Lin 2004, section 3.1: the reference and the first two candidates."""
    reference = "police killed the gunman"
    first = rouge("police kill the gunman", reference)
    second = rouge("the gunman kill police", reference)
    assert (first.one, second.one) == (0.75, 0.75)
    assert first.two == second.two == pytest.approx(1 / 3)
    assert (first.longest, second.longest) == (0.75, 0.5)
    assert rouge("the the the", "the cat").one == pytest.approx(0.4)  # clipped
    assert rouge("a", "b").mean == 0


def test_texts_are_cut_into_sentences() -> None:
    text = (
        "It is 1.5 times faster, e.g. Foo.\n Then rests! \n\n * one\n * two\n J. Doe\n"
    )
    assert sentences_of(text) == [
        "It is 1.5 times faster, e.g. Foo.",
        "Then rests!",
        "* one",
        "* two J. Doe",
    ]
    assert sentences_of(" \n--\n") == []
    found = features(["A is b.", "It is a."])
    assert found.shape == (2, FEATURES)
    assert found.isfinite().all()


def test_short_texts_are_repeated_and_long_ones_are_cut() -> None:
    pair = scored("A small editor. It is good.", "small editor")
    assert pair is not None
    x, y = pair
    assert torch.equal(x[0], x[2])
    assert torch.equal(y[:, 0] > 0, torch.tensor([True, False] * 3))
    assert scored("One.", "one") is None
    long = scored(" ".join(f"Part {i} of it." for i in range(9)), "x")
    assert long is not None
    assert len(long[0]) == 6


def fake() -> Iterator[Package]:
    for section in range(12):
        for i in range(9):
            yield Package(
                f"p{i}", f"s{section}", f"source{i}-{section % 11}", f"tool {i}",
                f"It was made at home. This is a tool {i}. Run it twice.",
            )  # fmt: skip


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "packages", fake)
    prepared = module._prepared()
    monkeypatch.setattr(module, "_stored", lambda: prepared)


def test_sections_and_sources_are_in_one_split(known: None) -> None:
    splits = {s: source(s, shots=2, queries=2) for s in ("train", "val", "test")}
    names = [name for tasks in splits.values() for name in tasks.sections]
    assert len(names) == len(set(names)) >= 11  # two sections share their sources
    rows = [int(i) for t in splits.values() for own in t.sections.values() for i in own]
    assert len(rows) == len(set(rows)) in (99, 108)
    batch = splits["train"].sample(3, torch.Generator().manual_seed(0))
    splits["train"].spec.check(batch, 3)
    assert batch.support.x.shape == (3, 12, FEATURES)
    with pytest.raises(InnerloopError, match="no test section has more than 9"):
        source("test", shots=9)


def test_the_choice_is_measured_beside_the_first_and_the_best(known: None) -> None:
    tasks = source("test", shots=2, queries=3)
    torch.manual_seed(0)
    learner = CNP.build(tasks.spec, width=8)
    report = tasks.evaluate(learner, TestPlan(n=5))
    rows = {row.labels["method"]: row.values[0].mean for row in report.tables[0].rows}
    assert [*rows] == ["CNP", "first sentence", "best sentence", "by chance"]
    assert rows["first sentence"] == 0
    best = rouge("This is a tool 1.", "tool 1").one
    assert rows["best sentence"] == pytest.approx(best)
    assert rows["by chance"] == pytest.approx(best / 3)
    assert 0 <= rows["CNP"] <= best + 1e-6


def test_what_apt_prints_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    long = (
        "Package: a\nDescription-md5: 1\nDescription-en: short\n Long one.\n .\n Two.\n"
    )
    known = "Package: a\nSource: b (1.0)\nSection: contrib/net\nDescription-md5: 1\n"
    monkeypatch.setattr(module, "_translations", lambda: ("file",))
    monkeypatch.setattr(
        module, "_output", lambda *words: long if "cat-file" in words else known
    )
    (found,) = module.packages()
    assert found == Package("a", "net", "b", "short", "Long one.\n\nTwo.")
    assert [*records("A: 1\n\n\nB: 2\n")] == [{"A": "1"}, {"B": "2"}]


def test_a_machine_without_apt_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(InnerloopError, match="apt-cache is not on this machine"):
        module._translations.__wrapped__()
    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/apt-cache")
    monkeypatch.setattr(module, "HELPER", __file__)
    monkeypatch.setattr(module, "_output", lambda *words: "")
    with pytest.raises(InnerloopError, match="run apt-get update"):
        module._translations.__wrapped__()
