"""The language of lists: beside Python written by hand, beside anything that comes, and
the search for its programs.
"""

import math
from itertools import accumulate, product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from innerloop.programs import lists
from innerloop.programs.list_search import list_programs_by_cost, operations
from innerloop.programs.lists import (
    ATTRIBUTES,
    FUNCTIONS,
    LAMBDAS,
    OPERATIONS,
    Line,
    ListProgram,
    decode,
    encode,
    list_task,
    parse,
    run,
    show,
)
from innerloop.programs.search import Budget

ONE, TWO, NUMBER = ("list",), ("list", "list"), ("list", "int")
BY_HAND = [
    ("head(x)", ONE, lambda x: x[0]),
    ("a = sort(x); b = reverse(a); last(b)", ONE, min),
    (
        "a = filter(odd, x); b = map(*2, a); sort(b)",
        ONE,
        lambda x: tuple(sorted(2 * v for v in x if v % 2)),
    ),
    ("a = map(^2, x); sum(a)", ONE, lambda x: sum(v**2 for v in x)),
    (
        "a = map(/3, x); map(*-1, a)",
        ONE,
        lambda x: tuple(-math.floor(v / 3) for v in x),
    ),
    (
        "a = scanl(max, x); b = zipwith(-, a, x); maximum(b)",
        ONE,
        lambda x: max(m - v for m, v in zip(accumulate(x, max), x, strict=True)),
    ),
    ("count(negative, x)", ONE, lambda x: len([v for v in x if v < 0])),
    (
        "zipwith(min, x, y)",
        TWO,
        lambda x, y: tuple(min(pair) for pair in zip(x, y, strict=False)),
    ),
    ("a = take(y, x); minimum(a)", NUMBER, lambda x, y: min(x[:y])),
    ("a = drop(y, x); map(-1, a)", NUMBER, lambda x, y: tuple(v - 1 for v in x[y:])),
    ("access(y, x)", NUMBER, lambda x, y: x[y]),
    (
        "a = filter(even, x); b = filter(positive, a); sum(b)",
        ONE,
        lambda x: sum(v for v in x if v > 0 and v % 2 == 0),
    ),
]


@pytest.mark.parametrize(
    ("text", "kinds", "by_hand"), BY_HAND, ids=[text for text, *_ in BY_HAND]
)
def test_programs_do_what_python_does(
    text: str, kinds: tuple[lists.Kind, ...], by_hand: object
) -> None:
    second = {ONE: (), TWO: ((9, -4, 2),), NUMBER: (2,)}[kinds]
    for first in ((3, -7, 8, 5), (-2, 4, 4, -9, 11, 0)):
        assert run(parse(text, kinds), (first, *second)) == by_hand(first, *second)  # pyright: ignore[reportCallIssue]


def test_undefined_values_give_no_output() -> None:
    for text, value in (
        ("head(x)", ()),
        ("a = map(^2, x); sum(a)", (16,)),
        ("maximum(x)", ()),
        ("scanl(*, x)", (20, 20)),
        ("sum(x)", (200, 200)),
    ):
        assert run(parse(text), (value,)) is None
    assert run(parse("access(y, x)", NUMBER), ((1, 2), 2)) is None
    for inputs in (
        (),
        (3,),
        ((1, 2), 3),
        ([1, 2],),
        (None,),
        (("a",),),
        ((1000,),),
        ((1,) * 11,),
        ((True,),),
        ("ab",),
    ):
        assert run(parse("reverse(x)"), inputs) in (
            [None] if inputs != ((True,),) else [None, (True,)]
        )


KINDS = some.sampled_from([ONE, TWO, NUMBER, ("int", "list")])


@some.composite
def programs(draw: some.DrawFn) -> ListProgram:
    """Any program of the language."""
    inputs = draw(KINDS)
    known, lines = list(inputs), []
    for _ in range(draw(some.integers(1, lists.LINES))):
        name = draw(
            some.sampled_from(
                [n for n, f in FUNCTIONS.items() if set(f.arguments) <= set(known)]
            )
        )
        function = FUNCTIONS[name]
        lambda_ = (
            draw(some.sampled_from([*LAMBDAS[function.lambdas]]))
            if function.lambdas
            else None
        )
        arguments = [
            draw(
                some.sampled_from([i for i, kind in enumerate(known) if kind == wanted])
            )
            for wanted in function.arguments
        ]
        lines.append(Line(name, lambda_, tuple(arguments)))
        known.append(function.gives)
    return ListProgram(inputs, tuple(lines))


ANY = some.one_of(
    some.integers(-300, 300),
    some.lists(some.integers(-256, 256), max_size=11).map(tuple),
    some.none(),
    some.text(max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(programs(), some.lists(ANY, max_size=3))
def test_any_program_ends_on_anything_without_an_error(
    program: ListProgram, inputs: list[object]
) -> None:
    found = run(program, inputs)
    assert (
        found is None
        or lists.kind_of(found) == FUNCTIONS[program.lines[-1].function].gives
    )


@settings(max_examples=200, deadline=None)
@given(programs())
def test_parse_inverts_show(program: ListProgram) -> None:
    assert parse(show(program), program.inputs) == program
    assert decode(encode(program), program.inputs) == program


@given(ANY)
def test_values_as_numbers(value: object) -> None:
    if lists.kind_of(value):
        assert lists.value_of(lists.numbered(value)) == value  # pyright: ignore[reportArgumentType]
    assert lists.value_of(lists.numbered(None)) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not of the form"),
        ("foo(x)", "no function 'foo'"),
        ("map(x)", "takes one of"),
        ("head(odd, x)", "'odd' is neither"),
        ("b = sort(x); head(b)", "not of the form"),
        ("sort(y)", "'y' is neither"),
        ("a = head(x); sort(a)", "line 2: sort takes list"),
        ("a = sort(x)", "not of the form"),
        ("sort(x); head(x)", "not of the form"),
        ("take(x)", "takes int and list"),
    ],
)
def test_bad_programs_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


def test_bad_numbers_are_refused() -> None:
    for bad in ([0], [99, 0, -1], [0, 5, -1], []):
        with pytest.raises(ValueError, match=r"three numbers|takes|lines"):
            decode(bad, ONE)


def test_tasks_are_solved_by_their_programs_and_every_line_counts() -> None:
    random = Random(0)
    for _ in range(100):
        task = list_task(random, 8, 2, 4)
        assert [run(task.program, row) for row in task.inputs] == task.outputs
        assert 2 <= len(task.program.lines) <= 4
        assert len(set(task.outputs)) > 4
        used = {at for line in task.program.lines for at in line.arguments}
        assert used == set(
            range(len(task.program.inputs) + len(task.program.lines) - 1)
        )


EXAMPLES = [((4, -3, 8, 1),), ((-5, 7, 6),), ((2, 2, 9, -1, -8),)]


@pytest.mark.parametrize("pruned", [True, False])
def test_enumeration_finds_small_programs(pruned: bool) -> None:
    for text in (
        "sort(x)",
        "a = filter(even, x); sum(a)",
        "a = map(*2, x); reverse(a)",
    ):
        outputs = [run(parse(text), row) for row in EXAMPLES]
        program, _ = next(
            list_programs_by_cost(EXAMPLES, outputs, ONE, Budget(60), pruned=pruned)
        )  # pyright: ignore[reportArgumentType]
        other = ((3, -6, 5, 10, 10),)
        assert run(program, other) == run(parse(text), other)


def test_all_programs_of_two_lines_are_found() -> None:
    """Beside every program of one and two lines, run one by one."""
    outputs = [run(parse("a = reverse(x); head(a)"), row) for row in EXAMPLES]

    def lines(known: list[str]) -> list[Line]:
        places = {
            kind: [i for i, other in enumerate(known) if other == kind]
            for kind in ("int", "list")
        }
        return [
            Line(*o, some)
            for o in OPERATIONS
            for some in product(*(places[kind] for kind in FUNCTIONS[o[0]].arguments))
        ]

    def right(*some: Line) -> bool:
        return [run(ListProgram(ONE, some), row) for row in EXAMPLES] == outputs

    first = lines(["list"])
    # a program ends where it is right
    expected = {(line,) for line in first if right(line)}
    expected |= {
        (a, b)
        for a in first
        if not right(a)
        for b in lines(["list", FUNCTIONS[a.function].gives])
        if right(a, b)
    }
    found = list(
        list_programs_by_cost(EXAMPLES, outputs, ONE, Budget(60), most=2, pruned=False)
    )  # pyright: ignore[reportArgumentType]
    assert {program.lines for program, _ in found} == expected
    assert len(found) == len(expected)
    price = {(name, lambda_): cost for cost, name, lambda_ in operations({})}
    for program, cost in found:
        kinds, total = ["list"], 0.0
        for line in program.lines:
            total += price[line.function, line.lambda_] + sum(
                math.log(kinds.count(kind))
                for kind in FUNCTIONS[line.function].arguments
            )
            kinds.append(FUNCTIONS[line.function].gives)
        assert cost == pytest.approx(total)


def test_probabilities_change_the_order() -> None:
    assert sum(math.exp(-cost) for cost, *_ in operations({})) == pytest.approx(1)
    probabilities = dict.fromkeys(ATTRIBUTES, 0.01) | {"map": 1.0, "one *3": 1.0}
    assert operations(probabilities)[0][1:] == ("map", "*3")


def test_a_search_stays_within_its_time() -> None:
    assert list(list_programs_by_cost(EXAMPLES, [1, 2, 3], ONE, Budget(0))) == []
