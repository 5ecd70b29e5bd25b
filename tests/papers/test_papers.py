"""The reading list: complete, without repetition, and in step with the docstrings."""

from __future__ import annotations

import re
import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from innerloop import registry
from innerloop.papers import Paper, bibtex, figures, matching, paper_of, papers
from innerloop.papers.bibtex import key
from innerloop.papers.cited import _elsewhere, _registered, normalized
from innerloop.papers.figures import _methods, tables
from innerloop.papers.reading import FILE, _keys, _reference
from innerloop.registry import PRESETS, SOURCES, Citation, citations, entries
from innerloop.studies import Results, StudyTable, find_study, table
from innerloop.studies.study import StudyRow
from innerloop.studies.tables import number

ROOT = Path(__file__).resolve().parent.parent.parent
ARXIV = re.compile(r"(\d\d)(0[1-9]|1[0-2])\.\d{4,5}")


@pytest.fixture(scope="module")
def every() -> list[Paper]:
    return papers()


@pytest.fixture(scope="module")
def listed() -> list[dict[str, Any]]:
    """The entries of the data file."""
    chapters = tomllib.loads(FILE.read_text("utf-8"))["chapter"]
    return [paper for chapter in chapters for paper in chapter["paper"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'Snell, Swersky and Zemel 2017, "Networks", arXiv:1703.05175, eq. (1)-(2).',
            (("Snell", "Swersky", "Zemel"), 2017, "Networks", "1703.05175", None),
        ),
        (
            'of Kool, van Hoof and Welling 2019, "For free!", ICLR workshop.',
            (("Kool", "van Hoof", "Welling"), 2019, "For free!", None, "ICLR workshop"),
        ),
        (
            'leaky ReLU. Hinton and Li 2006, "Data", Science 313(5786): here of sets.',
            (("Hinton", "Li"), 2006, "Data", None, "Science 313(5786)"),
        ),
        (
            'see Al-Rfou et al. 2021, "Prompts", Algorithm 1',
            (("Al-Rfou", "others"), 2021, "Prompts", None, None),
        ),
        (
            "as O'Boyle 2020, arXiv:1910.05199, has it",
            (("O'Boyle",), 2020, None, "1910.05199", None),
        ),
        (
            'Gittins 1979, "Bandits". Nearly optimal: Lattimore 2016, arXiv:1511.06014',
            (("Gittins",), 1979, "Bandits", None, None),
        ),
    ],
)
def test_citations_are_read_from_texts(text: str, expected: tuple[Any, ...]) -> None:
    assert citations(text)[0] == Citation(*expected)


def test_ids_are_well_formed(every: list[Paper]) -> None:
    for paper in every:
        arxiv, year = paper.citation.arxiv, paper.citation.year
        if arxiv:
            found = ARXIV.fullmatch(arxiv)
            assert found, paper
            # published in the year of the preprint, or soon after
            assert year is not None
            assert 0 <= year - (2000 + int(found[1])) <= 2, paper
        if paper.openreview:
            assert re.fullmatch(r"[\w-]{9,12}", paper.openreview), paper


def test_every_entry_that_has_a_reference_is_listed(every: list[Paper]) -> None:
    main = {(use.kind, use.name) for paper in every for use in paper.uses if use.main}
    assert {("learner", name) for name in entries("learner")} <= main
    assert {("preset", name) for name in PRESETS} <= main
    for kind in SOURCES:
        for name, entry in entries(kind).items():
            assert bool(entry.citation.authors) == ((kind, name) in main), name


def test_every_arxiv_id_in_the_code_is_listed(every: list[Paper]) -> None:
    known = {paper.citation.arxiv for paper in every}
    files = [*ROOT.glob("src/**/*.py"), *ROOT.glob("src/**/*.toml")]
    for file in [*files, *ROOT.glob("docs/*.md")]:
        for name in re.findall(r"arXiv:(\d{4}\.\d{4,5})", file.read_text("utf-8")):
            assert name in known, (file.name, name)


def test_no_paper_is_listed_twice(every: list[Paper]) -> None:
    for names in (
        [paper.citation.arxiv for paper in every if paper.citation.arxiv],
        [paper.openreview for paper in every if paper.openreview],
        [normalized(paper.citation.title or "") for paper in every],
        [key(paper) for paper in every],
    ):
        assert [name for name, n in Counter(names).items() if n > 1] == []
    assert [paper.number for paper in every] == list(range(1, len(every) + 1))


def test_the_file_adds_only_what_docstrings_do_not_say(
    every: list[Paper], listed: list[dict[str, Any]]
) -> None:
    keys = [name for entry in listed for name in _keys(_reference(entry))]
    assert [name for name, n in Counter(keys).items() if n > 1] == []
    known = {k: paper for paper in every for k in _keys(paper.citation)}
    for entry in listed:
        assert set(entry) <= {
            "cite",
            "reference",
            "why",
            "venue",
            "openreview",
            "first",
        }
        assert ("cite" in entry) != ("reference" in entry), entry
        paper = next((known[k] for k in _keys(_reference(entry)) if k in known), None)
        assert paper, f"no docstring cites {entry}"
        assert paper.why.endswith((".", "!", "?")), paper
        assert paper.citation.venue == entry.get("venue", paper.citation.venue)


def test_docstrings_agree() -> None:
    """All that name a work say the same of it."""
    found = defaultdict(list)
    titles: dict[str, str] = {}
    everything = [citation for citation, _ in [*_registered(), *_elsewhere()]]
    for citation in everything:
        if citation.arxiv and citation.title:
            titles[normalized(citation.title)] = citation.arxiv
    for citation in everything:
        title = normalized(citation.title or "")
        name = citation.arxiv or titles.get(title, title)
        if name:
            found[name].append(citation)
    for same in found.values():
        assert len({c.title for c in same if c.title}) == 1, same
        assert len({c.year for c in same}) == 1, same
        assert len({c.authors[0] for c in same}) == 1, same
        full = {c.authors for c in same if "others" not in c.authors}
        assert len(full) <= 1, same


def test_papers_are_found_by_words(every: list[Paper]) -> None:
    def titles(*words: str) -> set[str]:
        return {p.citation.title or "" for p in matching(every, words)}

    assert "Neural Turing machines" in titles("memory")  # by its family
    assert titles("Proto-Net") == titles("protonet")
    assert "How to train your MAML" in titles("maml++") & titles("Antoniou", "2019")
    assert titles("1703.03400") == {
        "Model-agnostic meta-learning for fast adaptation of deep networks"
    }
    assert titles("memory", "Snell") == set()
    assert len(titles()) == len(every)


def test_an_own_learner_brings_its_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    own = type("Own", (entries("learner")["maml"].factory,), {"__module__": "mine"})
    own.__doc__ = (
        'Own: does it.\n\nReference: Doe 2031, "A paper", arXiv:3101.00001, eq. (1).'
    )
    monkeypatch.setitem(registry._added, ("learner", "own"), own)
    last = papers()[-1]
    assert last.citation == Citation(("Doe",), 2031, "A paper", "3101.00001")
    assert (last.why, last.uses[0].name) == ("Does it.", "own")


def test_bibtex() -> None:
    paper = paper_of(entries("learner")["protonet"].citation)
    assert bibtex(paper) == (
        "@inproceedings{snell2017prototypical,\n"
        "  author = {Snell and Swersky and Zemel},\n"
        "  title = {{Prototypical networks for few-shot learning}},\n"
        "  booktitle = {NeurIPS},\n"
        "  year = {2017},\n"
        "  eprint = {1703.05175},\n"
        "  archivePrefix = {arXiv},\n"
        "  url = {https://arxiv.org/abs/1703.05175}\n"
        "}"
    )
    omniglot = bibtex(paper_of(entries("tasks")["omniglot"].citation))
    assert omniglot.startswith("@article")
    assert "journal = {Science 350}" in omniglot
    assert "openreview.net" in bibtex(paper_of(entries("learner")["metalstm"].citation))
    assert "RL$^2$" in bibtex(paper_of(entries("learner")["rl2"].citation))


@pytest.fixture(scope="module")
def measured() -> list[StudyTable]:
    return tables(ROOT / "results")


def test_figures_are_those_of_the_studies(
    every: list[Paper], measured: list[StudyTable]
) -> None:
    paper = next(p for p in every if p.citation.arxiv == "1606.02185")
    study = find_study("omniglot-generative")
    stored = table(study, Results(ROOT / "results" / "omniglot-generative.json"))
    line = next(line for line in stored.lines if line.row.name == "MetaVAE")
    published, cell = line.published[0], line.cells[0]
    assert published is not None
    assert cell is not None
    (figure,) = figures(paper, measured)
    assert (figure.study, figure.method) == (study.title, "MetaVAE")
    assert figure.published == published.text
    assert figure.measured.startswith(number(cell.value))


def test_without_a_published_figure_the_method_of_a_paper_is_shown(
    every: list[Paper], measured: list[StudyTable]
) -> None:
    anil = next(p for p in every if p.citation.arxiv == "1909.09157")
    assert {figure.method for figure in figures(anil, measured)} == {"ANIL"}
    survey = every[0]
    assert figures(survey, measured) == []
    assert figures(anil, tables(ROOT / "nothing here")) == []


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ("maml omniglot --steps 5", {("learner", "maml")}),
        ("maml omniglot --adapted head --steps 5", {("preset", "anil")}),
        ("maml omniglot --adapted heads", {("learner", "maml")}),
        ("finetune clinc --head cosine", {("preset", "baseline++")}),
        (
            "maml omniglot --meta-gradient reptile",
            {("preset", "reptile"), ("meta-gradient", "reptile")},
        ),
        ("", set()),
    ],
)
def test_the_method_of_a_training(train: str, expected: set[tuple[str, str]]) -> None:
    assert _methods(StudyRow("row", train=train)) == expected
