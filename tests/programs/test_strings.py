"""The language of strings: beside Python written by hand, and beside anything that
comes.
"""

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from innerloop.programs import strings
from innerloop.programs.grammar import Expression, Grammar
from innerloop.programs.string_tasks import string_task
from innerloop.programs.strings import (
    GRAMMAR,
    evaluate,
    ignores_input,
    numbered,
    parse,
    run,
    show,
    text_of,
)

BY_HAND = [
    ("x", lambda t: t),
    ("sub(2, -2)", lambda t: t[1:-1]),
    ("token(Word, -1)", lambda t: re.findall("[A-Za-z]+", t)[-1]),
    (
        'span(Word, 1, start, "-", 1, stop)',
        lambda t: t[re.search("[A-Za-z]", t).start() : t.index("-") + 1],
    ),
    ("span(Number, 1, stop, Number, 2, start)", lambda t: re.split("[0-9]+", t)[1]),
    ('before("-", 1)', lambda t: t.split("-")[0]),
    ('after("-", -1).upper()', lambda t: t.rsplit("-", 1)[1].upper()),
    ("all(Number)", lambda t: re.sub("[^0-9]", "", t)),
    (
        'x.lower().replace("-", "/").remove(" ")',
        lambda t: t.lower().replace("-", "/").replace(" ", ""),
    ),
    (
        "x.proper()",
        lambda t: re.sub("[A-Za-z]+", lambda m: m[0][0].upper() + m[0][1:].lower(), t),
    ),
    (
        'token(Proper, 1).first(1) + ". " + token(Digit, 2)',
        lambda t: re.search("[A-Z](?=[a-z])", t)[0] + ". " + re.findall("[0-9]", t)[1],
    ),
    (
        "x.last(5).trim() + token(Alnum, 2)",
        lambda t: t[-5:].strip() + re.findall("[A-Za-z0-9]+", t)[1],
    ),
    (
        'after("-", 1).before("-", 1).token(Word, 1)',
        lambda t: re.search("[A-Za-z]+", t.split("-")[1])[0],
    ),
    (
        '"\\"" + token(Caps, 1) + "\\\\" + token(Lower, -1)',
        lambda t: '"' + re.findall("[A-Z]+", t)[0] + "\\" + re.findall("[a-z]+", t)[-1],
    ),
]


@pytest.mark.parametrize(
    ("text", "by_hand"), BY_HAND, ids=[text for text, _ in BY_HAND]
)
def test_programs_do_what_python_does(text: str, by_hand: object) -> None:
    for line in ("Ada 17-KG part-x 4", "Bo22 q-Xy 9Z-LAST 31 "):
        assert run(parse(text), line) == by_hand(line)  # pyright: ignore[reportCallIssue]


def test_what_finds_nothing_has_no_output() -> None:
    for text in (
        "token(Number, 3)",
        'before("@", 1)',
        "sub(5, 2)",
        "sub(9, 16)",
        "x.first(6)",
        "before(Word, 1)",
        '"a" + token(Digit, 1)',
    ):
        assert run(parse(text), "abc") is None
    assert run((), "abc") is None
    assert run(parse("x"), "a" * 1001) is None
    assert run(parse("x + x"), "a" * 600) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no program"),
        ("x +", "is no program"),
        ("token(Word)", "expected ,"),
        ("foo(1)", "'foo' does not exist"),
        ("sub(1, 20)", "20 may not"),
        ("x.upper().lower().trim().upper()", "'upper' may not"),
        ('token(",", 1)', "',' may not"),
        ("x x", r"\+ or the end"),
        ("whole()", "'whole' does not exist"),
        ("x.x", "'x' does not exist"),
        ('"a', "is no program"),
        ("token(Word, 1", "is no program"),
        ("token(", "ends in the middle"),
        ("token(Word,", "ends in the middle"),
    ],
)
def test_bad_programs_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


@some.composite
def expressions(draw: some.DrawFn) -> Expression:
    """Any expression of the language, by a walk through its automaton."""
    state, symbols = Grammar.START, []
    while state != Grammar.DONE:
        number = draw(some.sampled_from(sorted(GRAMMAR.following[state])))
        state = GRAMMAR.following[state][number]
        symbols += [GRAMMAR.symbols[number]] * (number > 0)
    return tuple(symbols)


ANY_PROGRAM = some.lists(expressions(), min_size=1, max_size=6).map(tuple)
LIKELY = some.text(alphabet="aZ 1-.,@éß中\n\0\u0130", max_size=40)


@settings(max_examples=300, deadline=None)
@given(ANY_PROGRAM, some.one_of(LIKELY, some.text(max_size=60)))
def test_any_program_ends_on_any_text_without_an_error(
    program: tuple[Expression, ...], text: str
) -> None:
    output = run(program, text)
    parts = [evaluate(expression, text) for expression in program]
    assert output == (None if None in parts else "".join(parts)) and output != ""  # pyright: ignore[reportArgumentType, reportCallIssue]  # noqa: PT018


@settings(max_examples=200, deadline=None)
@given(ANY_PROGRAM)
def test_parse_inverts_show(program: tuple[Expression, ...]) -> None:
    assert parse(show(program)) == program
    assert GRAMMAR.decode(GRAMMAR.encode(program)) == program


def test_bad_numbers_are_refused() -> None:
    numbers = GRAMMAR.encode(parse("token(Word, 1).upper()"))
    for bad in (numbers[:-1], numbers[1:], [*numbers, 9999]):
        with pytest.raises(ValueError, match=r"not whole|may not follow"):
            GRAMMAR.decode(bad)


@given(some.text(alphabet=strings.CHARACTERS, max_size=20))
def test_texts_as_numbers(text: str) -> None:
    assert text_of(numbered(text, 20)) == text
    assert len(numbered(text, 20)) == 20


def test_texts_of_other_characters() -> None:
    assert text_of(numbered("é中", 3)) == "e\ufffd"
    with pytest.raises(ValueError, match="may have 4 characters; got 5"):
        numbered("abcde", 4)


def test_a_language_for_texts_has_what_occurs_in_them() -> None:
    grammar = strings.grammar_for(["$1,2", "$3"])
    assert grammar.roles["delimiter"] == (",", "$")
    assert grammar.roles["kind"] == ("Number", "Alnum", "Digit")
    assert set(grammar.symbols) < set(GRAMMAR.symbols)
    nothing = strings.grammar_for(["é", "😀"])
    assert nothing.roles["delimiter"] == ()
    assert set(strings.grammar_for(["😀"]).heads) == {"whole", "sub"}


def test_tasks_are_solved_by_their_programs_and_are_not_trivial() -> None:
    random = Random(0)
    for _ in range(200):
        task = string_task(random, 6, 24, 4, 32)
        assert [run(task.program, text) for text in task.inputs] == task.outputs
        assert (  # noqa: PT018
            len(set(task.inputs)) == 6
            and task.inputs != task.outputs
            and len(set(task.outputs)) > 3
        )
        assert not ignores_input(task.program)
        assert max(map(len, task.inputs + task.outputs)) <= 24
        assert len(GRAMMAR.encode(task.program)) <= 32
        for text, begins, output in zip(
            task.inputs, task.begins, task.outputs, strict=True
        ):
            parts = [
                output[a:b]
                for a, b in zip(begins, [*begins[1:], len(output)], strict=True)
            ]
            assert parts == [evaluate(expression, text) for expression in task.program]
