"""A language of programs on integers and lists of integers: lines, each a function of
inputs and earlier lines; the last one is the output.

    a = filter(odd, x); b = map(*2, a); sort(b)

Reference: Balog, Gaunt, Brockschmidt, Nowozin and Tarlow 2017, "DeepCoder: learning to
write programs", arXiv:1611.01989, appendix F.

Inputs are called x and y, lines a, b, c and so on; divisions round down. An integer
beyond LIMIT, and the head, last, minimum or maximum of an empty list, is undefined, and
then the program has no output: `run` never raises, and ends on every input.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random
from typing import Any, Literal, NamedTuple

from innerloop.engine.errors import InnerloopError

Value = int | tuple[int, ...]
Kind = Literal["int", "list"]

LIMIT, LONGEST, LINES = 255, 10, 8  # of integers, of lists, of programs
INPUTS, NAMES = "xy", "abcdefgh"


class Function(NamedTuple):
    """What a function takes: one of `lambdas`, if any, then arguments of these kinds;
    the kind of what it gives, and how it is computed.
    """

    lambdas: str | None
    arguments: tuple[Kind, ...]
    gives: Kind
    compute: Callable[..., Any]


LAMBDAS: dict[str, dict[str, Callable[..., Any]]] = {
    "one": {
        "+1": lambda v: v + 1,
        "-1": lambda v: v - 1,
        "*2": lambda v: 2 * v,
        "*3": lambda v: 3 * v,
        "*4": lambda v: 4 * v,
        "*-1": lambda v: -v,
        "/2": lambda v: v // 2,
        "/3": lambda v: v // 3,
        "/4": lambda v: v // 4,
        "^2": lambda v: v * v,
    },
    "is": {
        "positive": lambda v: v > 0,
        "negative": lambda v: v < 0,
        "even": lambda v: v % 2 == 0,
        "odd": lambda v: v % 2 == 1,
    },
    "two": {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "min": min,
        "max": max,
    },
}
FUNCTIONS: dict[str, Function] = {
    "head": Function(None, ("list",), "int", lambda v: v[0] if v else None),
    "last": Function(None, ("list",), "int", lambda v: v[-1] if v else None),
    "minimum": Function(None, ("list",), "int", lambda v: min(v, default=None)),
    "maximum": Function(None, ("list",), "int", lambda v: max(v, default=None)),
    "sum": Function(None, ("list",), "int", sum),
    "reverse": Function(None, ("list",), "list", lambda v: v[::-1]),
    "sort": Function(None, ("list",), "list", lambda v: tuple(sorted(v))),
    "take": Function(None, ("int", "list"), "list", lambda n, v: v[: max(n, 0)]),
    "drop": Function(None, ("int", "list"), "list", lambda n, v: v[max(n, 0) :]),
    "access": Function(
        None, ("int", "list"), "int", lambda n, v: v[n] if 0 <= n < len(v) else None
    ),
    "map": Function("one", ("list",), "list", lambda f, v: tuple(map(f, v))),
    "filter": Function("is", ("list",), "list", lambda f, v: tuple(filter(f, v))),
    "count": Function("is", ("list",), "int", lambda f, v: sum(map(f, v))),
    "zipwith": Function(
        "two", ("list", "list"), "list", lambda f, v, w: tuple(map(f, v, w))
    ),
    "scanl": Function("two", ("list",), "list", lambda f, v: tuple(accumulate(v, f))),
}


class Line(NamedTuple):
    """A function, its lambda, if it takes one, and its arguments: the places of inputs
    and of lines, inputs first.
    """

    function: str
    lambda_: str | None
    arguments: tuple[int, ...]


class ListProgram(NamedTuple):
    """The kinds of the inputs, and the lines."""

    inputs: tuple[Kind, ...]
    lines: tuple[Line, ...]


OPERATIONS: tuple[tuple[str, str | None], ...] = tuple(
    (name, lambda_)
    for name, function in FUNCTIONS.items()
    for lambda_ in ([None] if function.lambdas is None else LAMBDAS[function.lambdas])
)
# what a program may have
ATTRIBUTES: tuple[str, ...] = (
    *FUNCTIONS,
    *(f"{kind} {name}" for kind, some in LAMBDAS.items() for name in some),
)


def attributes(line: Line) -> list[str]:
    """The function and, if it has one, the lambda of a line, as ATTRIBUTES names
    them.
    """
    return [
        line.function,
        *(
            [f"{FUNCTIONS[line.function].lambdas} {line.lambda_}"]
            if line.lambda_
            else []
        ),
    ]


def kind_of(value: object) -> Kind | None:
    """The kind of a value of the language; None where it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return "int" if abs(value) <= LIMIT else None
    fits = (
        isinstance(value, tuple)
        and len(value) <= LONGEST
        and all(isinstance(v, int) and abs(v) <= LIMIT for v in value)
    )
    return "list" if fits else None


def apply(function: str, lambda_: str | None, values: Sequence[Value]) -> Value | None:
    """What a function of the language makes of values of the kinds that it takes; None
    where that is nothing, or goes beyond a limit.
    """
    known = FUNCTIONS[function]
    found = (
        known.compute(*values)
        if known.lambdas is None or lambda_ is None
        else known.compute(LAMBDAS[known.lambdas][lambda_], *values)
    )
    return found if kind_of(found) else None


def check(program: ListProgram) -> None:
    """Raises ValueError where a program is none of the language, and says which line is
    wrong.
    """
    kinds: list[Kind] = [*program.inputs]
    if not 1 <= len(kinds) <= len(INPUTS) or not 1 <= len(program.lines) <= LINES:
        raise InnerloopError(
            f"a program has 1 or {len(INPUTS)} inputs and 1 to {LINES} lines; got "
            f"{len(kinds)} and {len(program.lines)}"
        )
    for i, (name, lambda_, arguments) in enumerate(program.lines, 1):
        function = FUNCTIONS.get(name)
        if function is None:
            raise InnerloopError(
                f"line {i}: there is no function {name!r}, only {', '.join(FUNCTIONS)}"
            )
        if lambda_ not in (LAMBDAS[function.lambdas] if function.lambdas else (None,)):
            wanted = (
                f"one of {', '.join(LAMBDAS[function.lambdas])}"
                if function.lambdas
                else "none"
            )
            raise InnerloopError(
                f"line {i}: {name} takes {wanted} first, not {lambda_!r}"
            )
        if [kinds[at] if 0 <= at < len(kinds) else None for at in arguments] != [
            *function.arguments
        ]:
            raise InnerloopError(
                f"line {i}: {name} takes {' and '.join(function.arguments)}, each an "
                "input or an earlier line"
            )
        kinds.append(function.gives)


def run(program: ListProgram, inputs: Sequence[object]) -> Value | None:
    """What a program that passes `check` makes of inputs; None where they are not of
    its kinds, or where a line finds nothing.
    """
    if [kind_of(value) for value in inputs] != [*program.inputs]:
        return None
    values: list[Any] = [*inputs]
    for name, lambda_, arguments in program.lines:
        found = apply(name, lambda_, [values[at] for at in arguments])
        if found is None:
            return None
        values.append(found)
    return values[-1]


def show(program: ListProgram) -> str:
    """A program as a person reads it, and `parse` reads it again, with the kinds of its
    inputs.
    """
    names = [*INPUTS[: len(program.inputs)], *NAMES]
    shown: list[str] = []
    for name, lambda_, arguments in program.lines:
        words = [lambda_] if lambda_ else []
        words += [names[at] for at in arguments]
        shown.append(f"{name}({', '.join(words)})")
    lines = [f"{NAMES[i]} = {line}" for i, line in enumerate(shown[:-1])]
    return "; ".join([*lines, shown[-1]])


def parse(text: str, inputs: tuple[Kind, ...] = ("list",)) -> ListProgram:
    """The program that `show` shows so. Raises ValueError where it is none."""
    names = {name: i for i, name in enumerate([*INPUTS[: len(inputs)], *NAMES])}
    lines: list[Line] = []
    parts = text.split(";")
    for i, part in enumerate(parts):
        found = re.fullmatch(r"\s*(?:(\w)\s*=\s*)?(\w+)\((.*)\)\s*", part)
        if found is None or found[1] != (
            NAMES[i : i + 1] if i < len(parts) - 1 else None
        ):
            raise InnerloopError(
                f"line {i + 1}: {part.strip()!r} is not of the form "
                f"{NAMES[min(i, 7)]} = function(arguments), the last without a name"
            )
        words = [word.strip() for word in found[3].split(",")]
        function = FUNCTIONS.get(found[2])
        lambda_ = words.pop(0) if function is not None and function.lambdas else None
        if unknown := [word for word in words if word not in names]:
            raise InnerloopError(
                f"line {i + 1}: {unknown[0]!r} is neither an input nor a line"
            )
        lines.append(Line(found[2], lambda_, tuple(names[word] for word in words)))
    program = ListProgram(inputs, tuple(lines))
    check(program)
    return program


def encode(program: ListProgram) -> list[int]:
    """A program as three numbers a line: the place of its function and lambda in
    OPERATIONS, and its arguments, -1 for none.
    """
    numbers: list[int] = []
    for function, lambda_, arguments in program.lines:
        padding = [-1] * (2 - len(arguments))
        numbers += [OPERATIONS.index((function, lambda_)), *arguments, *padding]
    return numbers


def decode(numbers: Sequence[int], inputs: tuple[Kind, ...]) -> ListProgram:
    """The program of such numbers. Raises ValueError where they are none."""
    if len(numbers) % 3 or any(
        not 0 <= operation < len(OPERATIONS) for operation in numbers[::3]
    ):
        raise InnerloopError(
            f"{list(numbers)} are not three numbers a line, the first of them below "
            f"{len(OPERATIONS)}"
        )
    lines = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    program = ListProgram(
        inputs,
        tuple(
            Line(*OPERATIONS[operation], tuple(at for at in some if at >= 0))
            for operation, *some in lines
        ),
    )
    check(program)
    return program


class ListTask(NamedTuple):
    """A program, inputs, and what it makes of them."""

    program: ListProgram
    inputs: list[tuple[Value, ...]]
    outputs: list[Value]


SIGNATURES: tuple[tuple[Kind, ...], ...] = (
    ("list",),
    ("list",),
    ("list", "list"),
    ("list", "int"),
)


def list_task(random: Random, n: int, fewest: int, most: int) -> ListTask:
    """A task of n rows, of a program of `fewest` to `most` lines: all of them and all
    inputs count, and no line repeats another or an input.

    Outputs differ from row to row, more often than not.
    """
    wanted_lines = random.randint(fewest, most)
    while True:
        kinds = random.choice(SIGNATURES)
        size, spread = random.choice((4, 6, 8)), random.choice((5, 20, 60))

        def value(kind: Kind, size: int = size, spread: int = spread) -> Value:
            if kind == "int":
                return random.randint(0, size - 1)
            return tuple(
                random.randint(-spread, spread)
                for _ in range(random.randint(size // 2, size))
            )

        inputs = [tuple(map(value, kinds)) for _ in range(n)]
        columns, known, lines = [*zip(*inputs, strict=True)], [*kinds], []
        for _ in range(wanted_lines):
            for _ in range(10):
                name = random.choice([*FUNCTIONS])
                function = FUNCTIONS[name]
                if not set(function.arguments) <= set(known):
                    continue
                lambda_ = (
                    random.choice([*LAMBDAS[function.lambdas]])
                    if function.lambdas
                    else None
                )
                fitting = [
                    [i for i, kind in enumerate(known) if kind == wanted]
                    for wanted in function.arguments
                ]
                arguments = tuple(
                    random.choice(some[-1:] if random.random() < 0.5 else some)
                    for some in fitting
                )
                values = tuple(
                    apply(name, lambda_, [columns[at][row] for at in arguments])
                    for row in range(n)
                )
                if (
                    None not in values
                    and values not in columns
                    and len(set(values)) > n // 2
                ):
                    columns.append(values)  # pyright: ignore[reportArgumentType]
                    known.append(function.gives)
                    lines.append(Line(name, lambda_, arguments))
                    break
        used = {at for line in lines for at in line.arguments}
        if len(lines) == wanted_lines and used | {len(known) - 1} == set(
            range(len(known))
        ):
            return ListTask(ListProgram(kinds, tuple(lines)), inputs, list(columns[-1]))


SLOT = 2 + LONGEST  # numbers of a value


def numbered(value: Value | None) -> list[int]:
    """A value as SLOT numbers: 1 for an integer, 2 for a list, 0 for none; how many
    integers; these, and zeros.
    """
    if value is None:
        return [0] * SLOT
    some = (value,) if isinstance(value, int) else value
    return [
        1 if isinstance(value, int) else 2,
        len(some),
        *some,
        *[0] * (LONGEST - len(some)),
    ]


def value_of(numbers: Sequence[int]) -> Value | None:
    """The value that was numbered so."""
    if numbers[0] not in (1, 2):
        return None
    return numbers[2] if numbers[0] == 1 else tuple(numbers[2 : 2 + max(0, numbers[1])])
