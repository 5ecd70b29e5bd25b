"""All programs that fit, beside sums over each of them, and how sure a synthesis is."""

import math

import pytest

from innerloop.engine.errors import InnerloopError
from innerloop.programs import strings
from innerloop.programs.grammar import Grammar
from innerloop.programs.search import Budget, Edge, Enumerated, InputOutput
from innerloop.programs.strings import parse, run
from innerloop.programs.version_space import VersionSpace, explore
from innerloop.synthesis import synthesize

PRICES = [("$1,234.50", "1234.50"), ("$99.00", "99.00")]


def small_space() -> VersionSpace:
    """Programs for ab -> ba, with constants on some paths and one dead end."""

    def edge(after: int, **choices: float) -> Edge:
        programs = {
            "first": parse("x.first(1)")[0],
            "last": parse("x.last(1)")[0],
            "second": parse("sub(2, 2)")[0],
            "swap": parse("x.last(2)")[0],
        }
        some = [
            (math.log(p), programs.get(name, (name,))) for name, p in choices.items()
        ]
        return Edge((after,), set(choices) <= {"a", "b"}, some)

    edges = {
        (0,): [edge(1, b=0.5), edge(1, last=0.2, second=0.1), edge(2, swap=0.05)],
        (1,): [edge(2, a=0.5), edge(2, first=0.3), edge(3, a=0.1)],
    }
    return VersionSpace(edges, (0,), (2,))


def test_programs_and_sums_are_those_of_all_paths() -> None:
    space = small_space()
    found = list(space.programs())
    # 2 + 1 choices, then 2; and one expression; without the constant "ba"
    assert len(found) == space.size == 3 * 2 + 1 - 1
    expected = 0.8 * 0.8 + 0.05 - 0.25
    assert math.exp(space.log_p) == pytest.approx(expected)
    assert sum(math.exp(log_p) for _, log_p in found) == pytest.approx(expected)
    costs = [log_p for _, log_p in found]
    assert costs == sorted(costs, reverse=True)
    assert len({program for program, _ in found}) == len(found)
    assert not any(strings.ignores_input(program) for program, _ in found)


@pytest.mark.parametrize("text", ["ab", "cde", "x", "", "ba"])
def test_agreement_is_the_share_of_the_programs_with_the_same_output(
    text: str,
) -> None:
    space = small_space()
    shares: dict[str | None, float] = {}
    for program, log_p in space.programs():
        output = run(program, text)
        shares[output] = shares.get(output, 0.0) + math.exp(log_p - space.log_p)
    for output, share in shares.items():
        found = space.agreement(lambda e: strings.evaluate(e, text), output)
        assert found == pytest.approx(share)
    assert space.agreement(lambda e: strings.evaluate(e, text), "other") == 0


def test_constants_count_where_nothing_else_fits() -> None:
    examples = InputOutput(strings.evaluate, ["a", "b"], ["--", "--"])
    space = explore(Enumerated(Grammar({}, {}, {}, "-+")), examples, Budget())
    assert [program for program, _ in space.programs()] == [(("-",), ("-",))]
    assert space.only_constants
    assert space.agreement(lambda e: strings.evaluate(e, "c"), "--") == 1
    assert space.agreement(lambda e: strings.evaluate(e, "c"), "-") == 0


def test_every_program_of_a_small_language_is_found() -> None:
    heads = {"whole": (), "before": ("match", "index"), "after": ("match", "index")}
    roles = {"match": ("-",), "index": (1, -1)}
    grammar = Grammar(heads, {"upper": ()}, roles, constants="-", most=1)
    expressions = [e for _, e in Enumerated(grammar).first(1000)]
    assert len(expressions) == 11
    inputs, outputs = ["a-b", "c-d"], ["b-A", "d-C"]
    expected = {
        program
        for one in expressions
        for two in expressions
        for three in expressions
        for program in [(one, two, three)]
        if [run(program, text) for text in inputs] == outputs
    }
    examples = InputOutput(strings.evaluate, inputs, outputs)
    space = explore(Enumerated(grammar), examples, Budget())
    assert {program for program, _ in space.programs()} == expected
    assert space.size == len(expected) > 1


def test_a_simpler_program_further_on_is_found() -> None:
    """A few characters at fixed places fit early; removing two characters fits later
    and is much likelier.
    """
    found = synthesize(PRICES, seconds=60)
    assert found("$12,345.67") == "12345.67"
    assert found.program in ('x.remove("$").remove(",")', 'x.remove(",").remove("$")')
    assert found.agreement("$12,345.67") > 0.99
    assert found.fits > 1000


def test_an_emoji_between_words_is_not_a_fixed_place() -> None:
    found = synthesize([("hi 😀 there", "😀")], seconds=60)
    assert "sub" not in found.program
    assert found("hello 🎉 you") == "🎉"
    # one example leaves open whether the fourth character was meant
    assert found.agreement("hello 🎉 you") < 0.7
    assert found.agreement("so 🎉 long") < found.agreement("we 🎉 there") == 1
    places = synthesize([("hi 😀 there", "😀"), ("hello 🎉 you", "🎉")], seconds=60)
    assert places.agreement("good 🎈 morning") > 0.9


def test_shares_are_of_all_programs() -> None:
    found = synthesize([("x-y", "y")], seconds=60, wanted=3)
    assert len(found.programs) == 3
    assert found.programs[0][0] == found.program
    assert 0.1 < sum(share for _, share in found.programs) < 1
    assert 0.1 < found.agreement("p-q-r") < 0.9
    assert found.agreement("a-b") == pytest.approx(1)


def test_rows_without_an_output_agree_on_that() -> None:
    found = synthesize([("x-y", "y"), ("some-z", "z")], seconds=60)
    assert found("") is None
    assert found.agreement("") == pytest.approx(1)
    assert found.agreement("a" * 1001) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": -1.0}, "seconds must be at least 0; got -1.0"),
        ({"seconds": math.nan}, "got nan"),
        ({"seconds": math.inf}, "got inf"),
        ({"wanted": 0}, "wanted must be at least 1; got 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InnerloopError, match=message):
        synthesize(PRICES, **options)  # pyright: ignore[reportArgumentType]
