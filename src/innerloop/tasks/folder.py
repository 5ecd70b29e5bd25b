"""Images in folders, one folder a class: a user's own data."""

from __future__ import annotations

from pathlib import Path

import torch

from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.readers.image import Preprocess, image_files
from innerloop.tasks.episodes import ClassBank, Episodes, Warp
from innerloop.tasks.splits import split_indices


def read_classes(root: Path | str, preprocess: Preprocess) -> ClassBank:
    """Every `ROOT/class/*.png|jpg|...` as a bank of classes, in order of name.

    Raises FileNotFoundError for a missing folder and ValueError for one without class
    folders, a class without images or an unreadable image.
    """
    root = Path(root)
    if not root.is_dir():
        raise InnerloopFileError(f"there is no folder {root}")
    classes = sorted(
        p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")
    )
    if not classes:
        raise InnerloopError(
            f"{root} holds no class folders: put the images of each class into a folder of its own, {root}/CLASS/image.png"
        )
    files = [image_files(folder) for folder in classes]
    for folder, found in zip(classes, files, strict=True):
        if not found:
            raise InnerloopError(
                f"{folder} holds no images (png, jpg, bmp, gif, tif, webp)"
            )
    values = preprocess.read_all(file for found in files for file in found)
    return ClassBank.of(
        values, [len(found) for found in files], [folder.name for folder in classes]
    )


def folder(
    split: str = "train",
    *,
    root: Path | str,
    preprocess: Preprocess | None = None,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    augment: bool | None = None,
) -> Episodes:
    """Episodes from a user's folder; 64, 16 and 20 % of its classes, fixed by their
    names, train, validate and test.

    augment: small warps; true in training unless said otherwise.
    """
    bank = read_classes(root, preprocess or Preprocess())
    bank = bank.pick(split_indices(bank.names, split))
    augment = split == "train" if augment is None else augment
    return Episodes(bank, ways, shots, queries, 0, Warp() if augment else None)


def group_by_label(labels: list[str]) -> tuple[list[str], torch.Tensor, list[int]]:
    """Sorted class names, the order that brings examples class by class, and the class
    sizes.
    """
    names = sorted(set(labels))
    index = {name: i for i, name in enumerate(names)}
    numbers = torch.tensor([index[label] for label in labels])
    return (
        names,
        numbers.argsort(stable=True),
        torch.bincount(numbers, minlength=len(names)).tolist(),
    )
