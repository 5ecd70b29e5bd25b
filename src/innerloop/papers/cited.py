"""The works that docstrings name, and where: of everything in the registry, and of all
other code of the package.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from innerloop.registry import PRESETS, SOURCES, Citation, citations, entries, find

PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Use:
    """A place in the code that names a work.

    Args:
        kind: as in the registry, "preset", or "code" for what is not registered.
        name: of the entry, or of the class or function.
        family: of the entry, see `Entry.family`.
        file: in the package; "" for a user's own code.
        main: whether the entry is an implementation of this work.
        summary: what the entry does.
    """

    kind: str
    name: str
    family: str = ""
    file: str = ""
    main: bool = False
    summary: str = ""


@dataclass
class Cited:
    """A work, and every place that names it."""

    citation: Citation
    uses: list[Use] = field(default_factory=list)

    def add(self, citation: Citation, use: Use) -> None:
        mine = self.citation
        if _detail(citation) > _detail(mine):
            citation, mine = mine, citation
        self.citation = mine._replace(
            title=mine.title or citation.title,
            arxiv=mine.arxiv or citation.arxiv,
            venue=mine.venue or citation.venue,
        )
        same = [u for u in self.uses if (u.kind, u.name) == (use.kind, use.name)]
        if not same:
            self.uses.append(use)


def _detail(citation: Citation) -> tuple[bool, bool]:
    """Larger for a citation that names more: its title, and all authors."""
    return citation.title is not None, "others" not in citation.authors


def normalized(title: str) -> str:
    """A title without case and punctuation."""
    return re.sub(r"\W", "", title.lower())


def cited() -> list[Cited]:
    """Every work that is named with its title, or by an arXiv id whose title is named
    elsewhere; those of registered entries first.
    """
    found: dict[str, Cited] = {}
    for citation, use in [*_registered(), *_elsewhere()]:
        keys = [citation.arxiv, normalized(citation.title or "")]
        known = next((found[key] for key in keys if key and key in found), None)
        known = known or Cited(citation)
        known.add(citation, use)
        found |= {key: known for key in keys if key}
    works = dict.fromkeys(map(id, found.values()))
    by_id = {id(work): work for work in found.values()}
    return [by_id[i] for i in works if by_id[i].citation.title]


def _registered() -> Iterator[tuple[Citation, Use]]:
    for kind in SOURCES:
        known = [(kind, entry) for entry in entries(kind).values()]
        if kind == "learner":
            known += [("preset", find("learner", name)) for name in PRESETS]
        for label, entry in known:
            text = entry.preset.reference if entry.preset else entry.docstring
            summary = entry.summary[:1].upper() + entry.summary[1:]
            use = Use(
                label,
                entry.name,
                entry.family,
                _file(entry.factory.__module__),
                summary=summary,
            )
            first = entry.citation.key
            for citation in citations(text):
                yield citation, replace(use, main=citation.key == first)


def _elsewhere() -> Iterator[tuple[Citation, Use]]:
    """Of docstrings in the package whose class or function is not registered."""
    registered = {
        (_file(entry.factory.__module__), entry.factory.__qualname__)
        for kind in SOURCES
        for entry in entries(kind).values()
    }
    for citation, use in _in_package():
        if (use.file, use.name) not in registered:
            yield citation, use


@cache
def _in_package() -> list[tuple[Citation, Use]]:
    """What all docstrings of the package name."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text("utf-8")
        if re.search(r"\b(19|20)\d\d\b", text):
            file = path.relative_to(PACKAGE).as_posix()
            for name, docstring in _docstrings(ast.parse(text)):
                use = Use("code", name or path.stem, "", file)
                found += [(citation, use) for citation in citations(docstring)]
    return found


def _docstrings(node: ast.AST, name: str = "") -> Iterator[tuple[str, str]]:
    """Qualified names and docstrings of a module, its classes and functions."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        text = ast.get_docstring(node)
        if text:
            yield name, text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from _docstrings(child, f"{name}.{child.name}".lstrip("."))


def _file(module: str) -> str:
    """The file of a module of this package, in it; "" for others."""
    package, _, path = module.partition(".")
    return path.replace(".", "/") + ".py" if package == PACKAGE.name else ""
