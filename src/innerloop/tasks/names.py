"""Names of countries, languages and currencies in the languages of the world."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import torch

from innerloop.core.task import Task
from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.engine.options import Count
from innerloop.tasks.splits import split_indices, task_source
from innerloop.tasks.translation import Lexicon, Pair, Translations, check_sizes

SOURCE, TARGET = 20, 25  # letters of the longest name, and of its translation and end
FREE = 64
FEWEST = 60  # names of a language, or it is left out
# letters that mean the same in all tasks: of Latin with marks apart, Cyrillic, Arabic
# and Devanagari
RANGES = ((0x61, 0x7A), (0x300, 0x331), (0x430, 0x45F), (0x621, 0x652), (0x901, 0x94D))
ALPHABET = (
    *" -'’()ßæøđłıəŋ",
    *(chr(code) for low, high in RANGES for code in range(low, high + 1)),
)
# Languages in which at least 35 % of the names that are not those of English are the
# same, directly or through others: they are in one split.
RELATED = """asa dav ebu guz jmc kam kde ki ksb luy mas mer rof rwk saq sw teo vun;
ba bg ce cv kaa kk ky myv ru tg tt tyv; am byn gez tig wal; an es gl qu;
bgn bqi fa mzn; dje khq ses twq; brh trw ur; hi mai xnr; id jv ms; nb nn no; bs hr;
cgg nyn; dsb hsb; lg xog; mk sr; pl szl; pt seh; rn rw; shi zgh"""
GROUP = {code: group for group in RELATED.split(";") for code in group.split()}
LEXICON = Lexicon(ALPHABET, FREE, letters=True)


def _babel() -> Any:
    try:
        import babel  # pyright: ignore[reportMissingImports]
        import babel.localedata  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingPackageError(
            "names needs Babel, which has them: pip install 'innerloop[names]'"
        ) from error
    return babel


@cache
def _names(code: str) -> dict[tuple[str, str], str]:
    """The names of a language, by kind and by the code of what they name."""
    locale = _babel().Locale(code)
    return {
        (kind, key): name
        for kind in ("territories", "languages", "currencies")
        for key, name in getattr(locale, kind).items()
        if not key.isdigit()  # a continent
    }


@cache
def languages(source: str) -> dict[str, tuple[Pair, ...]]:
    """The pairs of the names in the language `source` and in every other language that
    has enough of them, by its code; without languages that mostly copy the source.

    Raises InnerloopError for a language that does not exist.
    """
    codes = sorted(
        code for code in _babel().localedata.locale_identifiers() if "_" not in code
    )
    if source not in codes:
        guess = did_you_mean(source, codes, "some of them are")
        raise InnerloopError(f"no language has the code {source!r}{guess}")
    known = {key: LEXICON.split(name) for key, name in _names(source).items()}
    found = {}
    for code in codes:
        pairs = {
            known[key]: LEXICON.split(name)
            for key, name in _names(code).items()
            if key in known
        }
        short = tuple(
            (x, y) for x, y in pairs.items() if len(x) <= SOURCE and 0 < len(y) < TARGET
        )
        copies = sum(x == y for x, y in short)
        if code != source and len(short) >= FEWEST and copies < len(short) / 2:
            found[code] = short
    return found


class Names(Translations):
    """A task is a language: some of its names are given, others asked.

    Args:
        codes: of the languages.
    """

    def __init__(self, split: str, shots: int, queries: int, source: str):
        check_sizes(shots, queries)
        super().__init__(LEXICON, SOURCE, TARGET, shots, queries)
        if shots + queries > FEWEST:
            raise InnerloopError(
                f"shots and queries must be at most {FEWEST} together, the names of "
                f"the smallest languages; got {shots} and {queries}"
            )
        self.pairs = languages(source)
        groups = sorted({GROUP.get(code, code) for code in self.pairs})
        chosen = {groups[i] for i in split_indices(groups, split)}
        self.codes = [c for c in self.pairs if GROUP.get(c, c) in chosen]

    def describe(self) -> str:
        return f"names in {len(self.codes)} languages from {self.shots} pairs"

    def sample(self, n: int, generator: torch.Generator) -> Task:
        draw = random.Random(int(torch.randint(2**62, (), generator=generator)))
        episodes = []
        for _ in range(n):
            pairs = self.pairs[draw.choice(self.codes)]
            drawn = draw.sample(pairs, self.shots + self.queries)
            episodes.append((drawn[: self.shots], drawn[self.shots :]))
        return self.batch(episodes, generator)

    def test_settings(self, fixed_ways: int | None) -> list[dict[str, Any]]:
        return [{}]


@task_source
def names(
    split: str = "train",
    *,
    shots: Count = 10,
    queries: Count = 10,
    source: str = "en",
) -> Names:
    """Names: countries, languages and currencies in many languages.

    A task is one of about 240 languages; its names are spelled from those in English.
    The names are those of the Unicode Common Locale Data Repository (CLDR) in the
    package Babel, in lower case, of at most 20 letters and marks, translations 24.
    Languages that share many names are in one split. Letters of Latin, Cyrillic, Arabic
    and Devanagari are the same in all tasks; others are known from the pairs of a task
    alone.

    Args:
        shots: pairs of a task.
        queries: names to translate.
        source: the code of the language of the sources.
    """
    return Names(split, shots, queries, source)
