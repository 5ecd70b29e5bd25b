"""The literature: every paper that the code names, where it stands in the code, and an
order to read them in.
"""

from innerloop.papers.bibtex import bibtex
from innerloop.papers.cited import Use
from innerloop.papers.figures import Figure, figures
from innerloop.papers.reading import Chapter, Paper, matching, paper_of, papers

__all__ = [
    "Chapter",
    "Figure",
    "Paper",
    "Use",
    "bibtex",
    "figures",
    "matching",
    "paper_of",
    "papers",
]
