"""The chapters of the page Understand, and the page Train, in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api").expect

Visit = Callable[..., Any]
CHINESE = re.compile("[\u4e00-\u9fff]")
SEEN = """section => [
  section.innerText,
  ...[...section.querySelectorAll('canvas')].map(canvas => canvas.toDataURL()),
  ...[...section.querySelectorAll('svg')].map(drawn => drawn.innerHTML),
  ...[...section.querySelectorAll('input')].map(input => input.value),
].join('|')"""


def place(chapter: Any, selector: str, x: float, y: float) -> tuple[float, float]:
    """A point of the first visible match, x and y in 0..1 from its corner."""
    target = chapter.locator(selector).first
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    assert box is not None
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def click(selector: str, x: float = 0.5, y: float = 0.5) -> Callable[[Any], None]:
    def act(chapter: Any) -> None:
        chapter.page.mouse.click(*place(chapter, selector, x, y))

    return act


def drag(selector: str) -> Callable[[Any], None]:
    def act(chapter: Any) -> None:
        mouse = chapter.page.mouse
        mouse.move(*place(chapter, selector, 0.3, 0.3))
        mouse.down()
        for share in (0.4, 0.5, 0.6, 0.7):
            mouse.move(*place(chapter, selector, share, 1.1 - share))
        mouse.up()

    return act


def press(selector: str, key: str) -> Callable[[Any], None]:
    return lambda chapter: chapter.locator(selector).first.press(key)


def write(chapter: Any) -> None:
    chapter.locator("input").nth(1).fill("Ada L.")


TOUCHES = {
    "prototypes": press(".live [tabindex='0']", "ArrowRight"),
    "sinusoid": click(".live svg", 0.6, 0.3),
    "process": click(".live svg", 0.6, 0.3),
    "bandit": press(".live button.arm", "Enter"),
    "memory": click(".live button.bit"),
    "optimizer": click(".live canvas", 0.8, 0.8),
    "program": write,
    "imagine": drag(".live canvas"),
    "evolution": click(".live .tools button"),
}


@pytest.mark.parametrize("name", TOUCHES)
def test_a_chapter_moves_when_it_is_touched(visit: Visit, name: str) -> None:
    page = visit("/learn")
    chapter = page.locator(f"section[id='/{name}']")
    chapter.scroll_into_view_if_needed()
    chapter.locator(".picture[aria-busy=false] .live").wait_for()
    expect(chapter.locator("math").first).to_be_attached()
    page.wait_for_load_state("networkidle")
    before = chapter.evaluate(SEEN)
    TOUCHES[name](chapter)
    page.wait_for_function(
        f"([section, before]) => ({SEEN})(section) !== before",
        arg=[chapter.element_handle(), before],
    )


def test_the_course_is_in_chinese_too(visit: Visit) -> None:
    page = visit("/learn", locale="zh-CN")
    titles = page.locator("section.chapter h2")
    expect(titles).to_have_count(9)
    expect(titles).to_have_text([CHINESE] * 9)
    expect(page.locator("main")).not_to_contain_text("tour.")


def test_trainings_are_off_and_the_page_says_how_to_allow_them(visit: Visit) -> None:
    page = visit("/train")
    page.get_by_text("--allow-training").first.wait_for()
