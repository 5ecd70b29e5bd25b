"""Episodes from folders of images, and what is said about folders that are none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from innerloop.readers import ImageReader
from innerloop.tasks import folder
from innerloop.tasks.folder import group_by_label, read_classes
from innerloop.tasks.splits import SPLITS


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


GREY = ImageReader(1, (4, 4))


def test_classes_are_read_in_order_of_name(tmp_path: Path) -> None:
    bank = read_classes(fill(tmp_path), GREY)
    assert bank.names == tuple(f"class{c}" for c in range(10))
    assert bank.counts.tolist() == [3] * 10
    assert bank.values[:, 0, 0, 0].tolist() == [
        10 * c + i for c in range(10) for i in range(3)
    ]


def test_episodes_come_from_one_part(tmp_path: Path) -> None:
    fill(tmp_path)
    tasks = folder(
        root=tmp_path, reader=GREY, ways=3, shots=1, queries=2, augment=False
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
        for part in SPLITS
        for name in folder(
            part, root=str(tmp_path), reader=GREY, ways=2, queries=1
        ).bank.names
    ]
    assert sorted(names) == [f"class{c}" for c in range(10)]


def test_only_training_is_augmented_unless_said_otherwise(tmp_path: Path) -> None:
    fill(tmp_path, images=2)
    read = {"root": tmp_path, "reader": GREY, "ways": 2, "queries": 1}
    assert [folder(part, **read).warp is not None for part in SPLITS] == [
        True,
        False,
        False,
    ]
    assert folder("train", augment=False, **read).warp is None
    assert folder("test", augment=True, **read).warp is not None


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("L", 3), ("RGB", 1), ("RGB", 3)]
)
def test_grey_and_colour_images_are_read_as_asked(
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
    bank = read_classes(fill(tmp_path, 2, 2, suffix=suffix), GREY)
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
    bank = read_classes(tmp_path, GREY)
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
    bank = read_classes(tmp_path, GREY)
    assert bank.counts.tolist() == [3] * 10
    assert "1 images cannot be read: class1/broken.png" in bank.note


def test_too_few_classes_or_images_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    with pytest.raises(ValueError, match="has 0 of 4 classes"):
        folder("val", root=tmp_path, reader=GREY)
    with pytest.raises(ValueError, match="classes"):
        folder("train", root=tmp_path, reader=GREY, ways=2)
    with pytest.raises(ValueError, match="one of train, val, test"):
        folder("dev", root=tmp_path, reader=GREY)


def test_group_by_label_brings_examples_class_by_class() -> None:
    names, order, counts = group_by_label(["b", "a", "b", "c", "a", "b"])
    assert (names, order.tolist(), counts) == (
        ["a", "b", "c"],
        [1, 4, 0, 2, 5, 3],
        [2, 3, 1],
    )
