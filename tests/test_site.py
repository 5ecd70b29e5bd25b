"""The site of the documentation builds without a warning, its links lead somewhere, and
it needs nothing from the network.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from tests.test_docs import ROOT


class Page(HTMLParser):
    """The anchors of a page, its links, and what a browser loads with it."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if name := found.get("id"):
            self.ids.add(name)
        if tag == "a" and (target := found.get("href")):
            self.links.append(target)
        elif target := found.get("src"):
            self.loaded.append(target)
        elif tag == "link" and found.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(found.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    unread = shutil.ignore_patterns("__pycache__", "*.py")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=unread)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("zensical")), "build", "--strict"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {
        path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"
    }


def test_every_page_is_there(pages: dict[Path, Page], site: Path) -> None:
    docs = ROOT / "docs"
    expected = {
        site / path.relative_to(docs).with_suffix(".html")
        for path in docs.rglob("*.md")
    }
    assert expected <= set(pages)


def test_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlparse(link)
            if parts.scheme:
                continue
            file = unquote(parts.path)
            target = (path.parent / file).resolve() if file else path
            there = target in pages if target.suffix == ".html" else target.exists()
            missing = parts.fragment and there and target in pages
            if not there or (
                missing and unquote(parts.fragment) not in pages[target].ids
            ):
                broken.append(f"{path.name}: {link}")
    assert not broken


def test_a_page_loads_nothing_from_elsewhere(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for target in page.loaded:
            assert not re.match(r"(\w+:)?//", target), (path.name, target)
            if not target.startswith("data:"):
                assert (path.parent / target.split("?")[0]).exists(), target


def test_every_page_by_hand_is_in_the_navigation() -> None:
    listed = set(re.findall(r"(\S+\.md)", (ROOT / "mkdocs.yml").read_text("utf-8")))
    docs = ROOT / "docs"
    there = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    indexes = {"learners/index.md", "reference/index.md"}
    generated = tuple(name.removesuffix("index.md") for name in indexes)
    assert listed == indexes | {n for n in there if not n.startswith(generated)}
