"""A translated page has everything that its original has, in the same order."""

from __future__ import annotations

import io
import re
import shlex
import tokenize
from collections import Counter
from pathlib import Path

import pytest

from tests.test_docs import PAGES, ROOT, relative

DOCS = ROOT / "docs"
LANGUAGES = sorted(path.name.split(".")[1] for path in ROOT.glob("README.*.md"))
ORIGINALS = {ROOT / f"README.{name}.md": ROOT / "README.md" for name in LANGUAGES} | {
    path: DOCS / path.relative_to(DOCS / name)
    for name in LANGUAGES
    for path in sorted((DOCS / name).rglob("*.md"))
}
PAIRS = pytest.mark.parametrize("path", ORIGINALS, ids=relative)
PART = re.compile(
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$"
    r"|^(?P<heading>#+) "
    r"|!\[[^\]]*\]\((?P<image>[^)]+)\)"
    r"|(?P<marker><!-- .*? -->)"
    r"|^(?P<row>\|)"
    r"|^ *(?P<item>[-*]|\d+\.) "
    r"|^(?P<paragraph>[^\s|#!`<-][^\n]*)(?:\n[^\s|#!<-][^\n]*)*",
    re.M | re.S,
)
COMMENTS = (tokenize.COMMENT, tokenize.NL)


def without_comments(language: str, code: str) -> list[str]:
    """What a block says to the machine."""
    if language == "python":
        tokens = tokenize.generate_tokens(io.StringIO(code).readline)
        return [token.string for token in tokens if token.type not in COMMENTS]
    if language == "sh":
        return [str(shlex.split(line, comments=True)) for line in code.splitlines()]
    return code.splitlines()


def located(target: str, page: Path) -> str:
    """The file that a link on a page leads to, of a translated page the original."""
    if re.match(r"[a-z]+:", target):
        return target
    file = target.partition("#")[0]
    found = (page.parent / file).resolve() if file else page
    return relative(ORIGINALS.get(found, found))


def outline(page: Path) -> list[str]:
    """Headings, blocks, images, markers, rows, items and paragraphs, in order."""
    found = []
    for part in PART.finditer(page.read_text("utf-8")):
        kind = part.lastgroup or ""
        text = part[kind]
        if kind == "code":
            lines = without_comments(part["language"], text)
            text = "\n".join([part["language"], *lines])
        elif kind == "image":
            text = located(text, page)
        elif kind in ("paragraph", "item"):
            text = ""
        found.append(f"{kind} {text}")
    return found


def references(page: Path) -> Counter[str]:
    """The links of a page outside blocks, and what stands there as code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    code = [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", text)]
    links = re.findall(r"\]\(<?([^)\s>]+)", re.sub(r"`[^`]+`", "", text))
    return Counter([*code, *(located(link, page) for link in links)])


@PAIRS
def test_a_translation_has_the_outline_of_its_original(path: Path) -> None:
    assert outline(path) == outline(ORIGINALS[path])


@PAIRS
def test_a_translation_has_the_links_and_names_of_its_original(path: Path) -> None:
    found, expected = references(path), references(ORIGINALS[path])
    assert {"missing": expected - found, "added": found - expected} == {
        "missing": Counter(),
        "added": Counter(),
    }


@PAIRS
def test_a_translation_is_among_the_pages_that_are_checked(path: Path) -> None:
    assert path in PAGES


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("## B\n", ""),
        ("## B\n", "### B\n"),
        ("```sh\nls -l  # files\n```\n", ""),
        ("ls -l", "ls -a"),
        ("one\ntwo\n", ""),
        ("- an item\n", ""),
        ("![a](a.png)\n", ""),
        ("| 1 | 2 |\n", ""),
        ("<!-- run -->\n", ""),
    ],
)
def test_what_is_missing_is_found(tmp_path: Path, part: str, changed: str) -> None:
    page = tmp_path / "page.md"
    original = "\n".join(
        [
            "# A\n\none\ntwo\n\n- an item\n\n## B\n\n![a](a.png)\n",
            "| x | y |\n| --- | --- |\n| 1 | 2 |\n\n<!-- run -->\n",
            "```sh\nls -l  # files\n```\n",
        ]
    )
    page.write_text(original.replace("files", "文件").replace("one\ntwo", "一"), "utf-8")
    translated = outline(page)
    page.write_text(original, "utf-8")
    assert translated == outline(page)
    assert original.count(part) == 1
    page.write_text(original.replace(part, changed), "utf-8")
    assert translated != outline(page)


def test_a_word_of_code_or_a_link_that_is_missing_is_found(tmp_path: Path) -> None:
    page = ROOT / "README.md"
    (copy := tmp_path / "page.md").write_text("Run `a\nb`, [c](http://c) and `d`.")
    assert references(copy) == Counter(["a b", "http://c", "d"])
    assert relative(page) in references(DOCS / "zh" / "index.md") + Counter(["README.md"])
