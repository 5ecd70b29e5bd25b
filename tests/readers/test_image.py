"""Images from files and from memory: scales, modes, damage, and one way for all."""

import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.readers import image as module
from innerloop.readers.image import ImageReader, to_unit


def on_paper(paper: int, ink: int, size: int = 12) -> Image.Image:
    pixels = np.full((size, size), paper, dtype=np.uint8)
    pixels[4:8, 4:8] = ink
    return Image.fromarray(pixels)


def gray(image: Image.Image, **options: bool) -> Tensor:
    return ImageReader(1, (12, 12), **options).decode(image)


@pytest.mark.parametrize(
    ("paper", "ink", "flips"),
    [
        (255, 0, True),
        (200, 90, True),
        (128, 255, True),
        (127, 255, False),
        (0, 255, False),
        (20, 10, False),
    ],
)
def test_dark_background_flips_light_borders_alone(
    paper: int, ink: int, flips: bool
) -> None:
    plain, dark = (
        gray(on_paper(paper, ink)),
        gray(on_paper(paper, ink), dark_background=True),
    )
    assert torch.equal(plain[0], torch.as_tensor(np.array(on_paper(paper, ink))))
    assert torch.equal(dark, 255 - plain if flips else plain)


def test_dark_background_looks_at_the_border_and_not_at_the_middle() -> None:
    pixels = np.full((12, 12), 255, dtype=np.uint8)
    pixels[0, :] = pixels[-1, :] = pixels[:, 0] = pixels[:, -1] = 0
    assert torch.equal(
        gray(Image.fromarray(pixels), dark_background=True)[0], torch.as_tensor(pixels)
    )


def test_dark_background_flips_colors_too() -> None:
    image = Image.new("RGB", (6, 6), (255, 250, 240))
    assert ImageReader(3, (6, 6), True).decode(image)[:, 0, 0].tolist() == [0, 5, 15]


def test_color_and_gray_have_their_channels() -> None:
    red = Image.new("RGB", (8, 6), (255, 0, 0))
    assert ImageReader(3, (6, 8)).decode(red).shape == (3, 6, 8)
    assert ImageReader(3, (6, 8)).decode(red)[:, 2, 3].tolist() == [255, 0, 0]
    assert ImageReader(1, (6, 8)).decode(red).shape == (1, 6, 8)
    assert int(ImageReader(1, (6, 8)).decode(red)[0, 0, 0]) == 76
    assert (
        ImageReader(3, (12, 12)).decode(on_paper(10, 200))[:, 5, 5].tolist()
        == [200] * 3
    )


def test_size_is_height_and_width() -> None:
    wide = np.zeros((4, 8), dtype=np.uint8)
    wide[:, 4:] = 255
    found = ImageReader(1, (2, 4)).decode(Image.fromarray(wide))
    assert found.dtype == torch.uint8
    assert found[0].tolist() == [[0, 0, 255, 255]] * 2
    assert ImageReader(1, (16, 5)).decode(Image.fromarray(wide)).shape == (1, 16, 5)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white_paper(mode: str) -> None:
    image = Image.new("RGBA", (6, 6), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (2, 2, 4, 4))
    stored = io.BytesIO()
    image.convert(mode).save(
        stored,
        "PNG",
        **(
            {"transparency": image.convert("P").getpixel((0, 0))} if mode == "P" else {}
        ),
    )
    found = ImageReader(1, (6, 6)).file(stored)
    assert (int(found[0, 0, 0]), int(found[0, 3, 3])) == (255, 0)


def test_sixteen_bit_gray_keeps_its_range(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 65535, 36).astype(np.uint16).reshape(6, 6)).save(
        tmp_path / "deep.png"
    )
    found = ImageReader(1, (6, 6)).file(tmp_path / "deep.png").flatten().float()
    torch.testing.assert_close(found, torch.linspace(0, 255, 36), atol=1.0, rtol=0)


def test_a_photo_is_read_as_the_phone_was_held(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8), dtype=np.uint8)
    pixels[:, :4] = 255
    how = Image.Exif()
    how[0x0112] = 6  # to be shown a quarter turn clockwise
    Image.fromarray(pixels).save(tmp_path / "held.png", exif=how)
    assert (
        ImageReader(1, (8, 4)).file(tmp_path / "held.png")[0].tolist()
        == [[255] * 4] * 4 + [[0] * 4] * 4
    )


def test_what_is_no_image_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "noise.png").write_bytes(b"not a picture")
    stored = io.BytesIO()
    Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    ).save(stored, "PNG")
    (tmp_path / "half.png").write_bytes(stored.getvalue()[:300])
    for name in ("noise.png", "half.png", "gone.png"):
        with pytest.raises(ValueError, match=rf"cannot read .*{name} as an image"):
            ImageReader().file(tmp_path / name)


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_only_gray_and_color_exist(channels: int) -> None:
    with pytest.raises(ValueError, match=f"must be 1 or 3; got {channels}"):
        ImageReader(channels)


def test_settings_bring_back_the_same_reader() -> None:
    reader = ImageReader(1, (28, 30), True)
    assert ImageReader.from_settings(reader.settings()) == reader
    stored = json.loads(json.dumps(reader.settings()))
    assert ImageReader.from_settings(stored) == reader


def test_to_unit_divides_by_255() -> None:
    assert to_unit(
        torch.tensor([0, 51, 255], dtype=torch.uint8)
    ).tolist() == pytest.approx([0, 0.2, 1])


def drawn(
    left: int, top: int, width: int, height: int, canvas: tuple[int, int] = (105, 105)
) -> Image.Image:
    """A black L on white."""
    pixels = np.full((canvas[1], canvas[0]), 255, dtype=np.uint8)
    pixels[top : top + height, left : left + max(2, width // 8)] = 0
    pixels[top + height - max(2, height // 8) : top + height, left : left + width] = 0
    return Image.fromarray(pixels)


def fitted(image: Image.Image) -> Tensor:
    return (
        ImageReader(1, (28, 28), dark_background=True, normalize_strokes=True)
        .decode(image)[0]
        .float()
        / 255
    )


def test_fitted_strokes_are_centered_and_reach_near_the_edge() -> None:
    for image in (drawn(3, 60, 30, 40), drawn(50, 5, 50, 20), drawn(10, 10, 80, 80)):
        x = fitted(image)
        places = torch.arange(28) + 0.5
        center = [float((x.sum(axis) * places).sum() / x.sum()) for axis in (0, 1)]
        assert center == pytest.approx([14, 14], abs=0.3)
        rows, columns = (x > 0.3).nonzero(as_tuple=True)
        reach = max(float((index + 0.5 - 14).abs().max()) for index in (rows, columns))
        assert 11.5 < reach <= 13.5


def test_fitted_ink_is_the_same_wherever_and_however_large_it_was_drawn() -> None:
    here = fitted(drawn(8, 8, 40, 48))
    assert torch.allclose(here, fitted(drawn(60, 50, 40, 48)), atol=0.02)
    larger = fitted(drawn(60, 40, 80, 96, (210, 160)))
    assert float((here - larger).abs().mean()) < 0.03


def test_a_dot_stays_small_and_an_empty_page_stays_empty() -> None:
    dot = np.full((105, 105), 255, dtype=np.uint8)
    dot[80:84, 20:24] = 0
    assert 0.005 < float(fitted(Image.fromarray(dot)).mean()) < 0.05
    assert (
        float(fitted(Image.fromarray(np.full((105, 105), 255, dtype=np.uint8))).max())
        == 0
    )


# ------------------------------------------------------------------ images in memory

COLOR, GRAY = ImageReader(3, (6, 6)), ImageReader(1, (6, 6))


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("reader", "image"),
    [
        (COLOR, noise(9, 8, 3)),
        (COLOR, noise(3, 9, 8)),
        (GRAY, noise(9, 8, 3)),
        (GRAY, noise(9, 8, 4)),
        (GRAY, noise(9, 8, 1)),
        (GRAY, noise(3, 9, 8)),
        (GRAY, noise(9, 8)),
        (COLOR, torch.rand(3, 6, 6)),
        (GRAY, Image.new("L", (6, 6))),
        (GRAY, "photo.png"),
        (GRAY, Path("photo.png")),
    ],
)
def test_one_image_is_not_taken_for_several(reader: ImageReader, image: Any) -> None:
    with pytest.raises(InnerloopError, match="X"):
        reader.convert(image)


def test_three_gray_images_of_the_size_are_three() -> None:
    assert GRAY.convert(noise(3, 6, 6)).shape == (3, 1, 6, 6)


@pytest.mark.parametrize("channels", [1, 3])
def test_all_forms_of_the_same_images_give_the_same_tensor(
    channels: int, tmp_path: Path
) -> None:
    reader = ImageReader(channels, (6, 6))
    images = noise(5, 9, 8, 3)
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    wanted = torch.stack([to_unit(reader.file(path)) for path in paths])
    forms: dict[str, Any] = {
        "bytes": images,
        "channels first": images.transpose(0, 3, 1, 2),
        "tensor": torch.from_numpy(images),
        "floats": images / 255,
        "float32": torch.from_numpy(images).permute(0, 3, 1, 2) / 255,
        "int64": images.astype(np.int64),
        "16 bits": images.astype(np.uint16) * 257,
        "paths": paths,
        "texts": [str(path) for path in paths],
        "PIL": [Image.open(path) for path in paths],
        "list": list(images),
        "nested lists": images.tolist(),
        "objects": np.array([*map(Image.fromarray, images), None], object)[:-1],
    }
    for name, form in forms.items():
        assert torch.equal(reader.convert(form), wanted), name
    coarse = reader.convert((torch.from_numpy(images) / 255).bfloat16())
    assert float((coarse - wanted).abs().max()) < 0.01


def test_images_of_different_sizes_and_forms_live_in_one_list(tmp_path: Path) -> None:
    Image.fromarray(noise(5, 7)).save(tmp_path / "a.png")
    mixed = [noise(9, 8), noise(12, 4, 3), tmp_path / "a.png", torch.zeros(1, 9, 9)]
    assert GRAY.convert(mixed).shape == (4, 1, 6, 6)


def test_an_image_is_converted_alike_whatever_is_beside_it() -> None:
    dark = np.ones((1, 9, 8), np.uint8)  # at most 1, as black and white would be
    both = np.concatenate([dark, noise(1, 9, 8)])
    assert torch.equal(GRAY.convert(both)[0], GRAY.convert(dark)[0])
    assert float(GRAY.convert(dark).max()) == pytest.approx(1 / 255)
    assert GRAY.convert(dark.astype(bool)).max() == 1
    low = (noise(2, 9, 8) / 255).astype(np.float32)
    low[0] /= 1000
    assert torch.equal(GRAY.convert(low)[0], GRAY.convert(low[:1])[0])


def test_the_scale_of_floats_belongs_to_the_reader() -> None:
    images = noise(4, 9, 8)
    with pytest.raises(InnerloopError, match=r"X\[0\].*between 0 and 1 .*float_white"):
        GRAY.convert(images.astype(np.float32))
    reader = ImageReader(1, (6, 6), float_white=255)
    assert torch.equal(reader.convert(images.astype(np.float32)), GRAY.convert(images))
    stored = json.loads(json.dumps(reader.settings()))
    assert ImageReader.from_settings(stored) == reader


def test_prepared_floats_of_the_shape_stay_as_they_are() -> None:
    x = torch.rand(3, 1, 6, 6)
    reader = ImageReader(1, (6, 6), dark_background=True, normalize_strokes=True)
    assert torch.equal(reader.convert(x), x)
    with pytest.raises(InnerloopError, match="between 0 and 1"):
        reader.convert(x * 255)


@pytest.mark.parametrize(
    ("X", "words"),
    [
        ([], "at least one"),
        (np.zeros((0, 6, 6), np.uint8), "at least one"),
        (np.full((1, 6, 6), np.nan), "finite"),
        (np.full((2, 6, 6), 300), "between 0 and 255"),
        (np.full((2, 6, 6), -1), "between 0 and 255"),
        (np.zeros((2, 6, 6), complex), "real numbers"),
        (np.zeros((2, 5, 6, 7), np.uint8), "3 or 4 channels"),
        (np.zeros((2, 2, 6, 6, 3), np.uint8), "shape"),
        ([np.zeros(5)], r"X\[0\]"),
        ([noise(4, 4), "gone.png"], r"X\[1\].*gone"),
        ([noise(4, 4), None], r"X\[1\]"),
    ],
)
def test_what_cannot_be_converted_is_named(X: Any, words: str) -> None:
    with pytest.raises(InnerloopError, match=words):
        GRAY.convert(X)


def test_photos_in_memory_are_turned_as_files_are(tmp_path: Path) -> None:
    how = Image.Exif()
    how[0x0112] = 6
    Image.fromarray(noise(4, 8)).save(tmp_path / "held.png", exif=how)
    with Image.open(tmp_path / "held.png") as image:
        in_memory = ImageReader(1, (8, 4)).convert([image])
    upright = np.rot90(noise(4, 8), -1)
    wanted = torch.from_numpy(upright.copy())[None, None]
    assert torch.equal(in_memory, to_unit(wanted))


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "HSV", "YCbCr", "P", "RGBA", "RGBX"])
def test_every_mode_shows_the_same_colors(mode: str) -> None:
    colors = Image.new("RGB", (6, 6), (255, 0, 0))
    colors.paste((0, 0, 255), (0, 0, 3, 6))
    found = COLOR.convert([colors.convert(mode)]) * 255
    wanted = torch.from_numpy(np.array(colors).transpose(2, 0, 1)).float()
    assert float((found[0] - wanted).abs().max()) <= 2


# ------------------------------------------------------------------ more than 8 bits


def ramp(top: float, dtype: Any) -> Any:
    return np.linspace(0, top, 36).reshape(6, 6).astype(dtype)


@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        (ramp(4095, np.uint16), ".png"),  # 12 bits in 16
        (ramp(4095, np.uint16), ".tif"),
        (ramp(65535, np.uint16), ".png"),
        (ramp(255, np.int32), ".tif"),
        (ramp(65535, np.int32), ".tif"),
        (ramp(1, np.float32), ".tif"),
        (ramp(255, np.float32), ".tif"),
    ],
)
def test_deep_images_keep_their_range(tmp_path: Path, values: Any, suffix: str) -> None:
    bright, dark = tmp_path / f"bright{suffix}", tmp_path / f"dark{suffix}"
    Image.fromarray(values).save(bright)
    Image.fromarray((values / 8).astype(values.dtype)).save(dark)
    reader = GRAY.for_data([dark, bright])
    full, part = (reader.file(path).flatten().float() for path in (bright, dark))
    torch.testing.assert_close(full, torch.linspace(0, 255, 36), atol=1.0, rtol=0)
    torch.testing.assert_close(part, torch.linspace(0, 255 / 8, 36), atol=1.0, rtol=0)
    # the scale is stored, so an image that is read alone has the brightness it had
    again = ImageReader.from_settings(json.loads(json.dumps(reader.settings())))
    assert torch.equal(again.file(dark).flatten().float(), part)


def test_a_deep_image_beyond_the_white_of_the_reader_is_refused(tmp_path: Path) -> None:
    Image.fromarray(ramp(60000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(InnerloopError, match=r"a\.png.*between 0 and 4095"):
        ImageReader(1, (6, 6), integer_white=4095).file(tmp_path / "a.png")


def test_integers_of_32_bits_need_a_white(tmp_path: Path) -> None:
    Image.fromarray(ramp(255, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(InnerloopError, match=r"a\.tif.*set integer_white"):
        GRAY.file(tmp_path / "a.tif")


def test_transparency_of_16_bits_is_white_there_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(ramp(65535, np.uint16)).save(file, transparency=0)
    found = GRAY.file(file).flatten().float()
    assert found[0] == 255
    torch.testing.assert_close(
        found[1:], torch.linspace(0, 255, 36)[1:], atol=1.0, rtol=0
    )


# ------------------------------------------------------------------ files of users


def test_a_postscript_file_called_png_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )

    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    with pytest.raises(InnerloopError, match=r"photo\.png.*not one of PNG"):
        GRAY.file(tmp_path / "photo.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    Image.new("L", (4, 4)).save(tmp_path / "y.png")
    found = GRAY.read(tmp_path, labels=False)
    assert found.names == ["y.png"]
    assert found.unreadable == ("x.png: it is not a regular file",)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", 10_000, 9_500, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(InnerloopError, match=r"huge\.png.*10000 x 9500 pixels"):
        GRAY.file(tmp_path / "huge.png")


@pytest.mark.parametrize(
    "error", [struct.error("x"), KeyError("x"), ZeroDivisionError()]
)
def test_whatever_a_decoder_raises_is_the_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "odd.png")

    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr(module, "_upright", broken)
    with pytest.raises(InnerloopError, match=r"cannot read .*odd\.png as an image"):
        GRAY.file(tmp_path / "odd.png")


@pytest.mark.parametrize("exif", [b"Exif\x00\x00II*\x00", b"Exif\x00\x00XX*\x00\x08"])
def test_damaged_exif_data_are_ignored(tmp_path: Path, exif: bytes) -> None:
    Image.new("L", (4, 4), 200).save(tmp_path / "odd.png", exif=exif)
    assert GRAY.file(tmp_path / "odd.png").float().mean() == 200


def photos(root: Path) -> Path:
    for place in ("cats/1.png", "cats/2.jfif", "cats/old/3.JPG", "dogs/1.png"):
        file = root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(8, 8)).save(file, "PNG" if "png" in place else "JPEG")
    for place in ("cats/half.png", "dogs/noise.gif", "dogs/4.heic", "cats/5.avif"):
        (root / place).write_bytes(b"\x89PNG")
    (root / "dogs" / "notes.txt").write_text("x")
    (root / "dogs" / ".hidden.png").write_text("x")
    return root


def test_all_unreadable_files_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    found = GRAY.read(photos(tmp_path), labels=True)
    assert found.x.shape == (4, 1, 6, 6)
    assert found.names == ["cats/1.png", "cats/2.jfif", "cats/old/3.JPG", "dogs/1.png"]
    assert found.labels == ["cats", "cats", "cats", "dogs"]
    assert sorted(line.split(":")[0] for line in found.unreadable) == [
        "cats/5.avif",
        "cats/half.png",
        "dogs/4.heic",
        "dogs/noise.gif",
    ]
    assert "1 .txt" in found.note
    assert "images in folders inside the class folders: 1" in found.note
    query = GRAY.read(tmp_path, labels=False)
    assert (query.names, query.labels) == (found.names, found.labels)
    assert len(query.unreadable) == 4
    one = GRAY.read(tmp_path / "cats" / "1.png", labels=False)
    assert torch.equal(one.x, found.x[:1])
    assert one.names == ["1.png"]


@pytest.mark.skipif(os.name != "posix", reason="names are text on this system")
def test_names_that_are_no_utf8_are_read_and_shown(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    with open(folder + b"/na\xefve.png", "wb") as opened:
        Image.new("L", (4, 4)).save(opened, "PNG")
    found = GRAY.read(tmp_path, labels=True)
    assert found.labels == ["caf\\xe9"]
    assert found.names == ["caf\\xe9/na\\xefve.png"]


def test_nothing_readable_is_an_error_that_names_files(tmp_path: Path) -> None:
    with pytest.raises(InnerloopFileError, match=r"there is no folder .*gone"):
        GRAY.read(tmp_path / "gone", labels=False)
    with pytest.raises(InnerloopError, match="holds no images"):
        GRAY.read(tmp_path, labels=False)
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(InnerloopError, match=r"no image that can be read.*bad\.png"):
        GRAY.read(tmp_path, labels=False)


def test_folders_of_splits_are_not_taken_for_classes(tmp_path: Path) -> None:
    for place in ("train/cats", "test/cats"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / place / "1.png")
    with pytest.raises(InnerloopError, match=r"splits \(test, train\)"):
        GRAY.read(tmp_path, labels=True)
    assert GRAY.read(tmp_path / "train", labels=True).labels == ["cats"]


def test_files_read_in_threads_keep_their_order(tmp_path: Path) -> None:
    for i in range(64):
        Image.new("L", (4 + i, 4), i).save(tmp_path / f"{i:02d}.png")
    (tmp_path / "10.png").write_bytes(b"x")
    found = GRAY.read(tmp_path, labels=False)
    shades = (found.x[:, 0, 0, 0] * 255).round().int().tolist()
    assert shades == [i for i in range(64) if i != 10]
    assert found.names == [f"{i:02d}.png" for i in shades]
