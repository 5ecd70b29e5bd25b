"""Omniglot: 1,623 handwritten characters of 50 alphabets, drawn by 20 people each."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, get_args

from innerloop.engine.augmentation import Warp
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, CountOrZero, Range
from innerloop.readers.base import Reader
from innerloop.readers.image import ImageReader
from innerloop.tasks.download import fetch
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.tasks.folder import image_reader
from innerloop.tasks.images import ImageFiles, read_once, reading
from innerloop.tasks.splits import check_split, task_source

READER = ImageReader(1, (28, 28), dark_background=True, normalize_strokes=True)
Protocol = Literal["lake", "lake-minimal-1", "lake-minimal-2", "vinyals"]

_VERSION = 2  # of the way in which the images are read
_BACKGROUND = 30  # alphabets in the first archive
_URL = (
    "https://raw.githubusercontent.com/brendenlake/omniglot/"
    "057f034baf2ecb8530bc5710e5a23584d2a519cc/python/"
)
_ARCHIVES = {  # SHA-256 and bytes of the official files
    "images_background.zip": (
        "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
        9464212,
    ),
    "images_evaluation.zip": (
        "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
        6462886,
    ),
}
_LISTS_URL = (
    "https://raw.githubusercontent.com/jakesnell/prototypical-networks/"
    "c9bb4d258267c11cb6e23f0a19242d24ca98ad8a/data/omniglot/splits/vinyals/"
)
_LISTS = {
    "train": "11f99e54faee3e26f53d3231c1cceac5bf7b8730e9be31cb6dab256551dc0c1a",
    "val": "845264cc5c156180828ccf17915668b17ee21424d0170df6e7d81676aa5d1204",
    "trainval": "5276ae50c755596d0bff7f2284e85625695549a85ee6e36b6491ad1e5d1cc26a",
    "test": "984522c194c30fb678ce53304a160a42faf5403ad4f9a67010f32dd3a35738e0",
}
_VALIDATION = ("Armenian", "Futurama", "Gujarati", "Hebrew", "Japanese_(hiragana)")
_MINIMAL = {
    "lake-minimal-1": ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"),
    "lake-minimal-2": ("Greek", "Japanese_(katakana)", "Latin", "Sanskrit", "Tagalog"),
}


def _read(archives: Sequence[Path], _: Sequence[str]) -> ImageFiles:
    found = ImageFiles([], [], [], [])
    for archive in archives:
        with reading(archive), zipfile.ZipFile(archive) as opened:
            for member in sorted(m for m in opened.namelist() if m.endswith(".png")):
                alphabet, character = member.split("/")[1:3]
                found.files.append(io.BytesIO(opened.read(member)))
                found.names.append(member)
                found.classes.append(f"{alphabet}/{character}")
                found.groups.append(alphabet)
    return found


def bank(
    protocol: Protocol = "lake",
    split: str = "train",
    holdout: bool = False,
    reader: ImageReader = READER,
) -> ClassBank:
    """The classes of one split of a protocol, see `omniglot`, without the rotations of
    training.
    """
    check_split(split)
    if protocol not in get_args(Protocol):
        raise InnerloopError(
            f"protocol must be one of {', '.join(get_args(Protocol))}; got {protocol!r}"
        )
    archives = [
        fetch("omniglot", name, _URL + name, checksum, size)
        for name, (checksum, size) in _ARCHIVES.items()
    ]
    full = read_once("Omniglot", _VERSION, _read, reader, archives)
    background = int((full.groups < _BACKGROUND).sum())
    full = replace(full, title=f"the {split} split of Omniglot, {protocol}")
    if protocol == "vinyals":
        if not full.has_images:
            raise InnerloopError(
                "the classes of the protocol vinyals are rotated images, and the "
                "reader makes vectors: choose another protocol (--protocol lake)"
            )
        name = {"train": "train" if holdout else "trainval"}.get(split, split)
        lists = fetch(
            "omniglot",
            f"splits_vinyals/{name}.txt",
            f"{_LISTS_URL}{name}.txt",
            _LISTS[name],
        )
        index = {name: i for i, name in enumerate(full.names)}
        return full.turned().pick(
            [
                index[line.rsplit("/", 1)[0]] + int(line[-3:]) // 90 * len(full)
                for line in lists.read_text(encoding="utf-8").split()
            ]
        )
    if split == "test":
        return full.pick(list(range(background, len(full))))
    alphabet = [name.split("/")[0] for name in full.names[:background]]
    if split == "val":
        return full.pick([i for i, a in enumerate(alphabet) if a in _VALIDATION])
    allowed = _MINIMAL.get(protocol, tuple(set(alphabet)))
    return full.pick(
        [
            i
            for i, a in enumerate(alphabet)
            if a in allowed and not (holdout and a in _VALIDATION)
        ]
    )


@task_source
def omniglot(
    split: str = "train",
    *,
    ways: Annotated[int, Range(2)] = 5,
    shots: Count = 1,
    queries: Count = 15,
    groups: CountOrZero = 0,
    protocol: Protocol = "lake",
    holdout: bool = False,
    size: Annotated[int, Range(1, 4096)] = 28,
    channels: Literal[1, 3] = 1,
    normalize_strokes: bool = True,
    augment: bool | None = None,
    reader: Reader | None = None,
) -> Episodes:
    """Omniglot: 1,623 characters of 50 alphabets, 20 drawings of each.

    Reference: Lake, Salakhutdinov and Tenenbaum 2015, "Human-level concept learning
    through probabilistic program induction", Science 350.

    Protocols: with `lake`, the 30 background alphabets are for training and the 20
    evaluation alphabets for testing; with `lake-minimal-1` and `-2`, five background
    alphabets are for training. Five alphabets (Armenian, Futurama, Gujarati, Hebrew,
    Hiragana) are for validation. `vinyals` are the class lists published with
    Prototypical Networks (2017), where each of four rotations is a class in every
    split. They have a known flaw: characters of the alphabet Gurmukhi are in both the
    training and the test list.

    Papers use the whole page: set `normalize_strokes` to false to compare with them.

    Args:
        ways: classes in a task.
        shots: support examples of each class.
        queries: query examples of each class.
        groups: the number of alphabets that the classes of a task come from; 0 for any.
        protocol: splits of the characters into training, validation and test.
        holdout: keep the validation classes out of training, to choose hyperparameters
            on them; otherwise they are also used for training.
        size: height and width of an image in pixels.
        channels: 1 for gray images, 3 for learners of color images.
        normalize_strokes: center the strokes and scale them to fill the image.
        augment: rotations and mirror images as new classes, and small random
            distortions; by default in training only.
        reader: how images are read, in place of size, channels and normalize_strokes.
    """
    default = ImageReader(channels, (size, size), True, normalize_strokes)
    chosen = bank(protocol, split, holdout, image_reader(reader, default))
    warp = Warp() if chosen.augments(augment, split) else None
    if warp is not None:
        chosen = (chosen if protocol == "vinyals" else chosen.turned()).mirrored()
    return Episodes(chosen, ways, shots, queries, groups, warp)
