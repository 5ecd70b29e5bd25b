"""Papers as BibTeX."""

from __future__ import annotations

import re

from innerloop.papers.reading import Paper

SKIPPED = {"a", "an", "and", "for", "in", "of", "on", "the", "to", "towards", "with"}
SPECIAL = re.compile(r"([#$%&_])")


def bibtex(paper: Paper) -> str:
    """A paper as an entry; surnames only, as docstrings have them."""
    citation, addresses = paper.citation, list(paper.addresses.values())
    # a volume is what journals have and conferences have not
    journal = citation.venue is not None and re.search(r"\d", citation.venue)
    kind = "article" if journal else "inproceedings" if citation.venue else "misc"
    lines = {
        "author": " and ".join(f"{{{a}}}" if " " in a else a for a in citation.authors),
        "title": f"{{{escaped(citation.title)}}}" if citation.title else None,
        "journal" if journal else "booktitle": escaped(citation.venue or ""),
        "year": citation.year,
        "eprint": citation.arxiv,
        "archivePrefix": citation.arxiv and "arXiv",
        "url": next(iter(addresses), None),
    }
    body = ",\n".join(f"  {key} = {{{value}}}" for key, value in lines.items() if value)
    return f"@{kind}{{{key(paper)},\n{body}\n}}"


def key(paper: Paper) -> str:
    """First author, year and first word of the title, as in "finn2017modelagnostic"."""
    citation = paper.citation
    words = [
        re.sub(r"[^a-z0-9]", "", w) for w in (citation.title or "").lower().split()
    ]
    first = re.sub(r"\W", "", citation.authors[0].split()[-1].lower())
    word = next((w for w in words if w and w not in SKIPPED), "")
    return f"{first}{citation.year}{word}"


def escaped(text: str) -> str:
    """Text for LaTeX."""
    return SPECIAL.sub(r"\\\1", text).replace("^2", "$^2$")
