"""A report in a browser without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from innerloop.measurements import TestPlan
from innerloop.report import report


@pytest.fixture(scope="module")
def written(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    html = report(runs[:1], TestPlan(n=4), ways=3, shots=2, queries=2, examples=1)
    file.write_text(html, encoding="utf-8")
    return file


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("script", [True, False])
def test_it_opens_without_requests_or_errors(
    chromium: Any, written: Path, scheme: str, width: int, script: bool
) -> None:
    context = chromium.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        java_script_enabled=script,
        offline=True,
    )
    wrong: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(r.url),
    )
    page.goto(written.as_uri())
    images = page.locator("article img")
    assert images.count() == 3 * 2 + 3 * 2
    assert page.locator("h1").inner_text() == "characters"
    if script:
        loaded = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
        assert page.evaluate(loaded)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (
            ground == {"light": "rgb(250, 248, 244)", "dark": "rgb(19, 19, 24)"}[scheme]
        )
        assert contrasts(page) >= 4.5
    context.close()
    assert not wrong


def contrasts(page: Any) -> float:
    """The lowest contrast of texts on the ground that is behind them."""
    return page.evaluate(
        """() => {
        const canvas = document.createElement('canvas')
          .getContext('2d', { willReadFrequently: true })
        const rgb = text => { canvas.fillStyle = '#000'; canvas.fillStyle = text
          canvas.clearRect(0, 0, 1, 1); canvas.fillRect(0, 0, 1, 1)
          return canvas.getImageData(0, 0, 1, 1).data }
        const light = c => [0, 1, 2].map(i => c[i] / 255)
          .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
          .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0)
        const behind = e => { for (; e; e = e.parentElement) {
          const color = getComputedStyle(e).backgroundColor
          if (rgb(color)[3] === 255) return rgb(color) } return [255, 255, 255] }
        let lowest = 21
        const texts = 'p, td, th, dd, dt, h2, h3, .chip, .badge, .dot, .chart text'
        for (const e of document.querySelectorAll(texts)) {
          if (!e.textContent.trim()) continue
          const style = getComputedStyle(e)
          const own = light(rgb(e instanceof SVGElement ? style.fill : style.color))
          const ground = light(behind(e))
          const [high, low] = own > ground ? [own, ground] : [ground, own]
          lowest = Math.min(lowest, (high + .05) / (low + .05)) }
        return lowest }"""
    )
