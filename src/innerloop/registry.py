"""The registry of learners, task sources and everything else with a name.

`find(kind, name)` gives an entry: its factory, its typed options, its docstring and its
citation. Flags, help texts, `innerloop list`, documentation pages and JSON are derived
from entries. `register` adds one from outside the package; a name of the form
`file.py:Name` imports it from a user's own file.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from innerloop.engine import options as typed
from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.user_file import absolute, from_file, is_in_file

# where the entries of a kind come from: a module and the name of a dict in it
SOURCES: dict[str, tuple[tuple[str, str], ...]] = {
    "learner": (("innerloop.learners", "LEARNERS"),),
    "tasks": (("innerloop.tasks", "TASKS"), ("innerloop.rl", "ENVIRONMENTS")),
    "meta-gradient": (
        ("innerloop.metagrad", "META_GRADIENTS"),
        ("innerloop.rl", "META_GRADIENTS"),
    ),
    "likelihood": (
        ("innerloop.core.likelihood", "LIKELIHOODS"),
        ("innerloop.rl", "LIKELIHOODS"),
    ),
    "reader": (("innerloop.readers", "READERS"),),
    "evaluation": (("innerloop.evaluation", "EVALUATIONS"),),
    "encoder": (("innerloop.encoders", "ENCODERS"),),
}
# kinds whose names are read by packages that this module imports
SHARED = ("encoder",)
IN_WORDS = {"tasks": "task source"}
_added: dict[tuple[str, str], Callable[..., Any]] = {}


class Citation(NamedTuple):
    """What a docstring's `Reference:` paragraph names; None for what it leaves out."""

    authors: tuple[str, ...] = ()
    year: int | None = None
    title: str | None = None
    arxiv: str | None = None
    venue: str | None = None

    @property
    def key(self) -> str:
        """What tells works apart: the arXiv id; the title, where there is none."""
        return self.arxiv or self.title or self.short

    @property
    def short(self) -> str:
        """As in "Finn et al. 2017"; "" where there is none."""
        first = next(iter(self.authors), "")
        if not first:
            return ""
        many = len(self.authors) > 2 or "others" in self.authors
        who = f"{first} et al." if many else " and ".join(self.authors)
        return f"{who} {self.year}"


_PARTICLE = r"(?:(?:de|van|von|der|da|di|del|la|le) )*"
_WORD = r"[A-ZÀ-ÖØ-Þ][\w'’-]*"
_NAME = rf"{_PARTICLE}{_WORD}(?: {_WORD})*"
# such as "Science 313(5786)" or "ICLR workshop", not "Algorithm 1" or "arXiv:..."
_VENUE = r"(?!Algorithm)[A-Z][A-Za-z&' -]*[A-Za-z](?: \d+(?: ?\(\d+\)|:\d+)?)?"
_REFERENCE = re.compile(
    rf"({_NAME}(?:(?:, | and ){_NAME})*(?: et al\.)?),? ((?:19|20)\d\d)"
    rf'(?:, "([^"]+)"(?:, ({_VENUE}))?)?'
    r'(?:[^";.(]{0,80}?arXiv:(\d{4}\.\d{4,5}))?'
)


def citations(text: str) -> tuple[Citation, ...]:
    """All works that a text names, in its order."""
    found = []
    for match in _REFERENCE.finditer(" ".join(text.split())):
        names, year, title, venue, arxiv = match.groups()
        others = names.endswith(" et al.")
        authors = names.removesuffix(" et al.").replace(" and ", ", ").split(", ")
        who = (*authors, *(["others"] if others else []))
        found.append(Citation(who, int(year), title, arxiv, venue))
    return tuple(found)


def citation(docstring: str) -> Citation:
    """The first work that the paragraph `Reference:` of a docstring names."""
    _, _, reference = docstring.partition("Reference:")
    return next(iter(citations(reference)), Citation())


@dataclass(frozen=True)
class Preset:
    """A published method that is another entry with some options set."""

    learner: str
    fields: dict[str, Any] = field(default_factory=dict)
    meta_gradient: str | None = None
    reference: str = ""
    summary: str = ""

    @property
    def flags(self) -> list[str]:
        """What `innerloop train LEARNER` takes instead, such as "--adapted head"."""
        found = []
        for name, value in self.fields.items():
            flag = "--" + name.replace("_", "-")
            found.append(flag if value is True else f"{flag} {value}")
        if self.meta_gradient:
            found.append(f"--meta-gradient {self.meta_gradient}")
        return found


PRESETS: dict[str, Preset] = {
    "fomaml": Preset(
        "maml",
        {"first_order": True},
        reference='Finn, Abbeel and Levine 2017, "Model-agnostic meta-learning for '
        "fast "
        'adaptation of deep networks", arXiv:1703.03400',
        summary="FOMAML: MAML without second derivatives.",
    ),
    "anil": Preset(
        "maml",
        {"adapted": "head"},
        reference='Raghu, Raghu, Bengio and Vinyals 2020, "Rapid learning or feature '
        'reuse? Towards understanding the effectiveness of MAML", arXiv:1909.09157',
        summary="ANIL: MAML that adapts the last layer only.",
    ),
    "protomaml": Preset(
        "maml",
        {"head": "prototype"},
        reference="Triantafillou, Zhu, Dumoulin, Lamblin, Evci, Xu, Goroshin, Gelada, "
        'Swersky, Manzagol and Larochelle 2020, "Meta-Dataset: a dataset of datasets '
        "for "
        'learning to learn from few examples", arXiv:1903.03096',
        summary="Proto-MAML: MAML whose last layer starts from the class means.",
    ),
    "maml++": Preset(
        "maml",
        {"multi_step": 0.15, "second_order_after": 0.5},
        reference='Antoniou, Edwards and Storkey 2019, "How to train your MAML", '
        "arXiv:1810.09502",
        summary="MAML++: losses after every step, second order later in training.",
    ),
    "reptile": Preset(
        "maml",
        {},
        "reptile",
        reference='Nichol, Achiam and Schulman 2018, "On first-order meta-learning '
        'algorithms", arXiv:1803.02999',
        summary="Reptile: moves the initialization toward adapted weights.",
    ),
    "baseline++": Preset(
        "finetune",
        {"head": "cosine"},
        reference='Chen, Liu, Kira, Wang and Huang 2019, "A closer look at few-shot '
        'classification", arXiv:1904.04232',
        summary="Baseline++: fine-tuning with a cosine classifier.",
    ),
    "lstm-gan": Preset(
        "metagan",
        {},
        reference='Zhang, Che, Ghahramani, Bengio and Song 2018, "MetaGAN: an '
        "adversarial "
        'approach to few-shot learning"',
        summary="LSTM-GAN: MetaGAN; its generator reads the support set by an LSTM.",
    ),
}


@dataclass(frozen=True)
class Entry:
    """A registered class or function."""

    kind: str
    name: str
    factory: Any  # a class or a function
    preset: Preset | None = None

    @property
    def docstring(self) -> str:
        return inspect.getdoc(self.factory) or ""

    @cached_property
    def options(self) -> dict[str, typed.Option]:
        """The options that are plain values."""
        found = OPTIONS_OF.get(self.kind, typed.options)(self.factory)
        return {name: option for name, option in found.items() if option.is_plain}

    @property
    def family(self) -> str:
        """The folder that its file lies in, in words."""
        module = self.factory.__module__
        parts = module.split(".")
        return parts[-2].replace("_", " ") if module.startswith("innerloop.") else "own"

    @property
    def title(self) -> str:
        """The first paragraph of the docstring, on one line."""
        if self.preset is not None:
            return self.preset.summary
        return " ".join(self.docstring.split("\n\n")[0].split())

    @property
    def summary(self) -> str:
        """The title without what stands before its colon."""
        return self.title.split(": ", 1)[-1]

    @property
    def citation(self) -> Citation:
        if self.preset is not None:
            return citation("Reference: " + self.preset.reference)
        return citation(self.docstring)

    @property
    def facts(self) -> dict[str, str]:
        """What to print beside the docstring."""
        return FACTS_OF[self.kind](self.factory) if self.kind in FACTS_OF else {}

    @property
    def status(self) -> dict[str, str]:
        """What holds for this machine only."""
        return STATUS_OF[self.kind](self.factory) if self.kind in STATUS_OF else {}

    def check(self, values: dict[str, Any]) -> dict[str, Any]:
        """`values` as options. Raises InnerloopError for an unknown one or a bad
        value.
        """
        known = self.options
        for name in values:
            if name not in known:
                raise InnerloopTypeError(
                    f"{self.name} has no option {name!r}{did_you_mean(name, known)}"
                )
        return {n: known[n].check(value, self.name) for n, value in values.items()}


def _learner_options(learner: Any) -> dict[str, typed.Option]:
    return learner.options()


OPTIONS_OF: dict[str, Callable[[Any], dict[str, typed.Option]]] = {
    "learner": _learner_options,
    "encoder": lambda encoder: {},
}
# what to print beside the docstring; and what holds for this machine only
FACTS_OF: dict[str, Callable[[Any], dict[str, str]]] = {
    "encoder": lambda encoder: encoder.facts()
}
STATUS_OF: dict[str, Callable[[Any], dict[str, str]]] = {
    "encoder": lambda encoder: encoder.status()
}


def plain(name: str) -> str:
    """A name without case, hyphens and underscores."""
    return name.lower().replace("-", "").replace("_", "")


def entries(kind: str) -> dict[str, Entry]:
    """All entries of a kind by name, the package's own first."""
    found: dict[str, Callable[..., Any]] = {}
    for module, attribute in SOURCES[kind]:
        found |= getattr(importlib.import_module(module), attribute)
    found |= {name: factory for (of, name), factory in _added.items() if of == kind}
    return {name: Entry(kind, name, factory) for name, factory in found.items()}


def register(kind: str, name: str, factory: Callable[..., Any]) -> None:
    """Add an entry, so that it can be chosen by name, on the command line too.

    Raises InnerloopError for a kind that does not exist, or a name that is taken.
    """
    if kind not in SOURCES:
        raise InnerloopError(f"kind must be one of {', '.join(SOURCES)}; got {kind!r}")
    taken = entries(kind).get(name)
    if taken is not None and taken.factory is not factory:
        raise InnerloopError(f"there is already a {kind} called {name!r}")
    if kind in SHARED:
        module, attribute = SOURCES[kind][0]
        getattr(importlib.import_module(module), attribute)[name] = factory
    _added[kind, name] = factory


def find(kind: str, name: str) -> Entry:
    """The entry of that name, regardless of case and hyphens; for learners also
    presets, and for every kind `file.py:Name`.

    Raises InnerloopError, with a guess, where there is none.
    """
    if is_in_file(name):
        return Entry(kind, absolute(name), from_file(name))
    known = {plain(key): entry for key, entry in entries(kind).items()}
    if (entry := known.get(plain(name))) is not None:
        return entry
    if kind == "learner":
        presets = {plain(key): key for key in PRESETS}
        if (key := presets.get(plain(name))) is not None:
            base = find("learner", PRESETS[key].learner)
            return Entry("learner", key, base.factory, PRESETS[key])
        known |= dict.fromkeys(presets)  # pyright: ignore[reportCallIssue, reportArgumentType]
    names = [*entries(kind), *(PRESETS if kind == "learner" else ())]
    guess = did_you_mean(name.lower(), names)
    raise InnerloopError(f"there is no {IN_WORDS.get(kind, kind)} {name!r}{guess}")
