"""The pages as files: what they may hold, and how large they are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from innerloop.web.app import PAGES, STATIC
from tests.web.serving import application, ask, environment

ROOT = Path(__file__).resolve().parents[2]
MOST = 150_000  # bytes of all files of the pages, compressed
KINDS = {".html", ".css", ".js", ".json", ".svg", ".png", ".webmanifest"}
FILES = sorted(file for file in STATIC.rglob("*") if file.is_file())
SCRIPTS = [file for file in FILES if file.suffix == ".js"]
IMPORTED = re.compile(r"""(?:import|from)\s*\(?\s*["']([^"'\n]+)["']""")
TEXT = re.compile(
    r"""(?:\bt\(|\bt:|"data-t[a-z-]*":)\s*["']([a-z][\w.]*\.[\w.]+)["']"""
)


class Tags(HTMLParser):
    """The tags of a page, and the text in its scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline, self._within = "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style"):
            self.inline += data.strip()


def relative(file: Path) -> str:
    return file.relative_to(STATIC).as_posix()


def leaves(words: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in words.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def words(language: str) -> dict[str, Any]:
    text = (STATIC / "text" / f"{language}.json").read_text(encoding="utf-8")
    return dict(leaves(json.loads(text)))


@pytest.mark.parametrize("name", PAGES.values())
def test_pages_hold_no_scripts_and_styles(name: str) -> None:
    page = Tags()
    page.feed((STATIC / name).read_text(encoding="utf-8"))
    assert page.inline == ""
    for tag, attributes in page.tags:
        assert tag not in ("style", "base", "iframe", "object", "form"), tag
        wrong = [n for n in attributes if n.startswith("on") or n == "style"]
        assert not wrong, f"<{tag} {wrong[0]}>"
        for link in (attributes.get("src"), attributes.get("href")):
            assert link is None or link.startswith("/"), link
            if link is not None and link.startswith("/static/"):
                assert (STATIC / link.removeprefix("/static/")).is_file(), link


def test_all_files_together_are_small_as_they_are_sent(tmp_path: Path) -> None:
    sizes = {}
    for file in FILES:
        path = f"/static/{relative(file)}"
        answer = ask(application(tmp_path), "GET", path)
        assert answer.status_code == 200, path
        # as a browser asks for it, in the compressed form
        sizes[relative(file)] = int(answer.headers["content-length"])
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert sum(sizes.values()) < MOST, largest


def test_files_are_of_known_kinds() -> None:
    assert {file.suffix for file in FILES} <= KINDS


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_nothing_comes_from_elsewhere(file: Path) -> None:
    if file.suffix == ".png":
        return
    text = file.read_text(encoding="utf-8")
    # names of XML vocabularies are no addresses that are fetched
    text = re.sub(
        r"http://www\.w3\.org/(2000/svg|1999/xlink|1999/xhtml|1998/Math/MathML)",
        "",
        text,
    )
    if file.suffix == ".json":  # a text may name a page that one can open
        assert not re.search(r"<\s*\w", text)
    else:
        assert not re.search(r"""["'(=\s]//\w|https?:(?!//127)""", _code(text))


def _code(text: str) -> str:
    """A script or style without its comments."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return re.sub(r"^\s*//.*$", "", text, flags=re.M)


@pytest.mark.parametrize("file", SCRIPTS, ids=relative)
def test_scripts_keep_to_the_policy(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith("// @ts-check"), "types are not checked"
    code = _code(text)
    for word in ("eval(", "new Function", "innerHTML", "outerHTML", "document.write"):
        assert word not in code, word
    assert "insertAdjacentHTML" not in code
    assert not re.search(r"setAttribute\(\s*[\"'](style|on)", code)
    assert not re.search(r"\bh\([^)]*\bstyle:", code), "a style attribute is refused"
    for name in IMPORTED.findall(code):
        assert name.startswith("."), name
        assert (file.parent / name).resolve().is_file(), name


def test_the_languages_have_the_same_texts() -> None:
    english, chinese = words("en"), words("zh")
    assert sorted(english) == sorted(chinese)
    for key, text in english.items():
        assert isinstance(text, str), key
        if key.endswith(".gap"):  # between words, where a language has one
            continue
        assert text.strip(), key
        assert chinese[key].strip(), key
        if key.endswith("equation"):  # where braces hold parts of formulas
            continue
        fields = [set(re.findall(r"\{(\w+)\}", w[key])) for w in (english, chinese)]
        assert fields[0] == fields[1], key


def test_chinese_texts_are_chinese() -> None:
    english, chinese = words("en"), words("zh")
    ours = re.compile(r"[\u4e00-\u9fff]")
    sentences = [
        key
        for key, text in english.items()
        if len(re.findall(r"[a-z]{3,}", text)) >= 4 and not key.endswith("equation")
    ]
    missing = [key for key in sentences if not ours.search(chinese[key])]
    assert not missing


def test_texts_that_scripts_name_exist() -> None:
    known = words("en")
    missing = {
        f"{relative(file)}: {key}"
        for file in SCRIPTS
        for key in TEXT.findall(file.read_text(encoding="utf-8"))
        if key not in known
    }
    assert not missing


CHECK = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import httpx
import innerloop
from innerloop.web.app import Settings, create_app
assert Path(innerloop.__file__).is_relative_to(sys.argv[1]), innerloop.__file__

async def ask():
    app = create_app(Settings(token="", projects=Path(sys.argv[1]) / "projects"))
    transport = httpx.ASGITransport(app)
    url = "http://127.0.0.1:8765"
    async with httpx.AsyncClient(transport=transport, base_url=url) as client:
        for path in sys.argv[2:]:
            answer = await client.get(path)
            assert answer.status_code == 200 and len(answer.content) > 100, path

asyncio.run(ask())
"""


@pytest.mark.slow
def test_the_wheel_holds_the_pages(tmp_path: Path) -> None:
    """The files as they are installed, not as they lie in the source folder."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path)]
    done = subprocess.run([*build, str(ROOT)], capture_output=True, text=True)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("the wheel needs hatchling, which is not there without a network")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(installed)
        names = set(opened.namelist())
    assert {f"innerloop/web/static/{relative(file)}" for file in FILES} <= names
    ready = (ROOT / "src/innerloop/web/ready").glob("*/*")
    assert {f"innerloop/web/ready/{f.parent.name}/{f.name}" for f in ready} <= names
    assert "innerloop/web/ready/drawings/weights.safetensors" in names
    paths = [*PAGES, *(f"/static/{relative(file)}" for file in FILES)]
    line = [sys.executable, "-c", CHECK, str(installed), *paths]
    done = subprocess.run(
        line,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(PYTHONPATH=""),
    )
    assert done.returncode == 0, done.stderr
