"""Episodes from folders of images, read once, and errors of folders without images."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from innerloop.cli import main
from innerloop.engine.errors import InnerloopError
from innerloop.experiment import load
from innerloop.readers import ImageReader
from innerloop.tasks import folder
from innerloop.tasks.folder import group_by_label, read_classes
from innerloop.tasks.splits import SPLITS, split_indices
from tests.readers.test_sources import Means


@pytest.fixture(autouse=True)
def _own_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path_factory.mktemp("cache")))


def fill(
    root: Path,
    classes: int = 10,
    images: int = 3,
    mode: str = "L",
    suffix: str = ".png",
) -> Path:
    """Images of one shade each: the class's number, and how many images of it came
    before.
    """
    for c in range(classes):
        (root / f"class{c}").mkdir(parents=True)
        for i in range(images):
            shade = 10 * c + i
            Image.new(mode, (8, 8), shade if mode == "L" else (shade, 0, 255)).save(
                root / f"class{c}" / f"{i}{suffix}"
            )
    return root


GRAY = ImageReader(1, (4, 4))


def test_classes_are_read_in_order_of_name(tmp_path: Path) -> None:
    bank = read_classes(fill(tmp_path), GRAY)
    assert bank.names == tuple(f"class{c}" for c in range(10))
    assert bank.counts.tolist() == [3] * 10
    assert bank.values[:, 0, 0, 0].tolist() == [
        10 * c + i for c in range(10) for i in range(3)
    ]


def test_episodes_come_from_one_split(tmp_path: Path) -> None:
    fill(tmp_path)
    tasks = folder(
        root=tmp_path, reader=GRAY, ways=3, shots=1, queries=2, augment=False
    )
    assert (tasks.spec.x_shape, tasks.spec.y_dim) == ((1, 4, 4), 3)
    shades = (
        (tasks.sample(40, torch.Generator().manual_seed(0)).query.x * 255)
        .round()
        .long()
    )
    assert {f"class{c // 10}" for c in shades.unique().tolist()} == set(
        tasks.bank.names
    )
    names = [
        name
        for split in SPLITS
        for name in folder(
            split, root=str(tmp_path), reader=GRAY, ways=2, queries=1
        ).bank.names
    ]
    assert sorted(names) == [f"class{c}" for c in range(10)]


def test_only_training_is_augmented_by_default(tmp_path: Path) -> None:
    fill(tmp_path, images=2)
    read = {"root": tmp_path, "reader": GRAY, "ways": 2, "queries": 1}
    assert [folder(split, **read).warp is not None for split in SPLITS] == [
        True,
        False,
        False,
    ]
    assert folder("train", augment=False, **read).warp is None
    assert folder("test", augment=True, **read).warp is not None


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("L", 3), ("RGB", 1), ("RGB", 3)]
)
def test_gray_and_color_images_are_read_in_either_way(
    tmp_path: Path, mode: str, channels: int
) -> None:
    bank = read_classes(fill(tmp_path, 2, 1, mode), ImageReader(channels, (5, 5)))
    assert bank.values.shape == (2, channels, 5, 5)
    pixel = bank.values[1, :, 0, 0].tolist()
    assert (
        pixel
        == {
            ("L", 1): [10],
            ("L", 3): [10] * 3,
            ("RGB", 1): [round(0.299 * 10 + 0.114 * 255)],
            ("RGB", 3): [10, 0, 255],
        }[mode, channels]
    )


@pytest.mark.parametrize(
    "suffix", [".PNG", ".JPG", ".Jpeg", ".bmp", ".GIF", ".tiff", ".webp"]
)
def test_suffixes_in_any_case_are_images(tmp_path: Path, suffix: str) -> None:
    bank = read_classes(fill(tmp_path, 2, 2, suffix=suffix), GRAY)
    assert bank.counts.tolist() == [2, 2]
    assert abs(int(bank.values[3].float().mean()) - 11) <= 2


def test_images_of_different_sizes_and_other_files_live_together(
    tmp_path: Path,
) -> None:
    fill(tmp_path, 2, 1)
    Image.fromarray(np.zeros((30, 20), dtype=np.uint8)).save(
        tmp_path / "class0" / "large.jpg"
    )
    (tmp_path / "class0" / "notes.txt").write_text("no image")
    (tmp_path / "readme.md").write_text("no class")
    (tmp_path / ".cache").mkdir()
    bank = read_classes(tmp_path, GRAY)
    assert bank.names == ("class0", "class1")
    assert bank.counts.tolist() == [2, 1]


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*gone"):
        folder(root=tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*file"):
        folder(root=tmp_path / "file")


def test_a_root_without_class_folders_says_what_to_do(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "loose.png")
    with pytest.raises(
        ValueError,
        match="holds no class folders: put the images of each class into a folder of "
        "its own",
    ):
        folder(root=tmp_path)


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    (fill(tmp_path, 2) / "class9").mkdir()
    with pytest.raises(ValueError, match="class9 holds no images"):
        folder(root=tmp_path)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (fill(tmp_path) / "class1" / "broken.png").write_bytes(b"GIF89a")
    bank = read_classes(tmp_path, GRAY)
    assert bank.counts.tolist() == [3] * 10
    assert "images that cannot be read (1): class1/broken.png" in bank.note


def test_too_few_classes_or_images_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    with pytest.raises(ValueError, match="has 0 of 4 classes"):
        folder("val", root=tmp_path, reader=GRAY)
    with pytest.raises(
        ValueError, match=r"0 of 3 classes have that many \(the largest has 3\)"
    ):
        folder("train", root=tmp_path, reader=GRAY, ways=2)
    with pytest.raises(ValueError, match="one of train, val, test"):
        folder("dev", root=tmp_path, reader=GRAY)


class Decodes:
    """Counts the images that are decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.count = 0
        original = ImageReader.decode

        def counting(reader: ImageReader, image: Image.Image) -> torch.Tensor:
            self.count += 1
            return original(reader, image)

        monkeypatch.setattr(ImageReader, "decode", counting)


SMALL = {"reader": GRAY, "ways": 2, "queries": 1}


def test_a_training_run_decodes_every_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    decodes = Decodes(monkeypatch)
    banks = [folder(split, root=tmp_path, **SMALL).bank for split in (*SPLITS, "train")]
    assert decodes.count == 30
    assert all(bank.values is banks[0].values for bank in banks)


def test_a_second_process_decodes_nothing(tmp_path: Path) -> None:
    tasks = folder("test", root=fill(tmp_path), **SMALL)
    script = """
import sys
from innerloop.readers import ImageReader
from innerloop.tasks import folder
def decode(*_):
    raise AssertionError("an image was decoded")
ImageReader.decode = decode
reader = ImageReader(1, (4, 4))
for split in ("train", "val", "test"):
    tasks = folder(split, root=sys.argv[1], reader=reader, ways=2, queries=1)
print("".join(sorted(tasks.item_keys())))
"""
    found = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "".join(sorted(tasks.item_keys()))


def test_a_changed_file_another_reader_and_a_damaged_cache_are_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(reader: ImageReader = GRAY) -> list[int]:
        bank = read_classes(tmp_path, reader)
        return bank.values[:, 0, 0, 0].tolist()

    shades = [10 * c + i for c in range(10) for i in range(3)]
    fill(tmp_path)
    decodes = Decodes(monkeypatch)
    recent = sys.modules["innerloop.tasks.folder"]._RECENT
    assert read() == shades
    Image.new("L", (8, 8), 250).save(tmp_path / "class0" / "0.png")
    assert read() == [250, *shades[1:]]
    assert read(ImageReader(1, (3, 3))) == [250, *shades[1:]]
    assert decodes.count == 90
    recent.clear()
    assert read() == [250, *shades[1:]]
    assert decodes.count == 90
    entries = list(Path(os.environ["INNERLOOP_CACHE"]).rglob("*.safetensors"))
    assert len(entries) == 3
    for damage in (b"", b"x" * 100, None):
        for entry in entries:
            content = bytearray(entry.read_bytes())
            content[-200] ^= 1  # a flipped bit among the pixels
            entry.write_bytes(content if damage is None else damage)
        recent.clear()
        before = decodes.count
        assert read() == [250, *shades[1:]]
        assert decodes.count == before + 30
        entries = [entry for entry in entries if entry.stat().st_size > 200]


def test_an_unwritable_cache_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "file" / "below"))
    assert len(read_classes(fill(tmp_path / "photos"), GRAY)) == 10


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_without_classes_says_where_they_went(
    tmp_path: Path, split: str
) -> None:
    fill(tmp_path, 2)
    with pytest.raises(
        InnerloopError,
        match=r"of 2 classes \(train 1, val 1, test 0\).*--all-classes",
    ):
        folder(split, root=tmp_path, **SMALL)


def test_the_description_says_where_the_classes_went(tmp_path: Path) -> None:
    tasks = folder("train", root=fill(tmp_path), **SMALL)
    assert "from 6 classes" in tasks.describe()
    assert "(train 6, val 2, test 2 classes)" in tasks.describe()


def test_all_classes_can_be_used_in_every_split(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    for split in SPLITS:
        tasks = folder(split, root=tmp_path, all_classes=True, **SMALL)
        assert tasks.bank.names == ("class0", "class1")


def test_an_image_in_two_splits_is_used_in_the_later_one(tmp_path: Path) -> None:
    fill(tmp_path, 10, 4)
    names = [f"class{c}" for c in range(10)]
    first = {split: names[split_indices(names, split)[0]] for split in SPLITS}
    for split in ("val", "test"):
        copied = (tmp_path / first[split] / "0.png").read_bytes()
        (tmp_path / first["train"] / f"copy of {split}.png").write_bytes(copied)
    tasks = {split: folder(split, root=tmp_path, **SMALL) for split in SPLITS}
    keys = {split: tasks[split].item_keys() for split in SPLITS}
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["val"]
    assert len(keys["test"]) == 8
    assert "in a later split, left out: 2" in tasks["train"].note
    assert not tasks["test"].note
    everything = folder("train", root=tmp_path, all_classes=True, **SMALL)
    assert int(everything.bank.counts.sum()) == 42


def test_the_whites_of_deep_images_are_kept_with_the_reader(tmp_path: Path) -> None:
    for c in range(10):
        (tmp_path / f"class{c}").mkdir()
        for i in range(3):
            values = np.full((8, 8), 400 * c + 10 * i, np.uint16)
            Image.fromarray(values).save(tmp_path / f"class{c}" / f"{i}.png")
    tasks = folder("test", root=tmp_path, size=4, ways=2, queries=1)
    assert tasks.reader == ImageReader(1, (4, 4), integer_white=4095)
    later = folder("train", root=tmp_path, ways=2, queries=1, reader=tasks.reader)
    assert later.reader == tasks.reader
    brightest = int(read_classes(tmp_path, tasks.reader).values.max())
    assert brightest == round(3620 / 4095 * 255)


def test_options_are_checked(tmp_path: Path) -> None:
    fill(tmp_path)
    for wrong in ({"ways": 1}, {"shots": 0}, {"size": 0}, {"channels": 2}):
        with pytest.raises(InnerloopError, match=next(iter(wrong))):
            folder(root=tmp_path, **wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InnerloopError, match="needs root"):
        folder()  # pyright: ignore[reportCallIssue]


def test_group_by_label_brings_examples_class_by_class() -> None:
    names, order, counts = group_by_label(["b", "a", "b", "c", "a", "b"])
    assert (names, order.tolist(), counts) == (
        ["a", "b", "c"],
        [1, 4, 0, 2, 5, 3],
        [2, 3, 1],
    )


def as_table(root: Path, columns: str = "image,label") -> Path:
    """A table of images that lie in one folder."""
    lines = [columns]
    for file in sorted(root.rglob("*.png"), reverse=True):
        lines.append(f"{root.name}/{file.parent.name}/{file.name},{file.parent.name}")
    table = root.parent / "photos.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def test_a_table_and_an_archive_are_the_same_tasks_as_folders(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos")
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "photos")
    wanted = read_classes(root, GRAY)
    for path in (as_table(root), Path(packed)):
        bank = read_classes(path, GRAY)
        assert (bank.names, bank.counts.tolist()) == (wanted.names, [3] * 10)
        assert bank.class_keys() == wanted.class_keys()
        tasks = folder("test", root=path, size=4, ways=2, queries=1)
        assert tasks.item_keys() == folder("test", root=root, **SMALL).item_keys()


def test_a_changed_label_or_archive_is_read_anew(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", 2)
    table = tmp_path / "photos.csv"
    files = [f"photos/class{c}/{i}.png" for c in range(2) for i in range(3)]
    for first in (3, 2):  # images of the first class; the order stays the same
        rows = [f"{file},{'ab'[i >= first]}" for i, file in enumerate(files)]
        table.write_text("image,label\n" + "\n".join(rows) + "\n")
        assert read_classes(table, GRAY).counts.tolist() == [first, 6 - first]
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", root)
    assert int(read_classes(packed, GRAY).values.max()) == 12
    Image.new("L", (8, 8), 250).save(root / "class1" / "2.png")
    shutil.make_archive(str(tmp_path / "packed"), "zip", root)
    assert int(read_classes(packed, GRAY).values.max()) == 250


def test_columns_of_a_table_of_images_are_options(tmp_path: Path) -> None:
    table = as_table(fill(tmp_path / "photos"), "scan,species")
    with pytest.raises(InnerloopError, match=r"no column image .*image_column"):
        folder(root=table, **SMALL)
    columns = {"image_column": "scan", "label_column": "species"}
    tasks = folder(root=table, **SMALL, **columns)
    assert len(tasks.bank) == 6
    again = folder(root=table, reader=tasks.reader, ways=2, queries=1)
    assert again.bank.names == tasks.bank.names


def test_a_reader_of_features_makes_tasks_of_vectors(tmp_path: Path) -> None:
    root = fill(tmp_path)
    reader = Means(1, (4, 4))
    pixels = read_classes(root, GRAY)
    tasks = folder("train", root=root, reader=reader, ways=2, queries=1)
    assert (tasks.spec.x_shape, tasks.warp) == ((2,), None)
    assert tasks.reader == reader
    assert tasks.sample(4, torch.Generator().manual_seed(0)).support.x.shape == (
        4,
        2,
        2,
    )
    bank = read_classes(root, reader)
    torch.testing.assert_close(
        bank.values[:, 0], pixels.values.float().flatten(1).mean(1) / 255
    )
    with pytest.raises(InnerloopError, match="only images can be distorted"):
        folder("train", root=root, reader=reader, ways=2, queries=1, augment=True)
    sys.modules["innerloop.tasks.folder"]._RECENT.clear()
    assert torch.equal(read_classes(root, reader).values, bank.values)  # of the cache


def test_layouts_go_from_train_to_adapt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fill(tmp_path / "photos", 5, 4)
    packed = shutil.make_archive(str(tmp_path / "packed"), "gztar", tmp_path, "photos")
    run, out = str(tmp_path / "run"), tmp_path / "out.csv"
    sizes = ["--steps", "2", "--ways", "2", "--queries", "1", "--size", "8"]
    source = ["train", "protonet", "folder", "--root", packed, "--all-classes"]
    assert main([*source, *sizes, "--out", run]) == 0
    assert load(run).reader == ImageReader(1, (8, 8))
    table = as_table(root)
    for query in (root, packed, table):
        capsys.readouterr()
        command = ["adapt", run, "--support", str(table), "--query", str(query)]
        assert main([*command, "--out", str(out)]) == 0
        assert "20 have the label" in capsys.readouterr().out
        with out.open() as opened:
            assert len(list(csv.DictReader(opened))) == 20
    (root / "class4").rename(root / "unknown")  # no class of the support set
    command = ["adapt", run, "--support", packed, "--query", str(root)]
    assert main([*command, "--out", str(out)]) == 0
    assert "accuracy" not in capsys.readouterr().out
