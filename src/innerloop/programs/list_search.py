"""The search for programs on lists: lines one after the other, the likeliest operations
first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from innerloop.programs.lists import (
    FUNCTIONS,
    OPERATIONS,
    Kind,
    Line,
    ListProgram,
    Value,
    apply,
    attributes,
)
from innerloop.programs.search import Budget

UNIFORM: dict[str, float] = {}  # nothing is known
STEP = 1.0  # nats between two rounds of the search


def operations(chances: Mapping[str, float]) -> list[tuple[float, str, str | None]]:
    """Every operation with its cost in nats, cheapest first: -log of its share of the
    chances of functions, and of lambdas among theirs.

    chances: of ATTRIBUTES, 1 for those that are not named.
    """
    shares = {
        operation: math.prod(
            chances.get(name, 1.0) for name in attributes(Line(*operation, ()))
        )
        for operation in OPERATIONS
    }
    total = sum(shares.values())
    return sorted(
        (-math.log(max(share, 1e-9) / total), *operation)
        for operation, share in shares.items()
    )  # pyright: ignore[reportReturnType]


def list_programs_by_cost(
    inputs: Sequence[Sequence[Value]],
    outputs: Sequence[Value],
    kinds: tuple[Kind, ...],
    budget: Budget,
    *,
    chances: Mapping[str, float] = UNIFORM,
    most: int = 4,
    pruned: bool = True,
) -> Iterator[tuple[ListProgram, float]]:
    """Programs of at most `most` lines that make the outputs of the inputs, each with
    its cost in nats, cheap ones first up to STEP.

    A line costs what its operation does, and the log of how many values each of its
    arguments could be. Round after round, the search goes as deep as the cost allows;
    with `pruned` no line is followed that makes on all examples what an input or a line
    before it makes.
    """
    ranked, wanted = operations(chances), tuple(outputs)
    known: list[tuple[Value, ...]] = [*zip(*inputs, strict=True)]
    types: list[Kind] = [*kinds]
    lines: list[Line] = []
    looked = 0

    def deeper(
        cost: float, low: float, high: float
    ) -> Iterator[tuple[ListProgram, float]]:
        nonlocal looked
        choices = {
            kind: [i for i, found in enumerate(types) if found == kind]
            for kind in ("int", "list")
        }
        for price, name, told in ranked:
            if cost + price > high or budget.late:
                return
            fitting = [choices[kind] for kind in FUNCTIONS[name].arguments]
            total = cost + price + sum(math.log(len(some)) for some in fitting if some)
            if total > high:
                continue
            for arguments in product(*fitting):
                looked += 1
                if not looked % 128 and budget.late:
                    return
                made: list[Value] = []
                for row in range(len(wanted)):
                    found = apply(name, told, [known[at][row] for at in arguments])
                    if found is None:
                        break
                    made.append(found)
                if len(made) < len(wanted) or (pruned and tuple(made) in known):
                    continue
                lines.append(Line(name, told, arguments))
                if tuple(made) == wanted:
                    if total > low:
                        yield ListProgram(kinds, tuple(lines)), total
                elif len(lines) < most:
                    known.append(tuple(made))
                    types.append(FUNCTIONS[name].gives)
                    yield from deeper(total, low, high)
                    known.pop()
                    types.pop()
                lines.pop()

    low, last = 0.0, most * (ranked[-1][0] + 2 * math.log(len(types) + most))
    while low < last and not budget.late:
        yield from deeper(0.0, low, low + STEP)
        low += STEP
