"""Classes are taught in a browser."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from innerloop import FewShotClassifier
from innerloop.web.app import STATIC
from innerloop.web.models import READY

from .conftest import Server

expect = pytest.importorskip("playwright.sync_api").expect

Visit = Callable[..., Any]
Strokes = list[list[tuple[float, float]]]
MODELS = {"drawing": "characters", "image": "signs", "text": "themes"}


def circle(radius: float = 0.3) -> Strokes:
    angles = [2 * math.pi * i / 24 for i in range(25)]
    return [[(0.5 + radius * math.cos(a), 0.5 + radius * math.sin(a)) for a in angles]]


def cross(size: float = 0.3) -> Strokes:
    low, high = 0.5 - size, 0.5 + size
    return [[(low, low), (high, high)], [(high, low), (low, high)]]


def draw(canvas: Any, strokes: Strokes) -> None:
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    mouse = canvas.page.mouse
    for stroke in strokes:
        for i, (x, y) in enumerate(stroke):
            mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            if i == 0:
                mouse.down()
        mouse.up()


def card(page: Any, number: int) -> Any:
    return page.locator("section.class").nth(number)


def rename(page: Any, *names: str) -> None:
    for number, name in enumerate(names):
        field = card(page, number).locator("input.name")
        field.fill(name)
        field.press("Enter")
        page.locator(f"section.class h2:has-text('{name}')").wait_for(state="attached")


def use(page: Any, kind: str, model: str = "") -> None:
    tab = page.get_by_role("button", name=model or MODELS[kind], exact=True)
    tab.click()
    expect(tab).to_have_attribute("aria-pressed", "true")
    page.locator(f".teach[data-kind={kind}]").wait_for()
    page.locator("section.class").nth(1).wait_for()


def examples(page: Any, number: int, count: int) -> Any:
    """The examples of a card, once there are so many."""
    found = card(page, number).locator("li[data-example]")
    expect(found).to_have_count(count)
    return found


def answer(page: Any, name: str) -> float:
    """The probability of a class, once the panel says that it is the answer."""
    page.locator(f".verdict strong:text-is('{name}')").wait_for()
    text = page.locator(".bars li.best .share").inner_text()
    return float(text.replace("%", "")) / 100


def drawn(page: Any, each: int = 2, model: str = "") -> None:
    """Teach circles and crosses."""
    use(page, "drawing", model)
    for i in range(each):
        for number, shape in enumerate((circle, cross)):
            draw(card(page, number).locator("canvas"), shape(0.3 - 0.04 * i))
            examples(page, number, i + 1)
    rename(page, "Circle", "Cross")


def choose(page: Any, button: Any, files: list[Path]) -> None:
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(files)


@pytest.mark.parametrize("model", ["characters", "Drawings"])
def test_drawings_are_taught_and_recognized(visit: Visit, model: str) -> None:
    if model == "Drawings" and not READY.exists():
        pytest.skip("the ready model of drawings is not there")
    page = visit()
    drawn(page, model=model)
    canvas = page.locator(".ask canvas")
    draw(canvas, circle(0.25))
    assert answer(page, "Circle") > 0.8
    page.locator("section.class").nth(0).locator("li.near").first.wait_for()
    expect(page.locator(".map .query")).to_be_visible()
    page.get_by_text("the others recognize it: 4 of 4").wait_for()
    page.get_by_role("button", name="Clear").last.click()
    draw(canvas, cross(0.25))
    assert answer(page, "Cross") > 0.8


def test_what_was_asked_is_added_to_a_class(visit: Visit) -> None:
    page = visit()
    drawn(page, 1)
    draw(page.locator(".ask canvas"), cross(0.2))
    answer(page, "Cross")
    page.get_by_role("button", name="Add this to Cross").click()
    examples(page, 1, 2)


def test_changes_are_undone(visit: Visit) -> None:
    page = visit()
    use(page, "drawing")
    undo = page.get_by_role("button", name="Undo", exact=True).first
    expect(undo).to_be_disabled()
    drawn(page, 1)
    thumbnail = examples(page, 0, 1)
    thumbnail.hover()
    page.get_by_role("button", name="Remove example 1 of Circle").click()
    card(page, 0).locator(".empty").wait_for()
    page.locator("body").press("Control+z")
    examples(page, 0, 1)
    page.get_by_role("button", name="Remove Cross", exact=True).click()
    expect(page.locator("section.class")).to_have_count(1)
    undo.click()
    examples(page, 1, 1)


def test_photographs_by_upload(visit: Visit, signs: Path) -> None:
    page = visit()
    use(page, "image")
    for number in range(2):
        files = sorted((signs / f"sign {number}").iterdir())[:2]
        choose(page, card(page, number).get_by_text("Choose files"), files)
        examples(page, number, 2)
    rename(page, "Zero", "One")
    button = page.locator(".ask").get_by_text("Choose a file")
    choose(page, button, [signs / "sign 1" / "1-5.png"])
    assert answer(page, "One") > 0.8


def test_a_file_that_is_no_picture_is_explained(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    use(page, "image")
    (tmp_path / "broken.png").write_bytes(b"this is text")
    choose(page, card(page, 0).get_by_text("Choose files"), [tmp_path / "broken.png"])
    page.locator(".message.error", has_text="broken.png").wait_for()


def test_webcam_records_while_held(visit: Visit) -> None:
    page = visit()
    use(page, "image")
    card(page, 0).get_by_role("button", name="Webcam").click()
    button = card(page, 0).get_by_role("button", name="Hold to record")
    button.wait_for()
    button.focus()
    page.keyboard.down(" ")
    card(page, 0).locator("li[data-example]").nth(1).wait_for()
    page.keyboard.up(" ")
    page.get_by_role("button", name="Close the webcam").click()
    expect(card(page, 0).locator("video")).to_have_count(0)


def test_texts(visit: Visit) -> None:
    page = visit()
    use(page, "text")
    texts = (["soup bread apple", "cheese rice cake"], ["train ticket", "plane hotel"])
    for number, some in enumerate(texts):
        for i, text in enumerate(some):
            card(page, number).locator("textarea").fill(text)
            card(page, number).locator("textarea").press("Enter")
            examples(page, number, i + 1)
    rename(page, "Food", "Travel")
    page.locator(".ask textarea").fill("bread and cheese")
    assert answer(page, "Food") > 0.5
    page.locator(".ask textarea").fill("a ticket for the train")
    answer(page, "Travel")


def test_a_table_adds_its_classes(visit: Visit, themes: Path) -> None:
    page = visit()
    use(page, "text")
    choose(page, page.get_by_role("button", name="Load a .csv"), [themes])
    expect(page.locator("section.class")).to_have_count(6)
    names = page.locator("section.class input.name").evaluate_all(
        "all => all.map(one => one.value)"
    )
    assert names == ["food", "travel", "sport", "music", "animals", "weather"]


def test_a_reload_and_a_file_give_the_same_answers(
    visit: Visit, server: Server, tmp_path: Path
) -> None:
    page = visit()
    drawn(page)
    page.locator(".project input.name").fill("Shapes")
    page.locator(".project input.name").press("Enter")
    shape = [*circle(0.2), *cross(0.25)]

    def probabilities() -> list[str]:
        draw(page.locator(".ask canvas"), shape)
        page.locator(".verdict:not(.hint)").wait_for()
        shares = page.locator(".bars .share")
        seen: list[str] = []
        while seen != (seen := shares.all_inner_texts()) or not seen:
            page.wait_for_timeout(1000)  # the last answer may still be on its way
        return seen

    before = probabilities()
    page.reload()
    examples(page, 0, 2)
    examples(page, 1, 2)
    assert probabilities() == before
    with page.expect_download() as download:
        page.get_by_role("button", name="Save file").click()
    file = tmp_path / download.value.suggested_filename
    assert file.name == "Shapes.zip"
    download.value.save_as(file)
    page.get_by_role("button", name="Projects").click()
    page.get_by_role("button", name="New project").click()
    card(page, 1).locator(".empty").wait_for()
    page.get_by_role("button", name="Projects").click()
    choose(page, page.get_by_role("button", name="Open a file"), [file])
    examples(page, 0, 2)
    assert probabilities() == before
    folder = next(server.projects.rglob("estimator.safetensors")).parent
    assert isinstance(FewShotClassifier.load(folder), FewShotClassifier)


def test_many_pictures_are_labeled(visit: Visit, signs: Path) -> None:
    page = visit()
    use(page, "image")
    for number in range(2):
        files = sorted((signs / f"sign {number}").iterdir())[:1]
        choose(page, card(page, number).get_by_text("Choose files"), files)
        examples(page, number, 1)
    rename(page, "Zero", "One")
    files = [*(signs / "sign 0").iterdir(), *(signs / "sign 1").iterdir()]
    choose(page, page.locator(".label").get_by_text("Choose files"), files)
    rows = page.locator(".label tbody tr")
    rows.nth(11).wait_for()
    for row in rows.all_inner_texts():
        name, label = row.split()[:2]
        assert label == {"0": "Zero", "1": "One"}[name[0]]
    page.get_by_text("Label this one next").wait_for()
    page.locator(".next .pick", has_text="One").click()
    examples(page, 1, 2)
    for format in ("csv", "zip"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download .{format}").click()
        assert download.value.suggested_filename.endswith(format)


def test_keyboard_only(visit: Visit) -> None:
    page = visit()
    use(page, "drawing")
    keys = page.keyboard

    def reach(selector: str) -> None:
        for _ in range(80):
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
            keys.press("Tab")
        raise AssertionError(f"{selector} cannot be reached")

    def line(way: str, steps: int = 8) -> None:
        keys.press(" ")
        for _ in range(steps):
            keys.press(way)
        keys.press(" ")

    page.locator("body").focus()
    for number, way in enumerate(("ArrowRight", "ArrowDown")):
        for i in range(2):
            reach(f"section.class:nth-of-type({number + 1}) canvas")
            line(way, 8 - i)
            keys.press("Enter")
            examples(page, number, i + 1)
    announced = page.locator("#announcer")
    reach(".ask canvas")
    line("ArrowDown")
    page.locator(".bars li.best").wait_for()
    expect(page.locator(".verdict strong")).to_have_text("Class 2")
    expect(announced).to_contain_text("Class 2, ")
    keys.press("Backspace")
    expect(page.locator(".sketch.drawn")).to_have_count(0)


def test_chinese(visit: Visit) -> None:
    page = visit()
    drawn(page, 1)
    draw(page.locator(".ask canvas"), circle())
    answer(page, "Circle")
    page.locator("#language").click()
    page.get_by_role("heading", name="教会它任何东西").wait_for()
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    page.get_by_text("添加类别").wait_for()
    own = {"innerloop", "Circle", "Cross", "English", "characters", "signs", "themes"}
    words = page.locator("main").inner_text()
    for word in own:
        words = words.replace(word, "")
    english = [line for line in words.splitlines() if _is_english(line)]
    assert not english
    assert page.locator(".ask canvas").get_attribute("aria-label") == "画出要识别的内容"


def _is_english(line: str) -> bool:
    plain = line.replace("ms", "").replace(".csv", "").replace(".zip", "")
    return any(c.isascii() and c.isalpha() for c in plain) and not any(
        "\u4e00" <= c <= "\u9fff" for c in plain
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_narrow_window(visit: Visit, theme: str) -> None:
    page = visit(viewport={"width": 390, "height": 844}, color_scheme=theme)
    drawn(page, 1)
    draw(page.locator(".ask canvas"), circle())
    answer(page, "Circle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_is_drawn_anew_under_a_held_pointer_is_clicked(visit: Visit) -> None:
    page = visit()
    drawn(page, 1)
    tab = page.get_by_role("button", name="themes", exact=True)
    box = tab.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.evaluate(
        """async () => {
            const store = await import("/static/js/teach/store.js");
            store.events.dispatchEvent(new Event("change"));
        }"""
    )
    page.mouse.up()
    expect(tab).to_have_attribute("aria-pressed", "true")


def test_the_last_of_two_chosen_models_is_opened(visit: Visit) -> None:
    page = visit()
    use(page, "drawing")
    page.evaluate(
        """() => {
            const tabs = [...document.querySelectorAll(".tab")];
            const named = (name) => tabs.find((tab) => tab.textContent === name);
            named("themes").click();
            named("characters").click();
        }"""
    )
    expect(page.locator(".busy")).to_have_count(0)
    tab = page.get_by_role("button", name="characters", exact=True)
    expect(tab).to_have_attribute("aria-pressed", "true")


def test_all_controls_have_names(visit: Visit) -> None:
    page = visit()
    drawn(page, 1)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, canvas, a")]
        .filter(e => e.checkVisibility() && !e.ariaLabel && !e.textContent.trim())
        .map(e => e.outerHTML)"""
    )
    assert nameless == []


def test_a_model_that_is_not_installed_says_what_to_install(visit: Visit) -> None:
    page = visit("/learn")
    model = {"name": "texts", "title": "Texts", "kind": "text", "ready": False}
    missing = {**model, "note": "", "missing": "innerloop[texts]"}
    page.route("**/api/models", lambda r: r.fulfill(json={"models": [missing]}))
    page.goto(page.url.partition("/learn")[0])
    page.get_by_text("pip install 'innerloop[texts]'").wait_for()
    page.get_by_text("No model is ready yet").wait_for()


def _keys(words: Any, start: str = "") -> Iterator[str]:
    if isinstance(words, str):
        yield start
        return
    for name, value in words.items():
        yield from _keys(value, f"{start}.{name}")


def test_languages_have_the_same_texts() -> None:
    files = [STATIC / "text" / f"{name}.json" for name in ("en", "zh")]
    english, chinese = (set(_keys(json.loads(file.read_text()))) for file in files)
    assert english == chinese
