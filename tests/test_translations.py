"""A translated page has everything that its original has, in the same order."""

from __future__ import annotations

import io
import re
import shlex
import tokenize
from collections import Counter
from pathlib import Path

import pytest

from tests.test_docs import BLOCK, PAGES, ROOT, relative

DOCS = ROOT / "docs"


def pairs() -> dict[Path, Path]:
    """The original of every translated page: README.zh-CN.md and docs/zh are Chinese,
    README.de.md and docs/de would be German.
    """
    found = {}
    for readme in sorted(ROOT.glob("README.*.md")):
        found[readme] = ROOT / "README.md"
        folder = DOCS / readme.name.split(".")[1].split("-")[0]
        found |= {p: DOCS / p.relative_to(folder) for p in sorted(folder.rglob("*.md"))}
    return found


ORIGINALS = pairs()
translated = pytest.mark.parametrize("page", ORIGINALS, ids=relative)


def without_comments(language: str, code: str) -> list[str]:
    """What a block says to the machine."""
    if language == "python":
        comments = (tokenize.COMMENT, tokenize.NL)
        tokens = tokenize.generate_tokens(io.StringIO(code).readline)
        return [token.string for token in tokens if token.type not in comments]
    if language == "sh":
        return [shlex.join(shlex.split(s, comments=True)) for s in code.splitlines()]
    return code.splitlines()


def located(target: str, page: Path) -> str:
    """The file that a link leads to; of a translated page, its original."""
    if re.match(r"[a-z]+:", target):
        return target
    file = target.partition("#")[0]
    found = (page.parent / file).resolve() if file else page
    return relative(ORIGINALS.get(found, found))


def outline(page: Path) -> list[str]:
    """Headings with their levels, blocks, images, markers, rows of tables, items of
    lists and paragraphs, in order.
    """
    text = page.read_text("utf-8")
    blocks = iter(BLOCK.findall(text))
    found: list[str] = []
    begun = False  # a paragraph or an item, which goes on
    for line in BLOCK.sub("```", text).splitlines():
        images = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", line)
        markers = re.findall(r"<!-- .*? -->", line)
        rest = re.sub(r"!\[.*?\]\(.*?\)|<!-- .*? -->", "", line).strip()
        if line.startswith("```"):
            language, code = next(blocks)
            found.append("\n".join([language, *without_comments(language, code)]))
        elif heading := re.match("#+ ", line):
            found.append(heading.group())
        elif line.startswith("|"):
            found.append("row")
        elif re.match(r" *([-*]|\d+\.) ", line):
            found.append("item")
        elif rest and not begun:
            found.append("paragraph")
        begun = bool(rest) and not line.startswith(("#", "|", "```"))
        found += [*markers, *(located(image, page) for image in images)]
    return found


def references(page: Path) -> Counter[str]:
    """The links of a page outside blocks, and what stands there as code."""
    text = BLOCK.sub("", page.read_text("utf-8"))
    code = [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", text)]
    links = re.findall(r"\]\(<?([^)\s>]+)", re.sub(r"`[^`]+`", "", text))
    return Counter([*code, *(located(link, page) for link in links)])


@translated
def test_a_translation_has_the_outline_of_its_original(page: Path) -> None:
    assert outline(page) == outline(ORIGINALS[page])


@translated
def test_a_translation_has_the_links_and_the_code_of_its_original(page: Path) -> None:
    found, expected = references(page), references(ORIGINALS[page])
    assert not expected - found, "missing"
    assert not found - expected, "added"


@translated
def test_a_translation_is_among_the_pages_that_are_checked(page: Path) -> None:
    assert page in PAGES


def test_there_are_translations() -> None:
    assert {"README.zh-CN.md", "docs/zh/index.md"} <= set(map(relative, ORIGINALS))


PAGE = """\
# Title

A paragraph of
two lines with `code`.

- an item
  of two lines

## Section

![Words](docs/demo.png)

| a | b |
| --- | --- |
| c | d |

<!-- run -->
```python
print(1)  # words
```

```sh
innerloop list  # words
```

Last [link](README.md).
"""
TRANSLATED = (
    PAGE.replace("of\ntwo lines", "of two lines")
    .replace("words", "字")
    .replace("Words", "字")
    .replace("Section", "节")
)


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("## 节\n", ""),
        ("## 节\n", "### 节\n"),
        ("```python\nprint(1)  # 字\n```\n", ""),
        ("print(1)", "print(2)"),
        ("innerloop list", "innerloop demo"),
        ("A paragraph of two lines with `code`.\n", ""),
        ("- an item\n  of two lines\n", ""),
        ("![字](docs/demo.png)\n", ""),
        ("demo.png", "curves.png"),
        ("| c | d |\n", ""),
        ("<!-- run -->\n", ""),
        ("Last [link](README.md).\n", ""),
    ],
)
def test_what_is_missing_or_different_is_found(
    part: str, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_translations.relative", Path.as_posix)
    original, page = tmp_path / "original.md", tmp_path / "page.md"
    original.write_text(PAGE, "utf-8")
    page.write_text(TRANSLATED, "utf-8")
    assert outline(page) == outline(original)
    assert references(page) == references(original)
    assert TRANSLATED.count(part) == 1
    page.write_text(TRANSLATED.replace(part, changed), "utf-8")
    assert outline(page) != outline(original)


@pytest.mark.parametrize(
    ("part", "changed"), [("`code`", "code"), ("[link](README.md)", "link")]
)
def test_a_link_or_a_word_of_code_that_is_missing_is_found(
    part: str, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_translations.relative", Path.as_posix)
    original, page = tmp_path / "original.md", tmp_path / "page.md"
    original.write_text(PAGE, "utf-8")
    page.write_text(TRANSLATED.replace(part, changed), "utf-8")
    assert outline(page) == outline(original)
    assert references(page) != references(original)
