"""Emoji: every class has two drawings, by two groups of artists."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from innerloop.engine.augmentation import Warp
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, CountOrZero, Range
from innerloop.readers.base import Reader
from innerloop.readers.image import ImageReader, shown
from innerloop.tasks.download import fetch
from innerloop.tasks.episodes import Episodes
from innerloop.tasks.folder import image_reader
from innerloop.tasks.images import ImageFiles, read_once, tar_members
from innerloop.tasks.splits import split_indices, task_source

_VERSION = 1  # of the way in which the images are read
_ARCHIVES = {  # artist: SHA-256 and bytes of the official file
    "google": (
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        74344091,
    ),
    "twitter": (
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        61683754,
    ),
}
_LIST = "package/emoji.json"
_SHARES = {"train": (0.0, 0.7), "val": (0.7, 0.8), "test": (0.8, 1.0)}
_LEFT_OUT = "Component"  # the category of skin tones by themselves
# code points of variants: joiner, emoji style, female, male, facing right
_VARIANTS = {"200D", "FE0F", "2640", "2642", "27A1"}
_PERSON = {"1F468": "1F9D1", "1F469": "1F9D1"}  # man and woman, as person
_WARP = Warp(edge="border")


def family(code: str) -> str:
    """The code points of an emoji, such as "1F3C3-200D-2640-FE0F", without those that
    say the gender or the direction of a person.
    """
    first, *rest = code.split("-")
    rest = [_PERSON.get(point, point) for point in rest if point not in _VARIANTS]
    return "-".join([_PERSON.get(first, first), *rest])


def _archives() -> list[Path]:
    found = []
    for artist, (checksum, size) in _ARCHIVES.items():
        package = f"emoji-datasource-{artist}"
        name = f"{package}-16.0.0.tgz"
        url = f"https://registry.npmjs.org/{package}/-/{name}"
        found.append(fetch("emoji", name, url, checksum, size))
    return found


def _read(archives: Sequence[Path], part: Sequence[str]) -> ImageFiles:
    (split,) = part
    entries: list[dict[str, Any]] = []
    drawings: list[dict[str, bytes]] = []  # of each artist, by the name of the file
    for artist, archive in zip(_ARCHIVES, archives, strict=True):
        folder = f"package/img/{artist}/64/"
        members = tar_members(
            archive, lambda name, f=folder: name == _LIST or name.startswith(f)
        )
        try:
            entries = entries or json.loads(members.pop(_LIST, b""))
        except ValueError as error:
            raise InnerloopError(
                f"cannot read {_LIST} in {shown(archive)}: {error}; replace the "
                "archive by the official file"
            ) from error
        members.pop(_LIST, None)
        drawings.append({name.removeprefix(folder): m for name, m in members.items()})
    used, seen = [], set[bytes]()
    for entry in entries:
        pair = [of[entry["image"]] for of in drawings if entry["image"] in of]
        known = len(pair) < len(drawings) or not seen.isdisjoint(pair)
        if not known and entry["category"] != _LEFT_OUT:
            used.append((entry, pair))
            seen.update(pair)
    families = list(dict.fromkeys(family(entry["unified"]) for entry, _ in used))
    chosen = {families[i] for i in split_indices(families, split, _SHARES)}
    found = ImageFiles([], [], [], [])
    for entry, pair in used:
        if family(entry["unified"]) in chosen:
            name = entry["short_name"]
            found.files.extend(map(io.BytesIO, pair))
            found.names.extend(f"{name} by {artist}" for artist in _ARCHIVES)
            found.classes.extend([name] * len(pair))
            found.groups.extend([entry["category"]] * len(pair))
    return found


@task_source
def emoji(
    split: str = "train",
    *,
    ways: Annotated[int, Range(2)] = 5,
    shots: Count = 1,
    queries: Count = 1,
    groups: CountOrZero = 0,
    size: Annotated[int, Range(1, 4096)] = 64,
    augment: bool | None = None,
    reader: Reader | None = None,
) -> Episodes:
    """Emoji: 1,871 pictograms, each drawn by two groups of artists.

    The drawings are Google's Noto Emoji (Apache License 2.0; the font: SIL Open Font
    License 1.1) and Twitter's Twemoji (CC BY 4.0), from the npm packages
    emoji-datasource-google and emoji-datasource-twitter 16.0.0. A class has two
    examples, so tasks have one shot and one query.

    Skin tones are left out, because their drawings are nearly the same, and so is an
    emoji with the same drawing as an earlier one. 70 % of the others are for training,
    10 % for validation and 20 % for testing; the assignment depends only on their code
    points, and variants of an emoji by gender or direction are in the same split.

    Args:
        ways: classes in a task.
        shots: support examples of each class.
        queries: query examples of each class.
        groups: the number of categories, such as "Food & Drink", that the classes of a
            task come from; 0 for any.
        size: height and width to which images are scaled, in pixels.
        augment: small random distortions of images; by default in training only.
        reader: how images are read, in place of size.
    """
    bank = read_once(
        "Emoji",
        _VERSION,
        _read,
        image_reader(reader, ImageReader(3, (size, size))),
        _archives(),
        (split,),
    )
    bank = replace(bank, title=f"the {split} split of Emoji")
    warp = _WARP if bank.augments(augment, split) else None
    return Episodes(bank, ways, shots, queries, groups, warp)
