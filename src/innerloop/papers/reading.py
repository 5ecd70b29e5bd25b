"""The papers in an order to read, from `reading.toml`.

Authors, title, year and arXiv id are those of the docstrings; the file adds only what
they do not say. A paper that no entry of the file names follows those of the chapter
that its family belongs to.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from innerloop.papers.cited import Cited, Use, cited, normalized
from innerloop.registry import Citation, citations, plain

FILE = Path(__file__).with_name("reading.toml")


@dataclass(frozen=True)
class Chapter:
    """A chapter of the reading list.

    Args:
        title: in words.
        text: an introduction.
        families: of entries whose papers belong to it, see `Entry.family`.
    """

    title: str
    text: str = ""
    families: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paper:
    """A paper of the reading list.

    Args:
        citation: authors, year, title, arXiv id and venue.
        chapter: of the reading list.
        why: why to read it.
        openreview: id of its page there.
        first: whether it is among the few to read first.
        uses: where it stands in the code.
        number: its place in the list, from 1.
    """

    citation: Citation
    chapter: Chapter
    why: str = ""
    openreview: str | None = None
    first: bool = False
    uses: tuple[Use, ...] = ()
    number: int = 0

    @property
    def authors(self) -> str:
        """As in "Finn, Abbeel and Levine"."""
        *first, last = self.citation.authors
        if last == "others":
            return f"{', '.join(first)} et al."
        return " and ".join([", ".join(first), last] if first else [last])

    @property
    def addresses(self) -> dict[str, str]:
        """Where to find it, by the name of the site."""
        found = {}
        if self.citation.arxiv:
            found["arXiv"] = f"https://arxiv.org/abs/{self.citation.arxiv}"
        if self.openreview:
            found["OpenReview"] = f"https://openreview.net/forum?id={self.openreview}"
        return found

    @property
    def words(self) -> set[str]:
        """What it can be found by."""
        paper, uses = self.citation, self.uses
        texts = [
            paper.title,
            str(paper.year),
            paper.arxiv,
            paper.venue,
            self.openreview,
        ]
        texts += [self.authors, self.chapter.title]
        texts += [f"{use.kind} {use.name} {use.family}" for use in uses]
        return {
            plain(word.strip('.,:;?!"()'))
            for text in texts
            for word in (text or "").split()
        }


def papers() -> list[Paper]:
    """Every paper, in an order to read."""
    chapters, listed = _file()
    works = cited()
    by_key = {key: work for work in works for key in _keys(work.citation)}
    found: list[Paper] = []
    for chapter, entry in listed:
        citation = _reference(entry)
        work = next((by_key[k] for k in _keys(citation) if k in by_key), None)
        if work is None and "cite" in entry:
            continue  # the code no longer names it
        found.append(_paper(work or Cited(citation), chapter, entry))
    known = {key for paper in found for key in _keys(paper.citation)}
    rest = [work for work in works if not known & set(_keys(work.citation))]
    for work in sorted(rest, key=lambda work: work.citation.year or 0):
        found.append(_paper(work, _chapter(work, chapters), {}))
    found.sort(key=lambda paper: chapters.index(paper.chapter))
    return [replace(paper, number=n) for n, paper in enumerate(found, 1)]


def paper_of(citation: Citation) -> Paper:
    """A work with what the reading list knows of it."""
    keys = set(_keys(citation))
    for chapter, entry in _file()[1]:
        if keys & set(_keys(_reference(entry))):
            return _paper(Cited(citation), chapter, entry)
    return Paper(citation, Chapter(""))


def matching(found: Iterable[Paper], words: Iterable[str]) -> Iterator[Paper]:
    """The papers that all words stand in, at least as the beginning of a word."""
    wanted = [plain(part) for word in words for part in word.split()]
    for paper in found:
        known = paper.words
        if all(any(word.startswith(part) for word in known) for part in wanted):
            yield paper


def _file() -> tuple[list[Chapter], list[tuple[Chapter, dict[str, Any]]]]:
    """The chapters, and the entries of the file with their chapters."""
    chapters, listed = [], []
    for data in tomllib.loads(FILE.read_text("utf-8"))["chapter"]:
        families = tuple(data.get("families", ()))
        chapters.append(Chapter(data["title"], data.get("text", "").strip(), families))
        listed += [(chapters[-1], entry) for entry in data.get("paper", ())]
    return chapters, listed


def _reference(entry: dict[str, Any]) -> Citation:
    """The work that an entry of the file is about: as cited, or by its arXiv id or
    title.
    """
    if "reference" in entry:
        return citations(entry["reference"])[0]
    key = entry["cite"]
    return Citation(title=key) if " " in key else Citation(arxiv=key)


def _keys(citation: Citation) -> list[str]:
    title = normalized(citation.title or "")
    return [key for key in (citation.arxiv, title) if key]


def _paper(work: Cited, chapter: Chapter, entry: dict[str, Any]) -> Paper:
    citation = work.citation
    citation = citation._replace(venue=citation.venue or entry.get("venue"))
    summaries = [use.summary for use in work.uses if use.summary]
    why = " ".join(entry.get("why", next(iter(summaries), "")).split())
    openreview, first = entry.get("openreview"), entry.get("first", False)
    return Paper(citation, chapter, why, openreview, first, tuple(work.uses))


def _chapter(work: Cited, chapters: list[Chapter]) -> Chapter:
    """The chapter of the family of its first use, the last one where there is none."""
    for use in sorted(work.uses, key=lambda use: not use.main):
        for chapter in chapters:
            if use.family in chapter.families:
                return chapter
    return chapters[-1]
