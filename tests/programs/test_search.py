"""The search for programs: what it finds, in which order, and when it stops."""

import math

import pytest

from innerloop.programs import strings
from innerloop.programs.grammar import Grammar
from innerloop.programs.search import (
    Budget,
    Enumerated,
    InputOutput,
    Position,
    Proposals,
    best_first,
    by_size,
    plain,
    pruned,
)
from innerloop.programs.strings import parse, run

WORDS = ["ada lovelace", "alan turing", "grace hopper"]
ALL = Enumerated(strings.GRAMMAR)


def examples(program: str, inputs: list[str] = WORDS) -> InputOutput:
    return InputOutput(
        strings.evaluate, inputs, [str(run(parse(program), text)) for text in inputs]
    )


@pytest.mark.parametrize(
    "program", ["token(Word, 2)", 'before(" ", 1)', 'x + "!"', "x.upper()"]
)
@pytest.mark.parametrize("search", [plain, pruned])
def test_enumeration_finds_small_programs(search: object, program: str) -> None:
    found = search(ALL, examples(program), Budget(60))[0].program  # pyright: ignore[reportCallIssue]
    assert [run(found, text) for text in [*WORDS, "mary shelley"]] == [
        run(parse(program), text) for text in [*WORDS, "mary shelley"]
    ]


def test_pruned_enumeration_finds_longer_programs() -> None:
    program = 'token(Word, 2).proper() + ", " + token(Word, 1).first(1).upper() + "."'
    found = pruned(ALL, examples(program), Budget(60), wanted=5)
    assert len(found) == 5
    assert [run(found[0].program, text) for text in WORDS] == [
        "Lovelace, A.",
        "Turing, A.",
        "Hopper, G.",
    ]
    assert sorted((one.log_p for one in found), reverse=True) == [
        one.log_p for one in found
    ]
    assert len({one.program for one in found}) == 5


TINY = Grammar(
    heads={"f": ("n",), "g": ()},
    modifiers={"m": ("n",)},
    roles={"n": (1, 2)},
    constants=("c",),
    most=1,
)


def test_every_expression_comes_once_and_probabilities_sum_to_one() -> None:
    found = dict((expression, p) for p, expression in by_size(TINY))
    arguments = [(), ("m", 1), ("m", 2)]
    assert set(found) == {
        ("c",),
        *(("g", *m) for m in arguments),
        *(("f", i, *m) for i in (1, 2) for m in arguments),
    }
    assert sum(map(math.exp, found.values())) == pytest.approx(1)
    assert found["f", 1, "m", 2] == pytest.approx(-math.log(3 * 2 * 2 * 2))
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_weights_are_prior_odds_of_heads() -> None:
    found = {e: math.exp(p) for p, e in by_size(TINY, {"f": 0.25})}
    assert sum(found.values()) == pytest.approx(1)
    of_f = sum(p for e, p in found.items() if e[0] == "f")
    assert of_f == pytest.approx(0.25 / 2.25)
    assert found["c",] == pytest.approx(1 / 2.25)


def test_proposals_are_followed_likeliest_first() -> None:
    """Against all paths through the proposals, written out."""
    shown = examples('token(Word, 1) + " " + token(Word, 2)')
    options: Proposals = [
        (math.log(p), parse(text)[0])
        for text, p in {
            "token(Word, 1)": 0.3,
            '" "': 0.2,
            "token(Word, 2)": 0.1,
            "x": 0.02,
            'before(" ", 1)': 0.15,
            "token(Lower, 2)": 0.05,
        }.items()
    ]
    found = best_first(
        lambda positions: [options] * len(positions), shown, Budget(), wanted=100
    )
    expected = {}
    for log_p, first in options:
        for log_q, second in [*options, (0.0, None)]:
            for log_r, third in [*options, (0.0, None)] if second else [(0.0, None)]:
                program = tuple(one for one in (first, second, third) if one)
                if [run(program, text) for text in WORDS] == WORDS:
                    expected[program] = log_p + log_q + log_r
    assert {one.program: pytest.approx(one.log_p) for one in found} == expected
    assert [one.log_p for one in found] == sorted(expected.values(), reverse=True)


def test_a_search_stays_within_its_budget() -> None:
    evaluated: list[Position] = []

    def constants(positions: list[Position]) -> list[Proposals]:
        evaluated.extend(positions)
        return [[(-1.0, (c,)) for c in "abcdefghijklmnopqrstuvwxyz"]] * len(positions)

    same = InputOutput(strings.evaluate, ["1", "2"], ["a" * 12, "a" * 12])
    assert best_first(constants, same, Budget(positions=4)) == []
    assert len(evaluated) == 4
    assert len(best_first(constants, same, Budget())[0].program) == 12
    assert best_first(constants, same, Budget(seconds=0)) == []
    assert (
        pruned(ALL, same, Budget(seconds=0))
        == plain(ALL, same, Budget(seconds=0))
        == []
    )


def test_no_program_makes_nothing() -> None:
    assert pruned(ALL, InputOutput(strings.evaluate, ["a"], [""]), Budget(0.05)) == []
