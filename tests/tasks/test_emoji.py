"""Emoji: which are used, in which split, and how they are read."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from innerloop.engine.errors import InnerloopError
from innerloop.tasks import emoji
from innerloop.tasks.emoji import family
from innerloop.tasks.splits import SPLITS

PACKAGES = {
    artist: f"emoji-datasource-{artist}-16.0.0.tgz" for artist in ("google", "twitter")
}
REAL = [
    Path(root) / "emoji"
    for root in (
        os.environ.get("INNERLOOP_DATA", ""),
        os.environ.get("INNERLOOP_CACHE", ""),
        os.path.expanduser("~/.cache/innerloop"),
    )
    if root and all((Path(root, "emoji", name)).is_file() for name in PACKAGES.values())
]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder emoji of an empty data folder; the cache is empty too."""
    monkeypatch.setenv("INNERLOOP_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data" / "emoji").mkdir(parents=True)
    return tmp_path / "data" / "emoji"


def entry(number: int, **changes: Any) -> dict[str, Any]:
    code = f"{0x1F600 + number:X}"
    return {
        "unified": code,
        "image": f"{code.lower()}.png",
        "short_name": f"emoji{number}",
        "category": f"category{number % 2}",
    } | changes


def png(color: tuple[int, ...]) -> bytes:
    """A square in that color; the rest of the image is transparent."""
    image = Image.new("RGBA", (64, 64))
    image.paste(color, (16, 16, 48, 48))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def write(
    folder: Path,
    entries: list[dict[str, Any]],
    without: tuple[tuple[str, str], ...] = (),
    same: dict[str, str] | None = None,
    listed: bytes | None = None,
) -> None:
    """Both packages; `without` has (artist, image) that are missing, and `same` the
    images that look like another one.
    """
    shade = {e["image"]: i + 1 for i, e in enumerate(entries)}
    for place, (artist, name) in enumerate(PACKAGES.items()):
        files = {"package/emoji.json": listed or json.dumps(entries).encode()}
        for e in entries:
            image = e["image"]
            if (artist, image) not in without:
                number = shade[(same or {}).get(image, image)]
                content = png((number, 255 * place, 0, 255))
                files[f"package/img/{artist}/64/{image}"] = content
                files[f"package/img/{artist}/sheets/{image}"] = b"no image"
        with tarfile.open(folder / name, "w:gz") as archive:
            for path, content in files.items():
                info = tarfile.TarInfo(path)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def names(**options: Any) -> dict[str, tuple[str, ...]]:
    return {split: emoji(split, ways=2, **options).bank.names for split in SPLITS}


def test_a_class_has_a_drawing_by_each_artist_on_white(data: Path) -> None:
    write(data, [entry(i) for i in range(40)])
    parts = names()
    assert [len(part) for part in parts.values()] == [28, 4, 8]
    assert sorted(name for part in parts.values() for name in part) == sorted(
        f"emoji{i}" for i in range(40)
    )
    tasks = emoji("test", ways=8)
    assert (tasks.shots, tasks.queries, tasks.spec.x_shape) == (1, 1, (3, 64, 64))
    assert tasks.bank.counts.tolist() == [2] * 8
    google, twitter = tasks.bank.values[:2]
    number = int(tasks.bank.names[0].removeprefix("emoji")) + 1
    assert google[:, 32, 32].tolist() == [number, 0, 0]
    assert twitter[:, 32, 32].tolist() == [number, 255, 0]
    assert google[:, 0, 0].tolist() == [255, 255, 255]


def test_skin_tones_missing_and_repeated_drawings_are_left_out(data: Path) -> None:
    entries = [entry(i) for i in range(30)]
    entries.append(entry(30, category="Component"))
    entries.append(entry(31, skin_variations={"1F3FB": entry(32)}))
    write(
        data,
        entries,
        without=(("google", entries[3]["image"]), ("twitter", entries[4]["image"])),
        same={entries[8]["image"]: entries[7]["image"]},
    )
    used = {name for part in names().values() for name in part}
    left_out = (3, 4, 8, 30)
    assert used == {f"emoji{i}" for i in range(32) if i not in left_out}


def test_groups_are_categories(data: Path) -> None:
    write(data, [entry(i) for i in range(40)])
    bank = emoji("train").bank
    of = {name: int(name.removeprefix("emoji")) % 2 for name in bank.names}
    pairs = {(of[n], g) for n, g in zip(bank.names, bank.groups.tolist(), strict=True)}
    assert len(pairs) == 2
    tasks = emoji("train", groups=1, augment=False)
    x = tasks.sample(20, torch.Generator().manual_seed(0)).support.x
    shades = (x[:, :, 0, 32, 32] * 255).round().long()
    assert all(len({shade % 2 for shade in row}) == 1 for row in shades.tolist())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("1F600", "1F600"),
        ("1F3C3-200D-2640-FE0F", "1F3C3"),
        ("1F3C3-200D-2642-FE0F-200D-27A1-FE0F", "1F3C3"),
        ("1F468-200D-1F692", "1F9D1-1F692"),
        ("1F469-200D-1F692", "1F9D1-1F692"),
        ("2640-FE0F", "2640"),
        ("1F1E9-1F1EA", "1F1E9-1F1EA"),
    ],
)
def test_variants_by_gender_and_direction_have_one_family(
    code: str, expected: str
) -> None:
    assert family(code) == expected


def test_variants_are_in_one_split(data: Path) -> None:
    entries = [entry(i) for i in range(40)]
    ends = ("200D-2640-FE0F", "200D-2642-FE0F")
    entries += [
        entry(
            i,
            unified=f"{entries[i]['unified']}-{end}",
            image=f"{i}{end}.png",
            short_name=f"emoji{i}{end}",
        )
        for i in range(40)
        for end in ends
    ]
    write(data, entries)
    for part in names().values():
        assert {name for name in part if name[-1] == "F"} == {
            f"{name}{end}" for name in part if name[-1] != "F" for end in ends
        }


def test_only_training_is_augmented_and_arrows_are_never_mirrored(data: Path) -> None:
    write(data, [entry(i) for i in range(40)])
    warps = [emoji(split, ways=2).warp for split in SPLITS]
    assert [warp is not None for warp in warps] == [True, False, False]
    assert warps[0] is not None
    assert not warps[0].mirror
    x = emoji("train").sample(4, torch.Generator().manual_seed(0)).support.x
    assert float(x[..., :3, :3].min()) > 0.99  # the background is white everywhere


def test_a_list_that_cannot_be_read_and_too_many_shots_are_refused(data: Path) -> None:
    entries = [entry(i) for i in range(40)]
    write(data, entries)
    with pytest.raises(InnerloopError, match="the largest has 2"):
        emoji("train", shots=2)
    write(data, entries, listed=b"[{")
    with pytest.raises(InnerloopError, match=r"cannot read package/emoji\.json in"):
        emoji("train")


@pytest.mark.skipif(not REAL, reason="no folder emoji with both packages is there")
def test_real_emoji(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERLOOP_DATA", str(REAL[0].parent))
    banks = {split: emoji(split).bank for split in SPLITS}
    assert [len(bank) for bank in banks.values()] == [1298, 190, 383]
    for keys in ("item_keys", "class_keys"):
        found = [getattr(bank, keys)() for bank in banks.values()]
        assert len(frozenset.union(*found)) == sum(map(len, found))
    assert sum(len(bank.item_keys()) for bank in banks.values()) == 2 * 1871
    every = {name for bank in banks.values() for name in bank.names}
    assert {"grinning", "runner", "fr"} & every
    assert not any(name.startswith("skin-tone") for name in every)
    assert {len(bank.groups.unique()) for bank in banks.values()} == {9}
