"""Finding symbols on pages: templates, files as cameras write them, and bad input."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from innerloop import finding
from innerloop.core.task import TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.finding import Finder, Occurrence, drawn, example, find, table
from innerloop.learners.metric import ProtoNet
from tests.cli.conftest import cli, fails

__all__ = ["fails"]  # a fixture

PLACES = ((60, 50), (300, 90), (120, 240), (420, 300))
SIDE = 40


def arrow(dark: int = 20, light: int = 240, side: int = SIDE) -> Image.Image:
    image = Image.new("L", (side + 8, side + 8), light)
    pen, end = ImageDraw.Draw(image), side + 4
    pen.line((4, end // 2, end, end // 2), fill=dark, width=4)
    pen.line((end - 16, 6, end, end // 2, end - 16, end - 2), fill=dark, width=4)
    pen.rectangle((4, 4, 14, end - 2), outline=dark, width=3)
    return image


def paper(dark: int = 20, light: int = 240) -> Image.Image:
    """A page with four arrows, one of them smaller, one turned, and other shapes."""
    page = Image.new("L", (520, 380), light)
    pen = ImageDraw.Draw(page)
    pen.line((0, 190, 520, 185), fill=dark, width=2)
    for left in (200, 340):
        pen.ellipse((left, 220, left + 44, 264), outline=dark, width=4)
        pen.rectangle((left - 180, 320, left - 140, 350), outline=dark, width=4)
    for i, place in enumerate(PLACES):
        size = 36 if i == 1 else SIDE + 8
        mark = arrow(dark, light).resize((size, size), Image.Resampling.BICUBIC)
        if i == 2:
            mark = mark.rotate(10, Image.Resampling.BICUBIC, fillcolor=light)
        page.paste(mark, place)
    shade = np.linspace(1.0, 0.75, 520)[None]
    noise = np.random.default_rng(0).normal(0, 4, (380, 520))
    return Image.fromarray((np.asarray(page) * shade + noise).clip(0, 255).astype("u1"))


def centers(found: list[Occurrence]) -> set[int]:
    """Which of the places hold the middle of a box."""
    seen = set()
    for one in found:
        x, y = (one.box[0] + one.box[2]) / 2, (one.box[1] + one.box[3]) / 2
        seen |= {
            i
            for i, (left, top) in enumerate(PLACES)
            if abs(x - left - 24) < 9 and abs(y - top - 24) < 9
        }
    return seen


@pytest.mark.parametrize("ink", [(20, 240), (230, 30)])
def test_all_copies_are_found_on_either_paper(ink: tuple[int, int]) -> None:
    found = find(paper(*ink), {"arrow": [arrow(*ink)]}, smallest=0.7, largest=1.4)
    assert len(found) == 4
    assert centers(found) == {0, 1, 2, 3}
    assert found == sorted(found, key=lambda one: -one.score)
    left, top, right, bottom = min(found, key=lambda one: sum(one.box[:2])).box
    assert (left, top) == pytest.approx((64, 54), abs=3)
    assert (right, bottom) == pytest.approx((105, 95), abs=3)


def test_a_photo_is_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown, it is turned clockwise
    file = tmp_path / "photo.jpg"
    paper().transpose(Image.Transpose.ROTATE_90).save(file, exif=exif, quality=95)
    half = arrow().resize((24, 24), Image.Resampling.BOX)  # of the size on the page
    found = find(file, {"arrow": [half]}, smallest=1.4, largest=2.8)
    assert centers(found) == {0, 1, 2, 3}


def test_a_place_has_one_symbol() -> None:
    other = arrow().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    symbols = {"left": [other], "arrow": [arrow(), arrow(side=60)]}
    found = find(paper(), symbols, smallest=0.7, largest=1.4)
    assert [one.name for one in found if centers([one])] == ["arrow"] * 4


def test_an_example_fills_its_window() -> None:
    ink, side = example(arrow(), "arrow")
    assert side == pytest.approx(SIDE, abs=4)
    rows = (ink > 0.3).any(1).nonzero()[:, 0]
    columns = (ink > 0.3).any(0).nonzero()[:, 0]
    assert int(columns[-1] - columns[0]) + 1 == pytest.approx(20, abs=1)
    assert int(rows[0]) >= 5
    assert int(rows[-1]) < 27


def test_bad_examples_are_refused() -> None:
    page, blank = paper(), Image.new("L", (30, 30), 200)
    dot = Image.new("L", (20, 20), 255)
    dot.putpixel((10, 10), 0)
    with pytest.raises(InnerloopError, match="blank, example 2 shows nothing"):
        find(page, {"blank": [arrow(), blank]})
    with pytest.raises(InnerloopError, match="dot, example 1 is 1 x 1 pixels"):
        find(page, {"dot": [dot]})
    with pytest.raises(InnerloopError, match="no example of a symbol"):
        find(page, {})
    with pytest.raises(InnerloopError, match="in this order; got 2 and 1"):
        Finder({"arrow": [arrow()]}, smallest=2, largest=1)
    with pytest.raises(InnerloopError, match="crop the page, or raise smallest"):
        find(Image.new("L", (9000, 6000), 255), {"a": [arrow(side=8)]}, smallest=0.1)


def test_a_run_of_classes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = ProtoNet.build(TaskSpec("classes", (1, 28, 28), 5))
    monkeypatch.setattr(finding, "load", lambda run: learner)
    with pytest.raises(InnerloopError, match="a run of ProtoNet, which does not find"):
        Finder({"arrow": [arrow()]}, "runs/x")


def test_boxes_are_drawn_and_written() -> None:
    found = [Occurrence("=a", (10, 20, 60, 80), 0.5)]
    picture = drawn(paper(), found)
    assert picture.mode == "RGB"
    assert picture.size == (520, 380)
    assert picture.getpixel((10, 50)) == picture.getpixel((59, 50)) == (214, 39, 40)
    rows = list(csv.DictReader(io.StringIO(table(["p.png"], [found]))))
    expected = {"page": "p.png", "name": "'=a", "left": "10", "top": "20"}
    assert rows == [expected | {"right": "60", "bottom": "80", "score": "0.5000"}]


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Callable[..., str]
) -> None:
    page, crop, folder = tmp_path / "p.png", tmp_path / "crop.png", tmp_path / "marks"
    paper().save(page)
    arrow().save(crop)
    for name in ("arrow", "left"):
        (folder / name).mkdir(parents=True)
        mark = arrow()
        if name == "left":
            mark = mark.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mark.save(folder / name / "1.png")
    out, picture = tmp_path / "boxes.csv", tmp_path / "out.png"
    line = "find --smallest 0.7 --largest 1.4"
    words: list[str | Path] = ["--in", page, "--out", out, "--draw", picture]
    assert cli(line, "--example", folder, *words) == 0
    assert "arrow: found 4 times\nleft: found 0 times\n" in capsys.readouterr().out
    with out.open() as opened:
        assert [row["name"] for row in csv.DictReader(opened)] == ["arrow"] * 4
    assert Image.open(picture).size == (520, 380)
    assert cli(line, "--example", f"mark={crop}", *words) == 0
    assert "mark: found 4 times" in capsys.readouterr().out
    assert "--out boxes.csv" in fails("find", "--example", crop, "--in", page)
    missing = fails("find --example no.png", *words)
    assert "no.png" in missing
    assert "--draw draws one" in fails(
        "find", "--example", crop, "--in", folder, "--draw", picture
    )
