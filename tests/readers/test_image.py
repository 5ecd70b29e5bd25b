"""Image files as bytes: grey and colour, transparent, on light and dark ground."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from innerloop.readers.image import ImageReader, to_unit


def on_paper(paper: int, ink: int, size: int = 12) -> Image.Image:
    pixels = np.full((size, size), paper, dtype=np.uint8)
    pixels[4:8, 4:8] = ink
    return Image.fromarray(pixels)


def grey(image: Image.Image, **options: bool) -> Tensor:
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
        grey(on_paper(paper, ink)),
        grey(on_paper(paper, ink), dark_background=True),
    )
    assert torch.equal(plain[0], torch.as_tensor(np.array(on_paper(paper, ink))))
    assert torch.equal(dark, 255 - plain if flips else plain)


def test_dark_background_looks_at_the_border_and_not_at_the_middle() -> None:
    pixels = np.full((12, 12), 255, dtype=np.uint8)
    pixels[0, :] = pixels[-1, :] = pixels[:, 0] = pixels[:, -1] = 0
    assert torch.equal(
        grey(Image.fromarray(pixels), dark_background=True)[0], torch.as_tensor(pixels)
    )


def test_dark_background_flips_colours_too() -> None:
    image = Image.new("RGB", (6, 6), (255, 250, 240))
    assert ImageReader(3, (6, 6), True).decode(image)[:, 0, 0].tolist() == [0, 5, 15]


def test_colour_and_grey_have_their_channels() -> None:
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


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path) -> None:
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
def test_only_grey_and_colour_exist(channels: int) -> None:
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
    """An L of black ink on white paper."""
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
        centre = [float((x.sum(axis) * places).sum() / x.sum()) for axis in (0, 1)]
        assert centre == pytest.approx([14, 14], abs=0.3)
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
