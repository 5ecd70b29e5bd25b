"""Users' own images, in class folders, tables of paths or archives."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor

from innerloop.engine.augmentation import Warp
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Range
from innerloop.readers.base import Reader
from innerloop.readers.files import shown
from innerloop.readers.image import ImageReader
from innerloop.readers.sources import Found, stamp
from innerloop.tasks.cache import Entry, cached
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.tasks.splits import (
    SPLITS,
    class_indices,
    split_indices,
    split_sizes,
    task_source,
)

_VERSION = 1  # of the way in which images are read
_RECENT: OrderedDict[tuple[str, ImageReader], tuple[ClassBank, Tensor]] = OrderedDict()
_KEPT = 2  # banks in memory
_NAMED = 20  # files in a note


def image_reader(reader: Reader | None, default: ImageReader) -> ImageReader:
    """The reader of an earlier run, or the default.

    Raises InnerloopError for a reader of something else than images.
    """
    if reader is None:
        return default
    if not isinstance(reader, ImageReader):
        raise InnerloopError(
            f"these tasks are images, and the reader is for {reader.what}s: choose "
            "tasks of the kind that the run was trained on"
        )
    return reader


def read_classes(root: Path | str, reader: ImageReader) -> ClassBank:
    """All images of a folder `ROOT/CLASS/image`, a table of paths or an archive as a
    bank of classes, in order of name.

    The files are read once: the bank stays in memory and in the cache folder, and is
    made anew when a file changes. Files that cannot be read are left out and named in
    the bank's `note`.

    Raises InnerloopFileError for a missing path and InnerloopError for one without
    classes, or for a class without an image that can be read.
    """
    return _read_once(root, reader)[0]


def _read_once(root: Path | str, reader: ImageReader) -> tuple[ClassBank, Tensor]:
    """The bank, and the number of the last split in which each image occurs."""
    found = _by_class(reader.scan(root, labels=True))
    state = _state(found)
    if (state, reader) in _RECENT:
        _RECENT.move_to_end((state, reader))
        return _RECENT[state, reader]
    key = ["images", _VERSION, reader.kind, reader.settings(), state]
    tensors, data = cached("images", key, lambda: _read(found, reader))
    names: list[str] = data["names"]
    note: str = data["note"]
    if empty := [names[i] for i, count in enumerate(data["counts"]) if not count]:
        raise InnerloopError(
            f"no image of the class {empty[0]} in {shown(Path(root))} can be read: "
            + (note if len(note) < 200 else f"{note[:200]} ...")
        )
    bank = ClassBank.of(
        tensors["values"],
        data["counts"],
        names,
        reader=type(reader).from_settings(data["reader"]),
        title=shown(Path(root)),
        note=note,
    )
    _RECENT[state, reader] = bank, tensors["last"]
    while len(_RECENT) > _KEPT:
        _RECENT.popitem(last=False)
    return bank, tensors["last"]


def _by_class(found: Found) -> Found:
    """The files class by class, in order of name."""
    labels = found.labels or []
    order = sorted(range(len(labels)), key=lambda i: labels[i])
    return found._replace(
        files=[found.files[i] for i in order],
        names=[found.names[i] for i in order],
        labels=[labels[i] for i in order],
    )


def _state(found: Found) -> str:
    """A hash of labels, and of paths, sizes and times of change of files."""
    about = [*found.names, *(found.labels or ()), *found.other, found.note]
    state = hashlib.sha256("\n".join(about).encode(errors="backslashreplace"))
    for file in found.files:
        state.update(stamp(file))
    return state.hexdigest()


def _read(found: Found, reader: ImageReader) -> Entry:
    reader = reader.for_data(found.files)
    values, unreadable = reader.pixels(found.files, found.names)
    failed = dict(unreadable)
    assert found.labels is not None
    names = list(dict.fromkeys(found.labels))
    counts = dict.fromkeys(names, 0)
    for i, label in enumerate(found.labels):
        counts[label] += i not in failed
    lines = [f"{found.names[i]}: {why}" for i, why in unreadable] + list(found.other)
    notes = [found.note] if found.note else []
    if lines:
        more = f", and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
        named = ", ".join(lines[:_NAMED])
        notes.insert(0, f"images that cannot be read ({len(lines)}): {named}{more}")
    sizes = list(counts.values())
    tensors = {"values": values, "last": _last_splits(values, sizes, names)}
    return tensors, {
        "names": names,
        "counts": sizes,
        "reader": reader.settings(),
        "note": "; ".join(notes),
    }


def _last_splits(values: Tensor, counts: list[int], names: list[str]) -> Tensor:
    """The number of the last split in which each image occurs, (n,)."""
    keys = [hashlib.sha256(image.numpy().tobytes()).digest() for image in values]
    of = {i: k for k, split in enumerate(SPLITS) for i in split_indices(names, split)}
    splits = [of[i] for i, count in enumerate(counts) for _ in range(count)]
    last: dict[bytes, int] = {}
    for key, split in zip(keys, splits, strict=True):
        last[key] = max(split, last.get(key, split))
    return torch.tensor([last[key] for key in keys], dtype=torch.uint8)


def _distinct(bank: ClassBank, last: Tensor, split: str) -> ClassBank:
    """The classes of a split, without the images that occur in a later split too."""
    classes = bank.pick(class_indices(bank.names, split, False, bank.title))
    kept = last <= list(SPLITS).index(split)
    rows = [
        torch.arange(start, start + count)
        for start, count in zip(
            classes.starts.tolist(), classes.counts.tolist(), strict=True
        )
    ]
    rows = [some[kept[some]] for some in rows]
    counts = [len(some) for some in rows]
    removed = int(classes.counts.sum()) - sum(counts)
    if not removed:
        return classes
    line = f"images of the {split} split that are in a later split, left out: {removed}"
    return ClassBank.of(
        bank.values[torch.cat(rows)],
        counts,
        list(classes.names),
        reader=bank.reader,
        note="; ".join(filter(None, (bank.note, line))),
    )


@task_source
def folder(
    split: str = "train",
    *,
    root: Path | str,
    ways: Annotated[int, Range(2)] = 5,
    shots: Count = 1,
    queries: Count = 15,
    size: Annotated[int, Range(1, 4096)] = 28,
    channels: Literal[1, 3] = 1,
    normalize_strokes: bool = False,
    augment: bool | None = None,
    all_classes: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
    reader: Reader | None = None,
) -> Episodes:
    """Images: your own images, in class folders or a table.

    folder    ROOT/CLASS/image.png, also in folders inside CLASS
    table     columns of paths and labels: .csv, .tsv, .xlsx, .parquet, .json, .jsonl
    archive   .zip, .tar or .tar.gz of class folders, or of a table and images

    Paths in a table are absolute or relative to its folder. Archives are not unpacked.

    A learner may have numbers of its own for training tasks, such as more ways; these,
    and those below, are lowered to what the classes hold.

    64 % of the classes are for training, 16 % for validation and 20 % for testing; the
    assignment depends only on their names. An image that is in two splits is used in
    the later one only.

    Args:
        root: the folder with the class folders, the table or the archive.
        ways: classes in a task.
        shots: support examples of each class.
        queries: query examples of each class.
        size: height and width to which images are scaled, in pixels; 28 suits drawings,
            photographs need more.
        channels: 1 reads images as gray, 3 in color.
        normalize_strokes: for drawings: light strokes on a dark background, centered
            and scaled to fill the image.
        augment: small random distortions of images; by default in training only, and
            never where the reader gives feature vectors.
        all_classes: use all classes in every split, to adapt to other classes later;
            validation and test then do not measure the learning of new classes.
        image_column: column of the paths in a table; by default image, file, path,
            filename, file_name or image_path.
        label_column: column of the labels in a table; by default label, class or y.
        reader: how images are read, in place of size, channels and normalize_strokes.
    """
    default = ImageReader(channels, (size, size), normalize_strokes, normalize_strokes)
    chosen = image_reader(reader, default)
    columns = {"image_column": image_column, "label_column": label_column}
    chosen = replace(chosen, **{k: v for k, v in columns.items() if v is not None})
    bank, last = _read_once(root, chosen)
    if not all_classes:
        title = f"the {split} split of {bank.title} ({split_sizes(bank.names)} classes)"
        bank = replace(_distinct(bank, last, split), title=title)
    warp = Warp() if bank.augments(augment, split) else None
    return Episodes(bank, ways, shots, queries, 0, warp)


def group_by_label(labels: list[str]) -> tuple[list[str], Tensor, list[int]]:
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
