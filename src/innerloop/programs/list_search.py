"""The search for programs on lists, line by line, the likeliest operations first."""

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


def operations(
    probabilities: Mapping[str, float],
) -> list[tuple[float, str, str | None]]:
    """Every operation with its cost in nats, cheapest first: -log of its share of the
    probabilities of functions, and of lambdas among theirs.

    probabilities: of ATTRIBUTES, 1 for those that are missing.
    """
    weights = {
        operation: math.prod(
            probabilities.get(name, 1.0) for name in attributes(Line(*operation, ()))
        )
        for operation in OPERATIONS
    }
    total = sum(weights.values())
    costs = [
        (-math.log(max(weight, 1e-9) / total), name, lambda_)
        for (name, lambda_), weight in weights.items()
    ]
    return sorted(costs, key=lambda item: (item[0], item[1], item[2] or ""))


def list_programs_by_cost(
    inputs: Sequence[Sequence[Value]],
    outputs: Sequence[Value],
    kinds: tuple[Kind, ...],
    budget: Budget,
    *,
    probabilities: Mapping[str, float] = UNIFORM,
    most: int = 4,
    pruned: bool = True,
) -> Iterator[tuple[ListProgram, float]]:
    """Programs of at most `most` lines that compute the outputs from the inputs, each
    with its cost in nats, cheap ones first up to STEP.

    A line costs what its operation costs, and the log of how many values each of its
    arguments could be. The search is depth-first, up to a cost that grows from round to
    round. With `pruned` it skips lines whose values on all examples are those of an
    input or of a line before.
    """
    ranked, target = operations(probabilities), tuple(outputs)
    known: list[tuple[Value, ...]] = [*zip(*inputs, strict=True)]
    types: list[Kind] = [*kinds]
    lines: list[Line] = []
    tried = 0

    def deeper(
        cost: float, low: float, high: float
    ) -> Iterator[tuple[ListProgram, float]]:
        nonlocal tried
        places: dict[Kind, list[int]] = {"int": [], "list": []}
        for i, kind in enumerate(types):
            places[kind].append(i)
        for price, name, lambda_ in ranked:
            if cost + price > high or budget.out_of_time:
                return
            choices = [places[kind] for kind in FUNCTIONS[name].arguments]
            total = cost + price + sum(math.log(len(some)) for some in choices if some)
            if total > high:
                continue
            for arguments in product(*choices):
                tried += 1
                if not tried % 128 and budget.out_of_time:
                    return
                values: list[Value] = []
                for row in range(len(target)):
                    value = apply(name, lambda_, [known[at][row] for at in arguments])
                    if value is None:
                        break
                    values.append(value)
                result = tuple(values)
                if len(values) < len(target) or (pruned and result in known):
                    continue
                lines.append(Line(name, lambda_, arguments))
                if result == target:
                    if total > low:
                        yield ListProgram(kinds, tuple(lines)), total
                elif len(lines) < most:
                    known.append(result)
                    types.append(FUNCTIONS[name].gives)
                    yield from deeper(total, low, high)
                    known.pop()
                    types.pop()
                lines.pop()

    low, last = 0.0, most * (ranked[-1][0] + 2 * math.log(len(types) + most))
    while low < last and not budget.out_of_time:
        yield from deeper(0.0, low, low + STEP)
        low += STEP
