"""Omniglot: 1,623 handwritten characters of 50 alphabets, drawn by 20 people each.

Lake, Salakhutdinov and Tenenbaum 2015, "Human-level concept learning through
probabilistic program induction", Science 350.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from functools import lru_cache

import numpy as np
import torch

from innerloop.engine.errors import InnerloopError
from innerloop.readers.image import INK_MARGIN, Preprocess
from innerloop.tasks.download import cache_folder, fetch
from innerloop.tasks.episodes import ClassBank, Episodes, Warp
from innerloop.tasks.splits import check_split

PREPROCESS = Preprocess(
    channels=1, size=(28, 28), dark_background=True, normalize_strokes=True
)
PROTOCOLS = ("lake", "lake-minimal-1", "lake-minimal-2", "vinyals")

_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
_MD5 = {
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}
_SPLITS_URL = "https://raw.githubusercontent.com/jakesnell/prototypical-networks/master/data/omniglot/splits/vinyals/"

_VALIDATION = ("Armenian", "Futurama", "Gujarati", "Hebrew", "Japanese_(hiragana)")
_MINIMAL = {
    "lake-minimal-1": ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"),
    "lake-minimal-2": ("Greek", "Japanese_(katakana)", "Latin", "Sanskrit", "Tagalog"),
}


@lru_cache(maxsize=1)
def _load(preprocess: Preprocess) -> tuple[ClassBank, dict[str, int], int]:
    """All characters as one bank, in order of set and name; which class a name is; how
    many belong to the background set.
    """
    archives = {
        name: fetch("omniglot", f"{name}.zip", _URL + name + ".zip", md5)
        for name, md5 in _MD5.items()
    }
    origin = (
        preprocess,
        INK_MARGIN,
        [(p.stat().st_size, p.stat().st_mtime_ns) for p in archives.values()],
    )
    stamp = hashlib.sha256(repr(origin).encode()).hexdigest()[:12]
    cached = cache_folder() / "omniglot" / f"read-{stamp}.npz"
    if not cached.is_file():
        images, names, background = [], [], 0
        for _name, archive in archives.items():
            with zipfile.ZipFile(archive) as opened:
                for member in sorted(
                    m for m in opened.namelist() if m.endswith(".png")
                ):
                    alphabet, character = member.split("/")[1:3]
                    names.append(f"{alphabet}/{character}")
                    images.append(
                        preprocess.read(io.BytesIO(opened.read(member))).numpy()
                    )
            background = background or len(names)
        cached.parent.mkdir(parents=True, exist_ok=True)
        partial = cached.with_name(f"{stamp}.{os.getpid()}.split.npz")
        np.savez(
            partial,
            images=np.stack(images),
            names=np.array(names),
            background=background,
        )
        partial.replace(cached)
    with np.load(cached) as stored:
        images, names, background = (
            torch.from_numpy(stored["images"]),
            stored["names"].tolist(),
            int(stored["background"]),
        )
    classes = list(dict.fromkeys(names))
    counts = (
        [names.count(c) for c in classes]
        if len(names) != 20 * len(classes)
        else [20] * len(classes)
    )
    groups = list(dict.fromkeys(c.split("/")[0] for c in classes))
    bank = ClassBank.of(
        images, counts, classes, [groups.index(c.split("/")[0]) for c in classes]
    )
    return bank, {c: i for i, c in enumerate(classes)}, len(set(names[:background]))


def bank(
    protocol: str = "lake",
    split: str = "train",
    holdout: bool = False,
    preprocess: Preprocess = PREPROCESS,
) -> ClassBank:
    """The classes of one split of a protocol, without training's rotations.

    lake: the 30 background alphabets train, the 20 evaluation alphabets test.
    lake-minimal-1 and -2: five background alphabets train. With `holdout`, the
    validation alphabets (Armenian, Futurama, Gujarati, Hebrew, Hiragana) leave the
    training split, for choosing settings; without it they train too, and validation only
    watches.
    vinyals: the published lists of classes (with Prototypical Networks, 2017), where
    each of four rotations is a class in every split. They have a known flaw: the
    alphabet Gurmukhi stands in both the training and the test list, with different
    characters. Without `holdout` the validation classes train too.
    """
    if protocol not in PROTOCOLS:
        raise InnerloopError(
            f"Omniglot has the protocols {', '.join(PROTOCOLS)}, not {protocol!r}"
        )
    check_split(split)
    full, index, background = _load(preprocess)
    if protocol == "vinyals":
        name = {"train": "train" if holdout else "trainval"}.get(split, split)
        lines = (
            fetch(
                "omniglot",
                f"splits_vinyals/{name}.txt",
                f"{_SPLITS_URL}{name}.txt",
                None,
            )
            .read_text()
            .split()
        )
        turned = full.turned()
        return turned.pick(
            [
                index[line.rsplit("/", 1)[0]] + int(line[-3:]) // 90 * len(full)
                for line in lines
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


def omniglot(
    split: str = "train",
    *,
    protocol: str = "lake",
    holdout: bool = False,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    groups: int = 0,
    augment: bool | None = None,
    preprocess: Preprocess = PREPROCESS,
) -> Episodes:
    """Omniglot episodes. `augment` (rotations and mirror images as new classes, small
    warps) defaults to true in training and false elsewhere.

    Papers read the whole page: `preprocess=Preprocess(1, (28, 28),
    dark_background=True)`. By default the ink is centred and fitted.
    """
    chosen = bank(protocol, split, holdout, preprocess)
    augment = split == "train" if augment is None else augment
    if augment:
        chosen = (chosen if protocol == "vinyals" else chosen.turned()).mirrored()
    return Episodes(chosen, ways, shots, queries, groups, Warp() if augment else None)
