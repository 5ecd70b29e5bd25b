"""Docstrings as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping

from innerloop.engine.options import descriptions
from innerloop.registry import Citation

SECTIONS = ("Reference", "Objective", "State")


def escaped(text: str) -> str:
    """Text as Markdown that shows it as it is; what stands in backticks stays code."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(
        part.replace("|", r"\|")
        if part.startswith("`")
        else re.sub(r"([|*<\[\]])", r"\\\1", part)
        for part in parts
    )


def linked(text: str) -> str:
    """Escaped text in which arXiv ids are links."""
    link = r"[arXiv:\1](https://arxiv.org/abs/\1)"
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", link, escaped(text))


def paper_link(paper: Citation) -> str:
    if not paper.arxiv:
        return paper.short
    return f"[{paper.short}](https://arxiv.org/abs/{paper.arxiv})"


def paragraphs(docstring: str, *, formula: bool = False) -> list[str]:
    """The paragraphs of a docstring without its `Args:`. Indented ones, and the first
    where it is a formula, are shown as they are.
    """
    lines: list[str] = []
    inside = False
    for number, paragraph in enumerate(docstring.split("\n\n")):
        head = paragraph.split(":", 1)[0]
        indented = paragraph.startswith("    ")
        if head == "Args" or (inside and indented):
            inside = True
            continue
        inside = False
        if head in SECTIONS:
            text = linked(paragraph.split(":", 1)[1])
            lines += [f"**{head}.** {text[0].upper()}{text[1:]}", ""]
        elif indented or (formula and number == 0):
            lines += ["```text", *paragraph.splitlines(), "```", ""]
        elif entries := definitions(paragraph):
            lines += [f"{head}:", "", *items(entries), ""]
        elif paragraph.startswith("- "):
            lines += [*map(_item, paragraph.splitlines()), ""]
        else:
            lines += [linked(paragraph), ""]
    return lines


def _item(line: str) -> str:
    return f"- {linked(line[2:])}" if line.startswith("- ") else f"  {linked(line)}"


def definitions(paragraph: str) -> dict[str, str]:
    """The entries below a first line that ends with a colon, by name."""
    first, _, rest = paragraph.partition("\n")
    if not first.endswith(":") or not rest.startswith("    "):
        return {}
    return descriptions(f"Args:\n{rest}")


def items(entries: Mapping[str, str]) -> list[str]:
    return [f"- `{name}`: {linked(text)}" for name, text in entries.items()]


def arguments(docstring: str) -> list[str]:
    """The section `Args:` of a docstring as a list."""
    lines = items(descriptions(docstring))
    return [*lines, ""] if lines else []
