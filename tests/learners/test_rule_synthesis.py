"""Rules that explain a few pairs, against languages that are written down here."""

from __future__ import annotations

import pytest

import innerloop
from innerloop.learners.synthesis.rule_synthesis import _numbers, _rule
from innerloop.programs.rewriting import Language, Rule, languages
from innerloop.programs.search import Budget

# what people saw and were asked, Lake and Baroni 2023, figure 2
SHOWN = """dax: RED; lug: BLUE; wif: GREEN; zup: YELLOW; lug fep: BLUE BLUE BLUE;
dax fep: RED RED RED; lug blicket wif: BLUE GREEN BLUE; lug kiki wif: GREEN BLUE;
wif blicket dax: GREEN RED GREEN; dax kiki lug: BLUE RED;
lug fep kiki wif: GREEN BLUE BLUE BLUE; wif kiki dax blicket lug: RED BLUE RED GREEN;
lug kiki wif fep: GREEN GREEN GREEN BLUE;
wif blicket dax kiki lug: BLUE GREEN RED GREEN"""
ASKED = """zup fep: YELLOW YELLOW YELLOW; zup blicket lug: YELLOW BLUE YELLOW;
dax blicket zup: RED YELLOW RED; zup kiki dax: RED YELLOW; wif kiki zup: YELLOW GREEN;
zup fep kiki lug: BLUE YELLOW YELLOW YELLOW;
wif kiki zup fep: YELLOW YELLOW YELLOW GREEN;
lug kiki wif blicket zup: GREEN YELLOW GREEN BLUE;
zup blicket wif kiki dax fep: RED RED RED YELLOW GREEN YELLOW;
zup blicket zup kiki zup fep: YELLOW YELLOW YELLOW YELLOW YELLOW YELLOW"""


def pairs(text: str) -> list[tuple[str, str]]:
    return [tuple(side.strip() for side in pair.split(":")) for pair in text.split(";")]  # pyright: ignore


def translated(shown: str, *asked: str) -> list[str]:
    return [line.target for line in innerloop.translate(pairs(shown), asked)]


def test_what_people_were_asked_is_right() -> None:
    asked = pairs(ASKED)
    found = translated(SHOWN, *(source for source, _ in asked))
    assert found == [target for _, target in asked]


@pytest.mark.parametrize(
    ("shown", "asked", "target"),
    [
        ("a: A; b: B", "b a b", "B A B"),  # one word after the other
        ("a: A; b: B; a twice: A A", "b twice", "B B"),
        ("a: A; b: B; twice a: A A", "twice b", "B B"),  # a word before its argument
        ("a: A A; b: B; a twice: A A A A", "b twice", "B B"),
        ("a: A; b: B; a polite: A PLEASE", "b polite", "B PLEASE"),
        ("a: A; b: B; c: C; a or b: B A B", "c or a", "A C A"),
        # the output of one rule is the argument of another
        (
            "a: A; b: B; a two: A A; a then b: B A; b then a: A B",
            "a two then b",
            "B A A",
        ),
        # nothing is shown of longer arguments: they are allowed
        ("a: A; b: B; a two: A A; a or b: B A B", "a or b two", "B B A B B"),
        ("a: A; b: B; a two: A A", "c two", ""),  # a word that no pair shows
        # pairs that disagree
        ("a: A; b: B; c: C; a two: A A; b two: B; c two: C C", "a two", "A A"),
    ],
)
def test_a_language_is_found(shown: str, asked: str, target: str) -> None:
    assert translated(shown, asked) == [target]


def test_rules_that_apply_to_more_are_kept_of_many() -> None:
    """Nothing is shown of longer arguments, and more languages fit than are kept."""
    words = [f"{w}: {w.upper()}" for w in "abcd"]
    calls = [f"a {f} b: {'A ' * (i + 1)}B" for i, f in enumerate("fghk")]
    (found,) = translated("; ".join([*words, *calls]), "a f b g c k d")
    assert set(found.split()) == {*"ABCD"}


def test_a_rule_for_single_words_is_told_from_others() -> None:
    """Of `wif fep` alone `fep` repeats `wif`, not what stands before it."""
    found = translated(SHOWN, "dax kiki lug fep", "lug fep kiki dax")
    assert found == ["BLUE BLUE BLUE RED", "RED BLUE BLUE BLUE"]


@pytest.mark.parametrize(
    "rule",
    [
        Rule(5, (), (), (-4,)),
        Rule(5, (0,), (True,), (0, 0, -1)),
        Rule(5, (1,), (False,), (1, -9)),
        Rule(5, (0, 1), (False, True), (1, 0, 1)),
    ],
)
def test_a_rule_is_numbers(rule: Rule) -> None:
    numbers = _numbers(rule)
    assert min(numbers) >= 0
    assert _rule([*numbers, -1, -1]) == rule


def test_without_time_there_are_no_rules() -> None:
    found = languages([((2,), (3,)), ((2, 4), (3, 3))], Budget(seconds=0))
    assert found == [Language({2: (3,)})]


def test_a_source_that_is_too_long_is_refused() -> None:
    with pytest.raises(innerloop.InnerloopError, match="from 1 to 64 words"):
        translated("a: A", "a " * 65)
