"""Omniglot's protocols on the real data, where INNERLOOP_DATA holds it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import innerloop
from innerloop.engine.errors import InnerloopError
from innerloop.readers import ImageReader
from innerloop.tasks import Episodes, omniglot
from innerloop.tasks.omniglot import bank
from innerloop.tasks.splits import SPLITS

HELD_OUT = {"Armenian", "Futurama", "Gujarati", "Hebrew", "Japanese_(hiragana)"}


@pytest.fixture(scope="module", autouse=True)
def _data() -> None:
    root = os.environ.get("INNERLOOP_DATA")
    if not root:
        pytest.skip("INNERLOOP_DATA is not set: Omniglot is not there")
    if not (Path(root) / "omniglot").is_dir():
        pytest.skip(f"INNERLOOP_DATA={root} holds no omniglot/")


@pytest.mark.parametrize(
    ("protocol", "part", "holdout", "classes"),
    [
        ("lake", "train", False, 964),
        ("lake", "train", True, 775),
        ("lake", "val", False, 189),
        ("lake", "test", False, 659),
        ("lake-minimal-1", "train", False, 136),
        ("lake-minimal-1", "train", True, 136),
        ("lake-minimal-1", "test", True, 659),
        ("lake-minimal-2", "train", False, 156),
        ("vinyals", "train", False, 4800),
        ("vinyals", "train", True, 4112),
        ("vinyals", "val", True, 688),
        ("vinyals", "test", True, 1692),
    ],
)
def test_protocols_have_their_classes(
    protocol: str, part: str, holdout: bool, classes: int
) -> None:
    found = bank(protocol, part, holdout)
    assert len(found) == len(set(found.names)) == classes
    assert found.counts.tolist() == [20] * classes


@pytest.mark.parametrize("protocol", ["lake", "lake-minimal-1", "lake-minimal-2"])
def test_parts_share_no_class_and_no_alphabet_under_holdout(protocol: str) -> None:
    parts = [set(bank(protocol, part, True).names) for part in SPLITS]
    assert len(set.union(*parts)) == sum(len(part) for part in parts)
    alphabets = [{name.split("/")[0] for name in part} for part in parts]
    assert len(set.union(*alphabets)) == sum(len(part) for part in alphabets)
    assert alphabets[1] == HELD_OUT


def test_vinyals_parts_share_no_class_but_the_known_alphabet() -> None:
    parts = {part: set(bank("vinyals", part, True).names) for part in SPLITS}
    assert not parts["train"] & parts["val"]
    assert not parts["val"] & parts["test"]
    assert {name.split("/")[0] for name in parts["train"] & parts["test"]} <= {
        "Gurmukhi"
    }
    assert set(bank("vinyals", "train").names) == parts["train"] | parts["val"]


@pytest.mark.parametrize(
    ("part", "holdout", "listed"),
    [
        ("train", False, "trainval"),
        ("train", True, "train"),
        ("val", True, "val"),
        ("test", True, "test"),
    ],
)
def test_vinyals_classes_are_the_published_lists(
    part: str, holdout: bool, listed: str
) -> None:
    file = (
        Path(os.environ["INNERLOOP_DATA"])
        / "omniglot"
        / "splits_vinyals"
        / f"{listed}.txt"
    )
    found = bank("vinyals", part, holdout)
    assert list(found.names) == file.read_text().split()
    assert found.turns.tolist() == [int(name[-3:]) // 90 for name in found.names]


def test_without_holdout_validation_classes_train_too() -> None:
    assert set(bank("lake", "val").names) <= set(bank("lake", "train").names)
    assert not set(bank("lake", "test").names) & set(bank("lake", "train").names)


def test_background_has_thirty_alphabets_and_evaluation_twenty() -> None:
    train, test = bank("lake", "train"), bank("lake", "test")
    assert (len(train.groups.unique()), len(test.groups.unique())) == (30, 20)
    for one in (train, test):
        alphabets = [name.split("/")[0] for name in one.names]
        assert len(
            {
                (alphabet, int(group))
                for alphabet, group in zip(alphabets, one.groups, strict=True)
            }
        ) == len(set(alphabets))


@pytest.mark.parametrize("part", ["train", "test"])
def test_episodes_within_an_alphabet_come_from_one(part: str) -> None:
    tasks = omniglot(part, ways=20, shots=1, queries=1, groups=1, augment=False)
    found = tasks.sample(10, torch.Generator().manual_seed(0))
    owner = torch.full((len(tasks.bank.values),), -1)
    for start, count, group in zip(
        tasks.bank.starts.tolist(),
        tasks.bank.counts.tolist(),
        tasks.bank.groups.tolist(),
        strict=True,
    ):
        owner[start : start + count] = group
    values = tasks.bank.values[owner >= 0]
    stock = {
        image.numpy().tobytes(): group
        for image, group in zip(values, owner[owner >= 0].tolist(), strict=True)
    }
    for task in found.unbind():
        images = (
            (torch.cat([task.support.x, task.query.x]) * 255).round().to(torch.uint8)
        )
        groups = {stock[image.numpy().tobytes()] for image in images}
        assert len(groups) == 1


def test_training_turns_and_warps_and_testing_does_not() -> None:
    train, test = (
        omniglot("train", ways=5, queries=2),
        omniglot("test", ways=5, queries=2),
    )
    assert (len(train.bank), len(test.bank)) == (8 * 964, 659)
    assert train.warp is not None
    assert test.warp is None
    assert len(omniglot("train", augment=False).bank) == 964
    assert len(omniglot("train", protocol="vinyals").bank) == 2 * 4800
    assert test.spec.x_shape == (1, 28, 28)


def test_images_are_light_ink_on_dark_ground() -> None:
    values = bank("lake", "test").values
    assert (values.dtype, values.shape) == (torch.uint8, (32460, 1, 28, 28))
    share = values[::97].float().mean((1, 2, 3)) / 255
    assert 0.05 < float(share.mean()) < 0.15
    assert float(share.max()) < 0.4
    assert float(share.min()) > 0


def test_a_turned_class_is_the_upright_one_rotated() -> None:
    turned = bank("vinyals", "test")
    at = turned.names.index(
        next(name for name in turned.names if name.endswith("rot090"))
    )
    upright = turned.names.index(turned.names[at].replace("rot090", "rot000"))
    assert int(turned.starts[at]) == int(turned.starts[upright])
    assert (int(turned.turns[at]), int(turned.turns[upright])) == (1, 0)


def test_a_split_has_one_fingerprint() -> None:
    assert bank("lake", "train").fingerprint() == bank("lake", "train").fingerprint()
    assert (
        len(
            {
                bank("lake", part, holdout).fingerprint()
                for part in SPLITS
                for holdout in (False, True)
            }
        )
        == 4
    )


@pytest.mark.parametrize(
    ("options", "protocol"), [({}, "vinyals"), ({"protocol": "lake"}, "lake")]
)
def test_a_run_is_tested_on_its_own_protocol_by_default(
    options: dict[str, str], protocol: str
) -> None:
    spec = innerloop.TaskSpec("classes", (1, 28, 28), 5)
    trained = {"ways": 60, "protocol": "vinyals", "holdout": True}
    experiment = innerloop.Experiment(
        "protonet", innerloop.Choice("omniglot", trained), spec=spec
    )
    learner = experiment.build_learner()
    tasks = experiment.test_tasks(learner, **options)[0].tasks
    assert isinstance(tasks, Episodes)
    assert tasks.bank.fingerprint() == bank(protocol, "test").fingerprint()


def test_a_second_process_reads_the_cache_and_decodes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = bank("lake", "test").fingerprint()  # in the cache from here on
    module = sys.modules["innerloop.tasks.omniglot"]
    sys.modules["innerloop.tasks.images"]._bank.cache_clear()

    def read(*_: object) -> None:
        raise AssertionError("the archives were read")

    monkeypatch.setattr(module, "_read", read)
    assert bank("lake", "test").fingerprint() == names


def test_no_image_and_no_character_is_in_two_splits() -> None:
    for protocol in ("lake", "vinyals"):
        splits = [bank(protocol, split, True) for split in SPLITS]  # pyright: ignore[reportArgumentType]
        for keys in ([b.item_keys() for b in splits], [b.class_keys() for b in splits]):
            assert len(frozenset.union(*keys)) == sum(map(len, keys))


@dataclass(frozen=True)
class Vectors(ImageReader):
    """Images as vectors."""

    kind = "vectors"

    def pixels(self, files: Any, names: Any) -> tuple[torch.Tensor, Any]:
        return torch.zeros(len(files), 8), []


def test_a_reader_of_vectors_makes_upright_classes_of_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path))
    tasks = omniglot("train", reader=Vectors())
    assert (tasks.spec.x_shape, len(tasks.bank)) == ((8,), 964)
    assert tasks.warp is None
    with pytest.raises(InnerloopError, match="the reader makes vectors"):
        omniglot("train", protocol="vinyals", reader=Vectors())


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one of lake, .*; got 'ravi'"):
        bank("ravi")
    with pytest.raises(ValueError, match="one of train, val, test"):
        bank("lake", "dev")
