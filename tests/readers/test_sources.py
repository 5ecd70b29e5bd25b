"""Layouts of data sets: class folders, tables of paths, and archives of either."""

import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.readers import archives
from innerloop.readers.base import Inputs
from innerloop.readers.image import ImageReader

READER = ImageReader(1, (4, 4))
PHOTOS = {"cats/1.png": 10, "cats/old/2.png": 20, "dogs/3.png": 30}


def png(shade: int) -> bytes:
    stored = io.BytesIO()
    Image.new("L", (6, 6), shade).save(stored, "PNG")
    return stored.getvalue()


def photos(around: str = "") -> dict[str, bytes]:
    return {around + name: png(shade) for name, shade in PHOTOS.items()}


def in_folder(files: dict[str, bytes], path: Path) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def in_zip(files: dict[str, bytes], path: Path) -> Path:
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return path


def in_tar(files: dict[str, bytes], path: Path, suffix: str = ".tar") -> Path:
    path = path.with_suffix(suffix)
    with tarfile.open(path, "w:gz" if suffix.endswith("gz") else "w") as opened:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return path


def in_tar_gz(files: dict[str, bytes], path: Path) -> Path:
    return in_tar(files, path, ".tar.gz")


Pack = Callable[[dict[str, bytes], Path], Path]
PACKED = pytest.mark.parametrize("pack", [in_zip, in_tar, in_tar_gz])
EVERYWHERE = pytest.mark.parametrize("pack", [in_folder, in_zip, in_tar, in_tar_gz])


def shades(inputs: Inputs) -> list[int]:
    return (inputs.x[:, 0, 0, 0] * 255).round().int().tolist()


@pytest.mark.parametrize("labels", [True, False])
@EVERYWHERE
def test_class_folders_may_be_deep(tmp_path: Path, pack: Pack, labels: bool) -> None:
    found = READER.read(pack(photos(), tmp_path / "data"), labels=labels)
    assert found.names == list(PHOTOS)
    assert found.labels == ["cats", "cats", "dogs"]
    assert shades(found) == [10, 20, 30]
    assert ("inside the class folders: 1" in found.note) == labels


@EVERYWHERE
def test_files_outside_of_class_folders_have_no_label(
    tmp_path: Path, pack: Pack
) -> None:
    data = pack({**photos(), "4.png": png(40), "notes.txt": b"x"}, tmp_path / "data")
    found = READER.read(data, labels=False)
    assert (found.names, found.labels) == (["4.png", *PHOTOS], None)
    labeled = READER.read(data, labels=True)
    assert labeled.names == list(PHOTOS)
    assert "images outside of the class folders are left out: 1" in labeled.note


@EVERYWHERE
def test_labels_are_not_taken_from_file_names(tmp_path: Path, pack: Pack) -> None:
    files = {"cat_01.png": png(1), "dog_01.png": png(2)}
    data = pack(files, tmp_path / "data")
    with pytest.raises(InnerloopError, match=r"no class folders.*file names") as raised:
        READER.read(data, labels=True)
    text = str(raised.value).replace(str(tmp_path), "")
    assert "CLASS/image.png, a table with the columns image and label, or a" in text
    assert len(text) < 300
    assert "\n" not in text
    assert READER.read(data, labels=False).labels is None


@PACKED
def test_one_folder_around_an_archive_does_not_count(
    tmp_path: Path, pack: Pack
) -> None:
    found = READER.read(pack(photos("my photos/"), tmp_path / "data"), labels=True)
    assert found.labels == ["cats", "cats", "dogs"]
    assert found.names == [f"my photos/{name}" for name in PHOTOS]
    one = {name: content for name, content in photos().items() if "cats" in name}
    assert set(READER.read(pack(one, tmp_path / "one"), labels=True).labels or ()) == {
        "cats"
    }


@PACKED
def test_hidden_files_of_archives_do_not_count(tmp_path: Path, pack: Pack) -> None:
    hidden = ("__MACOSX/x/1.png", "cats/._1.png", ".git/x.png", "cats/.DS_Store")
    files = photos("photos/") | dict.fromkeys(hidden, b"\0\5\x16\7")
    found = READER.read(pack(files, tmp_path / "data"), labels=True)
    assert (found.labels, found.unreadable) == (["cats", "cats", "dogs"], ())


@PACKED
def test_splits_in_an_archive_are_no_classes(tmp_path: Path, pack: Pack) -> None:
    files = {"train/cats/1.png": png(1), "test/cats/1.png": png(2)}
    data = pack(files, tmp_path / "data")
    with pytest.raises(InnerloopError, match=r"splits \(test, train\)"):
        READER.read(data, labels=True)
    assert READER.read(data, labels=False).labels is None


# ------------------------------------------------------------------ tables of paths

TABLE = "Image,note,Class\na/1.png,x,cats\nb/2.png,y,dogs\n"
TABLED = {"a/1.png": png(1), "b/2.png": png(2)}


def test_a_table_names_images_and_labels(tmp_path: Path) -> None:
    root = in_folder({**TABLED, "../apart.png": png(3)}, tmp_path / "data")
    table = root / "photos.csv"
    rows = f"{root / 'a/1.png'},z,cats\n../apart.png,z,birds\nb\\2.png,z,dogs\n"
    table.write_text(TABLE + rows)
    found = READER.read(table, labels=True)
    assert found.names[:2] == ["a/1.png", "b/2.png"]
    assert found.labels == ["cats", "dogs", "cats", "birds", "dogs"]
    assert shades(found) == [1, 2, 1, 3, 2]
    assert READER.read(table, labels=False).labels == found.labels
    table.write_text("image\na/1.png\n")
    assert READER.read(table, labels=False).labels is None
    with pytest.raises(InnerloopError, match=r"no column label or class or y.*_column"):
        READER.read(table, labels=True)


@pytest.mark.parametrize("suffix", [".tsv", ".xlsx", ".parquet", ".jsonl", ".csv.gz"])
def test_every_kind_of_table_names_images(tmp_path: Path, suffix: str) -> None:
    pandas = pytest.importorskip("pandas")
    table = in_folder(TABLED, tmp_path) / f"photos{suffix}"
    frame = pandas.DataFrame({"file": list(TABLED), "y": [1, 2]})
    if suffix == ".xlsx":
        frame.to_excel(table, index=False)
    elif suffix == ".parquet":
        frame.to_parquet(table)
    elif suffix == ".jsonl":
        frame.to_json(table, orient="records", lines=True)
    else:
        frame.to_csv(table, index=False, sep="\t" if suffix == ".tsv" else ",")
    found = READER.read(table, labels=True)
    assert (found.labels, shades(found)) == (["1", "2"], [1, 2])


def test_columns_of_a_table_may_have_other_names(tmp_path: Path) -> None:
    table = in_folder(TABLED, tmp_path) / "photos.csv"
    table.write_text(TABLE.replace("Image", "scan").replace("Class", "species"))
    with pytest.raises(
        InnerloopError, match=r"no column image or file .*has scan, note.*image_column"
    ):
        READER.read(table, labels=True)
    reader = ImageReader(1, (4, 4), image_column="scan", label_column="species")
    assert reader.read(table, labels=True).labels == ["cats", "dogs"]
    assert ImageReader.from_settings(reader.settings()) == reader


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("gone.png,x,cats", r"line 3: there is no file .*gone\.png"),
        (",x,cats", "line 3: it has no image"),
        ("a,x,cats", r"line 3: there is no file .*a"),  # a folder
        ("https://x.org/1.png,x,cats", "line 3: .* is a URL; download"),
        ("a/1.png,x,cats,y", "line 3"),
        ("a/1.png,x,", "no Class|no class in line 3"),
    ],
)
def test_rows_without_an_image_are_named(tmp_path: Path, row: str, why: str) -> None:
    table = in_folder(TABLED, tmp_path) / "photos.csv"
    table.write_text(f"image,note,class\na/1.png,x,dogs\n{row}\n")
    with pytest.raises(InnerloopError, match=why):
        READER.read(table, labels=True)
    found = READER.read(table, labels=False)
    assert shades(found)[0] == 1
    assert found.labels in (None, ["dogs"])
    assert all("line 3" in line for line in found.unreadable)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_table_opens_nothing_but_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "photos.csv").write_text("image,label\npipe.png,a\n/dev/zero,b\n")
    with pytest.raises(InnerloopError, match=r"line 2: there is no file .*, line 3"):
        READER.read(tmp_path / "photos.csv", labels=True)


@PACKED
@pytest.mark.parametrize("around", ["", "data/"])
def test_an_archive_may_hold_a_table_and_images(
    tmp_path: Path, pack: Pack, around: str
) -> None:
    files = {f"images/{i}.png": png(i) for i in range(1, 4)}
    table = "image,label\nimages/2.png,dogs\n./images/1.png,cats\n"
    files = {"labels.csv": table.encode(), **files}
    data = pack({around + k: v for k, v in files.items()}, tmp_path / "data")
    found = READER.read(data, labels=True)
    assert found.names == ["images/2.png", "./images/1.png"]
    assert (found.labels, shades(found)) == (["dogs", "cats"], [2, 1])


@PACKED
def test_a_table_in_an_archive_reads_nothing_outside_of_it(
    tmp_path: Path, pack: Pack
) -> None:
    (tmp_path / "secret.png").write_bytes(png(7))
    for place in ("../secret.png", str(tmp_path / "secret.png")):
        files = {"t.csv": f"image,label\n{place},a\n".encode(), "images/1.png": png(1)}
        with pytest.raises(InnerloopError, match="line 2: the archive holds no file"):
            READER.read(pack(files, tmp_path / "data"), labels=True)


def test_several_tables_in_an_archive_are_refused(tmp_path: Path) -> None:
    table = b"image,label\n1.png,a\n"
    files = {"train.csv": table, "test.csv": table, "1.png": png(1)}
    with pytest.raises(InnerloopError, match=r"several tables .*train\.csv, test\.csv"):
        READER.read(in_zip(files, tmp_path / "data"), labels=True)
    files = {**photos(), "results.csv": table}  # class folders come first
    found = READER.read(in_zip(files, tmp_path / "data"), labels=True)
    assert found.labels == ["cats", "cats", "dogs"]


# ------------------------------------------------------------------ hostile files


def test_a_decompression_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(archives, "MAX_FILE", 1 << 19)
    nothing = {f"a/{i}.png": bytes(400_000) for i in range(8)}
    for pack, what in ((in_zip, "100 times its size"), (in_tar_gz, "decompressed")):
        with pytest.raises(InnerloopError, match=what):
            READER.read(pack(nothing, tmp_path / "bomb"), labels=True)
    large = {**photos(), "cats/large.png": bytes(600_000)}
    found = READER.read(in_zip(large, tmp_path / "large"), labels=True)
    assert len(found.x) == 3
    assert found.unreadable[0].startswith("cats/large.png: it has 0 MiB, more than")
    monkeypatch.setattr(archives, "MAX_FILES", 2)
    with pytest.raises(InnerloopError, match="more than 2 files"):
        READER.read(in_zip(photos(), tmp_path / "many"), labels=True)


def test_a_member_larger_than_its_header_says_is_not_read(tmp_path: Path) -> None:
    path = in_zip({**photos(), "cats/9.png": bytes(100_000)}, tmp_path / "data")
    content = path.read_bytes()
    assert content.count(struct.pack("<I", 100_000)) == 2
    path.write_bytes(content.replace(struct.pack("<I", 100_000), struct.pack("<I", 9)))
    found = READER.read(path, labels=True)
    assert (len(found.x), len(found.unreadable)) == (3, 1)


def test_encrypted_files_are_named(tmp_path: Path) -> None:
    path = in_zip(photos(), tmp_path / "data")
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")  # of the first file, in the directory
    content[place + 8] |= 1
    path.write_bytes(content)
    found = READER.read(path, labels=True)
    assert found.unreadable == ("cats/1.png: it is encrypted",)
    assert found.names == ["cats/old/2.png", "dogs/3.png"]


@PACKED
def test_damaged_archives_are_one_line(tmp_path: Path, pack: Pack) -> None:
    path = pack({**photos(), "dogs/4.png": os.urandom(30_000)}, tmp_path / "data")
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:20], b"", b"PK\3\4junk"):
        path.write_bytes(damaged)
        with pytest.raises(InnerloopError) as raised:
            READER.read(path, labels=True)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value).replace(str(tmp_path), "")) < 300
    with pytest.raises(InnerloopFileError, match="there is no file"):
        READER.read(tmp_path / "gone.zip", labels=True)


def test_a_damaged_member_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = in_zip(photos(), tmp_path / "data")
    content = bytearray(path.read_bytes())
    place = content.index(b"cats/1.png") + 30
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    found = READER.read(path, labels=True)
    assert len(found.x) == 2
    assert found.unreadable[0].startswith("cats/1.png: ")


def test_links_of_a_tar_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(7))
    path = in_tar(photos(), tmp_path / "data")
    with tarfile.open(path, "a") as opened:
        link = tarfile.TarInfo("dogs/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        opened.addfile(link)
        opened.addfile(tarfile.TarInfo("../../evil/5.png"))
    assert READER.read(path, labels=False).names == list(PHOTOS)
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_png_of_400_megapixels_is_not_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    data = in_zip({**photos(), "dogs/4.png": bomb}, tmp_path / "data")
    found = READER.read(data, labels=True)
    assert found.names == list(PHOTOS)
    assert "400000000 pixels" in found.unreadable[0]


def test_names_that_macos_stores_without_a_flag_are_utf8(tmp_path: Path) -> None:
    path = in_zip({"日本/1.png": png(1), "زهور/2.png": png(2)}, tmp_path / "data")
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 9), (b"PK\x03\x04", 7)):
        place = -1
        while (place := content.find(mark, place + 1)) >= 0:
            content[place + offset] &= ~0x08
    path.write_bytes(content)
    assert READER.read(path, labels=True).labels == ["زهور", "日本"]


# ------------------------------------------------------------------ features


class Means(ImageReader):
    """Images as two features: a subclass as of pretrained encoders."""

    kind = "means"

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (2,)

    def pixels(self, files: Any, names: Any) -> Any:
        images, unreadable = super().pixels(files, names)
        return self.features(images.float() / 255), unreadable

    def convert(self, X: Any) -> torch.Tensor:
        return self.features(super().convert(X))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        means = images.flatten(1).mean(1)
        return torch.stack([means, -means], 1)


def test_a_subclass_may_give_features(tmp_path: Path) -> None:
    found = Means(1, (4, 4)).read(in_zip(photos(), tmp_path / "data"), labels=True)
    assert found.x.shape == (3, 2)
    assert found.x[:, 0].tolist() == pytest.approx([10 / 255, 20 / 255, 30 / 255])
    pixels = np.full((2, 6, 6), 20, np.uint8)
    assert torch.equal(Means(1, (4, 4)).convert(pixels), found.x[[1, 1]])
