"""CIFAR-100 with two splits for few-shot learning: CIFAR-FS and FC100."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from innerloop.engine.augmentation import Warp
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, CountOrZero, Range
from innerloop.readers.base import Reader
from innerloop.readers.image import ImageReader, shown
from innerloop.tasks.download import data_folder, fetch
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.tasks.folder import image_reader
from innerloop.tasks.images import (
    ImageFiles,
    read_once,
    reading,
    tar_members,
)
from innerloop.tasks.splits import task_source

SUPERCLASSES = {  # every superclass and its classes
    superclass: tuple(classes.split())
    for superclass, classes in {
        "aquatic_mammals": "beaver dolphin otter seal whale",
        "fish": "aquarium_fish flatfish ray shark trout",
        "flowers": "orchid poppy rose sunflower tulip",
        "food_containers": "bottle bowl can cup plate",
        "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
        "household_electrical_devices": "clock keyboard lamp telephone television",
        "household_furniture": "bed chair couch table wardrobe",
        "insects": "bee beetle butterfly caterpillar cockroach",
        "large_carnivores": "bear leopard lion tiger wolf",
        "large_man-made_outdoor_things": "bridge castle house road skyscraper",
        "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
        "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
        "medium_mammals": "fox porcupine possum raccoon skunk",
        "non-insect_invertebrates": "crab lobster snail spider worm",
        "people": "baby boy girl man woman",
        "reptiles": "crocodile dinosaur lizard snake turtle",
        "small_mammals": "hamster mouse rabbit shrew squirrel",
        "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
        "vehicles_1": "bicycle bus motorcycle pickup_truck train",
        "vehicles_2": "lawn_mower rocket streetcar tank tractor",
    }.items()
}
_SUPERCLASS = {name: group for group, names in SUPERCLASSES.items() for name in names}
CLASSES = tuple(sorted(_SUPERCLASS))  # in the order of their labels in the archive
_CIFAR_FS = {  # classes; all others are for training
    "val": "beaver beetle butterfly camel cattle crab crocodile flatfish lamp "
    "maple_tree motorcycle otter sea shark television tractor",
    "test": "baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy "
    "rocket rose snail sweet_pepper table telephone wardrobe whale woman worm",
}
_FC100 = {  # superclasses; all others are for training
    "val": "large_carnivores large_omnivores_and_herbivores non-insect_invertebrates "
    "small_mammals",
    "test": "aquatic_mammals insects medium_mammals people",
}

_VERSION = 1  # of the way in which the images are read
_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
_MD5 = "03b5dce01913d631647c71ecec9e9cb8"
_PARTS = ("cifar-100-binary/train.bin", "cifar-100-binary/test.bin")
_SIDE = 32
_RECORD = 2 + 3 * _SIDE**2  # bytes: superclass, class, and three planes of pixels
_SHEET = (20, 30)  # rows and columns of images
_WARP = Warp(3, 0.1, 0, 0.08, 0, mirror=True, edge="border")


def split_classes(lists: dict[str, str], names: Sequence[str], split: str) -> list[str]:
    """The names of a split, where `lists` has those that are not for training."""
    if split in lists:
        return lists[split].split()
    held_out = " ".join(lists.values()).split()
    return [name for name in names if name not in held_out]


def cifar_fs_classes(split: str) -> list[str]:
    """The classes of a split of CIFAR-FS."""
    return split_classes(_CIFAR_FS, CLASSES, split)


def fc100_classes(split: str) -> list[str]:
    """The classes of a split of FC100."""
    chosen = split_classes(_FC100, list(SUPERCLASSES), split)
    return [name for name in CLASSES if _SUPERCLASS[name] in chosen]


def _sources(classes: Sequence[str]) -> list[Path]:
    """The sheets of these classes in the data folder, or else the official archive."""
    sheets = [data_folder() / "cifar100" / f"{name}.webp" for name in classes]
    if all(sheet.is_file() for sheet in sheets):
        return sheets
    return [fetch("cifar100", "cifar-100-binary.tar.gz", _URL, _MD5)]


def _read(sources: Sequence[Path], classes: Sequence[str]) -> ImageFiles:
    sheets = all(source.suffix == ".webp" for source in sources)
    arrays = (
        [_from_sheet(source) for source in sources]
        if sheets
        else _from_archive(sources[0], classes)
    )
    found = ImageFiles([], [], [], [])
    for name, images in zip(classes, arrays, strict=True):
        for number, pixels in enumerate(images):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "BMP")
            file.seek(0)
            found.files.append(file)
            found.names.append(f"{name}, image {number}")
        found.classes.extend([name] * len(images))
        found.groups.extend([_SUPERCLASS[name]] * len(images))
    return found


def _from_sheet(sheet: Path) -> NDArray[np.uint8]:
    """The images of a class (n, height, width, 3), which lie row by row."""
    rows, columns = _SHEET
    with reading(sheet), Image.open(sheet, formats=["WEBP"]) as opened:
        if opened.size != (columns * _SIDE, rows * _SIDE):
            raise ValueError(f"it has {opened.width} x {opened.height} pixels")
        pixels = np.asarray(opened.convert("RGB"))
    tiles = pixels.reshape(rows, _SIDE, columns, _SIDE, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(tiles).reshape(-1, _SIDE, _SIDE, 3)


def _from_archive(archive: Path, classes: Sequence[str]) -> list[NDArray[np.uint8]]:
    """The images (n, height, width, 3) of each class, training images first."""
    members = tar_members(archive, lambda name: name in _PARTS)
    for part in _PARTS:
        size = len(members.get(part, b""))
        if not size or size % _RECORD:
            raise InnerloopError(
                f"{part} in {shown(archive)} must hold records of {_RECORD} bytes; got "
                f"{size} bytes: replace the archive by the official file"
            )
    content = b"".join(members[part] for part in _PARTS)
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    arrays = []
    for name in classes:
        planes = records[records[:, 1] == CLASSES.index(name), 2:]
        if not len(planes):
            raise InnerloopError(
                f"{shown(archive)} holds no image of the class {name}: replace it by "
                "the official file"
            )
        images = planes.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
        arrays.append(np.ascontiguousarray(images))
    return arrays


def _bank(
    title: str,
    classes: list[str],
    split: str,
    size: int,
    augment: bool | None,
    rotations: bool,
    reader: Reader | None,
) -> tuple[ClassBank, Warp | None]:
    """The classes of a split, and how their images are distorted."""
    bank = read_once(
        "CIFAR-100",
        _VERSION,
        _read,
        image_reader(reader, ImageReader(3, (size, size))),
        _sources(classes),
        classes,
    )
    bank = replace(bank, title=f"the {split} split of {title}")
    if rotations and split == "train":
        bank.augments(True, split)  # refuses inputs that are no images
        bank = bank.turned()
    return bank, _WARP if bank.augments(augment, split) else None


@task_source
def cifar_fs(
    split: str = "train",
    *,
    ways: Annotated[int, Range(2)] = 5,
    shots: Count = 1,
    queries: Count = 15,
    groups: CountOrZero = 0,
    size: Annotated[int, Range(1, 4096)] = _SIDE,
    augment: bool | None = None,
    rotations: bool = False,
    reader: Reader | None = None,
) -> Episodes:
    """CIFAR-FS: 100 classes of 600 small photographs, split at random.

    Reference: Bertinetto, Henriques, Torr and Vedaldi 2019, "Meta-learning with
    differentiable closed-form solvers", arXiv:1805.08136, section 4.

    The images are those of CIFAR-100 (Krizhevsky 2009, "Learning multiple layers of
    features from tiny images"), 32x32 pixels in color. 64 classes are for training, 16
    for validation and 20 for testing. Classes of one superclass are in several splits.

    ImageNet has most of these classes: for an encoder that was trained on ImageNet, the
    test classes are not unseen.

    Args:
        ways: classes in a task.
        shots: support examples of each class.
        queries: query examples of each class.
        groups: the number of superclasses that the classes of a task come from; 0 for
            any.
        size: height and width to which images are scaled, in pixels.
        augment: mirror images and small random distortions; by default in training
            only.
        rotations: in training, each of four rotations of a class is a class of its own.
        reader: how images are read, in place of size.
    """
    classes = cifar_fs_classes(split)
    bank, warp = _bank("CIFAR-FS", classes, split, size, augment, rotations, reader)
    return Episodes(bank, ways, shots, queries, groups, warp)


@task_source
def fc100(
    split: str = "train",
    *,
    ways: Annotated[int, Range(2)] = 5,
    shots: Count = 1,
    queries: Count = 15,
    groups: CountOrZero = 0,
    size: Annotated[int, Range(1, 4096)] = _SIDE,
    augment: bool | None = None,
    rotations: bool = False,
    reader: Reader | None = None,
) -> Episodes:
    """FC100: 100 classes of 600 small photographs, split by superclass.

    Reference: Oreshkin, Rodríguez López and Lacoste 2018, "TADAM: task dependent
    adaptive metric for improved few-shot learning", arXiv:1805.10123, section 4.

    The images are those of CIFAR-100 (Krizhevsky 2009, "Learning multiple layers of
    features from tiny images"), 32x32 pixels in color. The 60 classes of 12
    superclasses are for training, 20 of four others for validation, and 20 of four
    others for testing. It is harder than CIFAR-FS: no superclass is in two splits.

    ImageNet has most of these classes: for an encoder that was trained on ImageNet, the
    test classes are not unseen.

    Args:
        ways: classes in a task.
        shots: support examples of each class.
        queries: query examples of each class.
        groups: the number of superclasses that the classes of a task come from; 0 for
            any.
        size: height and width to which images are scaled, in pixels.
        augment: mirror images and small random distortions; by default in training
            only.
        rotations: in training, each of four rotations of a class is a class of its own.
        reader: how images are read, in place of size.
    """
    classes = fc100_classes(split)
    bank, warp = _bank("FC100", classes, split, size, augment, rotations, reader)
    return Episodes(bank, ways, shots, queries, groups, warp)
