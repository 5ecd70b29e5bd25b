"""CIFAR-FS and FC100: their splits, and images from sheets and from the archive."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from innerloop.engine.errors import InnerloopError
from innerloop.readers import ImageReader, TextReader
from innerloop.tasks import TASKS, Episodes, cifar, cifar_fs, fc100, images
from innerloop.tasks.cifar import (
    CLASSES,
    SUPERCLASSES,
    cifar_fs_classes,
    fc100_classes,
)
from innerloop.tasks.splits import SPLITS

REAL = Path(os.environ.get("INNERLOOP_DATA") or "no folder") / "cifar100"
with_data = pytest.mark.skipif(
    not (REAL / "classes.json").is_file(),
    reason="INNERLOOP_DATA holds no cifar100/classes.json",
)
NAMES: dict[str, Callable[[str], list[str]]] = {
    "cifar-fs": cifar_fs_classes,
    "fc100": fc100_classes,
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder cifar100 of an empty data folder; the cache is empty too."""
    monkeypatch.setenv("INNERLOOP_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data" / "cifar100").mkdir(parents=True)
    return tmp_path / "data" / "cifar100"


def drawn(label: int, number: int) -> np.ndarray:
    """Pixels (32, 32, 3) that say their class, number, row, column and channel."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[..., 0] = label
    pixels[..., 1] = number // 4
    pixels[..., 2] = np.arange(32)[:, None] * 4 + number % 4
    pixels[0] += np.arange(32, dtype=np.uint8)[:, None]
    return pixels


def write_archive(
    folder: Path,
    arrays: dict[str, np.ndarray],
    training: int,
    mode: Literal["w", "w:gz"] = "w:gz",
) -> None:
    """The archive in the official layout, in another order than that of the classes;
    arrays has the images (n, 32, 32, 3) of each class, training images first.
    """
    superclasses = list(SUPERCLASSES)
    parts: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    for name, pixels in reversed(arrays.items()):
        group = next(i for i, g in enumerate(superclasses) if name in SUPERCLASSES[g])
        labels = np.full((len(pixels), 2), [group, CLASSES.index(name)], np.uint8)
        planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
        records = np.concatenate([labels, planes], 1)
        parts["train"].append(records[:training])
        parts["test"].append(records[training:])
    with tarfile.open(folder / "cifar-100-binary.tar.gz", mode) as archive:
        for part, records in parts.items():
            content = np.concatenate(records).tobytes()
            info = tarfile.TarInfo(f"cifar-100-binary/{part}.bin")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_sheets(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, pixels in arrays.items():
        tiles = pixels.reshape(20, 30, 32, 32, 3).transpose(0, 2, 1, 3, 4)
        sheet = Image.fromarray(np.ascontiguousarray(tiles).reshape(640, 960, 3))
        sheet.save(folder / f"{name}.webp", lossless=True, method=0)


def some(count: int, names: tuple[str, ...] = CLASSES) -> dict[str, np.ndarray]:
    return {
        name: np.stack([drawn(CLASSES.index(name), i) for i in range(count)])
        for name in names
    }


def bank_of(source: str, split: str) -> Tensor:
    tasks = TASKS[source](split, ways=2, queries=1)
    assert isinstance(tasks, Episodes)
    return tasks.bank.values


def test_superclasses_have_five_classes_each() -> None:
    assert len(SUPERCLASSES) == 20
    assert {len(names) for names in SUPERCLASSES.values()} == {5}
    assert len(set(CLASSES)) == 100
    assert CLASSES[:2] == ("apple", "aquarium_fish")
    assert CLASSES[-3:] == ("wolf", "woman", "worm")


@pytest.mark.parametrize(
    ("source", "sizes"), [("cifar-fs", [64, 16, 20]), ("fc100", [60, 20, 20])]
)
def test_splits_share_no_class_and_cover_all(source: str, sizes: list[int]) -> None:
    parts = [NAMES[source](split) for split in SPLITS]
    assert [len(part) for part in parts] == sizes
    assert sorted(name for part in parts for name in part) == list(CLASSES)


def test_splits_of_fc100_share_no_superclass() -> None:
    of = {name: group for group, names in SUPERCLASSES.items() for name in names}
    parts = [{of[name] for name in fc100_classes(split)} for split in SPLITS]
    assert [len(part) for part in parts] == [12, 4, 4]
    assert len(set.union(*parts)) == 20


@with_data
@pytest.mark.parametrize("source", NAMES)
def test_splits_are_the_published_lists(source: str) -> None:
    listed = json.loads((REAL / "classes.json").read_text("utf-8"))
    for split in SPLITS:
        assert sorted(NAMES[source](split)) == sorted(listed[source][split])
    superclasses = {
        name: group for group, names in SUPERCLASSES.items() for name in names
    }
    assert superclasses == listed["superclass_of"]


def test_the_archive_becomes_classes_of_color_images(data: Path) -> None:
    write_archive(data, some(4), training=3)
    tasks = cifar_fs("val", ways=4, shots=2, queries=2)
    bank = tasks.bank
    assert (tasks.spec.x_shape, tasks.spec.y_dim) == ((3, 32, 32), 4)
    assert list(bank.names) == cifar_fs_classes("val")
    assert bank.counts.tolist() == [4] * 16
    expected = [drawn(CLASSES.index(name), i) for name in bank.names for i in range(4)]
    assert torch.equal(
        bank.values, torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2)
    )


def test_sheets_and_the_archive_hold_the_same_images(data: Path) -> None:
    names = ("sea", "apple")
    arrays = some(600, names)
    write_archive(data, arrays, training=500)
    write_sheets(data, arrays)
    sheets = cifar._read([data / f"{name}.webp" for name in names], names)
    archive = cifar._read([data / "cifar-100-binary.tar.gz"], names)
    assert sheets.classes == archive.classes == ["sea"] * 600 + ["apple"] * 600
    assert sheets[1:] == archive[1:]
    for one, other in zip(sheets.files, archive.files, strict=True):
        assert one.read() == other.read()


@with_data
def test_photographs_are_the_same_from_sheets_and_archive(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {}
    for name in cifar_fs_classes("val"):
        sheet = np.asarray(Image.open(REAL / f"{name}.webp").convert("RGB"))
        rows = [
            band[:, x : x + 32]
            for band in np.split(sheet, 20)
            for x in range(0, 960, 32)
        ]
        arrays[name] = np.stack(rows)
    write_archive(data, arrays, training=500, mode="w")
    archive = cifar_fs("val").bank
    monkeypatch.setenv("INNERLOOP_DATA", str(REAL.parent))
    sheets = cifar_fs("val").bank
    assert torch.equal(archive.values, sheets.values)
    assert (archive.names, len(sheets.values)) == (sheets.names, 9600)
    # photographs of the sea are blue
    at = sheets.names.index("sea")
    red, _, blue = sheets.values[600 * at : 600 * (at + 1)].float().mean((0, 2, 3))
    assert blue > red + 10


def test_a_missing_sheet_makes_the_archive_the_source(data: Path) -> None:
    write_archive(data, some(2), training=1)
    for name in cifar_fs_classes("val")[:15]:
        (data / f"{name}.webp").touch()
    assert len(bank_of("cifar-fs", "val")) == 32


def test_a_second_call_and_a_second_process_read_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_archive(data, some(2), training=1)
    values = bank_of("fc100", "test")
    assert bank_of("fc100", "test") is values

    def pixels(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(ImageReader, "pixels", pixels)
    images._bank.cache_clear()
    assert torch.equal(bank_of("fc100", "test"), values)
    write_archive(data, some(3), training=1)
    with pytest.raises(AssertionError, match="was decoded"):
        bank_of("fc100", "test")


def test_tasks_within_a_superclass_come_from_one(data: Path) -> None:
    write_archive(data, some(2), training=1)
    for split in SPLITS:
        tasks = fc100(split, ways=5, queries=1, groups=1, augment=False)
        assert len(tasks.bank.groups.unique()) == {"train": 12}.get(split, 4)
        found = tasks.sample(10, torch.Generator().manual_seed(0))
        labels = (found.support.x[:, :, 0, 5, 0] * 255).round().long()
        for row in labels.tolist():
            names = {CLASSES[label] for label in row}
            assert sorted(names) in [sorted(group) for group in SUPERCLASSES.values()]


def test_only_training_is_augmented_by_default(data: Path) -> None:
    write_archive(data, some(2), training=1)
    warps = [cifar_fs(split, queries=1).warp for split in SPLITS]
    assert [warp is not None for warp in warps] == [True, False, False]
    assert warps[0] is not None
    assert warps[0].mirror
    assert cifar_fs("train", queries=1, augment=False).warp is None
    assert cifar_fs("test", queries=1, augment=True).warp is not None


def test_rotations_are_classes_in_training_only(data: Path) -> None:
    write_archive(data, some(2), training=1)
    plain, turned = (cifar_fs("train", queries=1, rotations=on) for on in (False, True))
    assert len(turned.bank) == 4 * len(plain.bank)
    assert len(set(turned.class_names())) == len(turned.bank)
    for split in ("val", "test"):
        tasks = cifar_fs(split, queries=1, rotations=True)
        assert tasks.class_names() == cifar_fs(split, queries=1).class_names()
    with pytest.raises(InnerloopError, match="only images can be"):
        cifar_fs("train", queries=1, rotations=True, reader=Mean(3, (4, 4)))


def test_the_size_and_the_reader_of_a_run_are_used(data: Path) -> None:
    write_archive(data, some(2), training=1)
    assert cifar_fs("val", queries=1, size=8).spec.x_shape == (3, 8, 8)
    gray = ImageReader(1, (9, 9))
    tasks = cifar_fs("val", queries=1, reader=gray)
    assert (tasks.spec.x_shape, tasks.reader) == ((1, 9, 9), gray)
    with pytest.raises(InnerloopError, match="the reader is for texts"):
        cifar_fs("val", queries=1, reader=TextReader((), ()))


@dataclass(frozen=True)
class Mean(ImageReader):
    """Images as vectors: their mean color."""

    @property
    def x_shape(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (3,)

    def pixels(self, files: object, names: object) -> tuple[Tensor, list]:  # pyright: ignore
        values, unreadable = ImageReader(3, (4, 4)).pixels(files, names)  # pyright: ignore
        return values.float().mean((2, 3)), unreadable


def test_a_reader_of_vectors_makes_tasks_of_vectors(data: Path) -> None:
    write_archive(data, some(4), training=2)
    for split, augment in (("train", None), ("test", False)):
        tasks = cifar_fs(split, queries=2, reader=Mean(), augment=augment)
        assert tasks.spec.x_shape == (3,)
        assert tasks.warp is None
        x = tasks.sample(2, torch.Generator().manual_seed(0)).support.x
        assert x.shape == (2, 5, 3)
        assert x.dtype == torch.float32


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot read .*replace it by the official file"),
        (b"no archive" * 100, "cannot read .*replace it by the official file"),
        (None, r"train\.bin in .* must hold records of 3074 bytes; got 0 bytes"),
    ],
)
def test_a_damaged_archive_is_named(
    data: Path, content: bytes | None, words: str
) -> None:
    file = data / "cifar-100-binary.tar.gz"
    if content is None:
        tarfile.open(file, "w:gz").close()
    else:
        file.write_bytes(content)
    with pytest.raises(InnerloopError, match=words):
        cifar_fs("val")


def test_an_archive_that_is_cut_off_is_named(data: Path) -> None:
    write_archive(data, some(2), training=1)
    file = data / "cifar-100-binary.tar.gz"
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(InnerloopError, match=r"tar\.gz"):
        cifar_fs("val")


def test_an_archive_without_a_class_and_a_sheet_of_another_size_are_named(
    data: Path,
) -> None:
    names = cifar_fs_classes("val")
    write_archive(data, some(2, tuple(names[1:])), training=1)
    with pytest.raises(InnerloopError, match=f"no image of the class {names[0]}"):
        cifar_fs("val")
    for name in names:
        (data / f"{name}.webp").touch()
    write_sheets(data, some(600, tuple(names[:2])))
    Image.new("RGB", (32, 32)).save(data / f"{names[2]}.webp")
    with pytest.raises(InnerloopError, match=rf"{names[2]}\.webp: it has 32 x 32"):
        cifar_fs("val")
