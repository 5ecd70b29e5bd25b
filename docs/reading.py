"""The page docs/reading.md: the papers in an order to read, where they stand in the
code, and their figures beside those of the studies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from filling import RESULTS

from innerloop.learners import LEARNERS
from innerloop.papers import Figure, Paper, Use, figures, papers
from innerloop.papers.figures import tables
from innerloop.studies import markdown
from innerloop.studies.tables import MARKS

DOCS = Path(__file__).resolve().parent
HEAD = """\
Every paper behind this library, from the first ideas to today, with a sentence or two
on why to read it and where it stands in the code. The chapters follow each other, and
so do the papers in them; to begin with one paper of each kind, read those in bold.

```sh
innerloop papers                # this list
innerloop papers memory         # those with a word in names, titles, families, ...
innerloop papers how to train   # one paper in full, with its figures and BibTeX
innerloop cite                  # BibTeX of all
innerloop cite protonet         # BibTeX of one
```

Below a chapter stand the figures of its papers beside those that the
[studies](studies.md) measured: all that a study measured of a published table, or,
where no study has a published figure, the first number of each study that trains the
method. How they were measured is on the pages of the studies and of the
[leaderboard](leaderboard.md)."""
# pages that have an entry of a kind, and the anchor there
PAGES = {
    "preset": "learners/index.md#published-variants",
    "tasks": "tasks.md#{}",
    "meta-gradient": "meta_gradients.md#{}",
    "encoder": "encoders.md#{}",
}
SHOWN = 3  # places in the code that are not registered


def reading_page() -> str:
    measured = tables(RESULTS)
    lines = ["# Reading list", "", HEAD, ""]
    chapter, beside = None, []
    for paper in papers():
        if paper.chapter != chapter:
            lines += _figures(beside)
            chapter, beside = paper.chapter, []
            lines += [f"## {chapter.title}", ""]
            lines += [" ".join(chapter.text.split()), ""] if chapter.text else []
        lines += [*_paper(paper), ""]
        beside += [(paper, figure) for figure in figures(paper, measured)]
    lines += _figures(beside)
    marks = [f"{mark} {text}" for mark, text in MARKS.items()]
    used = [text for text in marks if any(text[0] in line for line in lines)]
    return "\n\n".join(["\n".join(lines).rstrip(), *used]) + "\n"


def _paper(paper: Paper) -> list[str]:
    citation = paper.citation
    title = _plain(citation.title or "")
    title += "" if title.endswith(("?", "!")) else "."
    shown = f"**{title}**" if paper.first else f"*{title}*"
    facts = [f"{paper.authors} {citation.year}"]
    facts += [citation.venue] if citation.venue else []
    for site, address in paper.addresses.items():
        name = f"arXiv:{citation.arxiv}" if site == "arXiv" else site
        facts.append(f"[{name}]({address})")
    lines = [f"{paper.number}. {shown} {', '.join(facts)}."]
    text = [paper.why] if paper.why else []
    if uses := _uses(paper.uses):
        text.append(f"Here: {', '.join(uses)}.")
    indent = " " * len(f"{paper.number}. ")
    return [*lines, *(f"{indent}{line}" for line in text)]


def _plain(text: str) -> str:
    """Text without the characters that Markdown reads."""
    return re.sub(r"([*_<\[\]^])", r"\\\1", text)


def _uses(uses: Sequence[Use]) -> list[str]:
    entries = [use for use in uses if use.kind != "code"]
    code = [use for use in uses if use.kind == "code"]
    files = dict.fromkeys(use.file for use in code) if not entries else {}
    shown = [f"`src/innerloop/{file}`" for file in files]
    return [*(_entry(use) for use in entries), *shown[:SHOWN]]


def _entry(use: Use) -> str:
    if use.kind == "learner":
        return f"[{LEARNERS[use.name].__name__}](learners/{use.name}.md)"
    kind = "" if use.kind in ("preset", "tasks") else f"{use.kind} "
    if use.kind not in PAGES:
        return f"{kind}`{use.name}` (`src/innerloop/{use.file}`)"
    return f"{kind}[`{use.name}`]({PAGES[use.kind].format(use.name)})"


def _figures(found: Sequence[tuple[Paper, Figure]]) -> list[str]:
    if not found:
        return []
    head = ["paper", "study", "method", "test", "published", "measured"]
    rows = [
        [paper.citation.short, f.study, f.method, f.test, f.published, f.measured]
        for paper, f in found
    ]
    return [markdown([head, *rows]), ""]


def pages() -> dict[Path, str]:
    return {DOCS / "reading.md": reading_page()}
