"""The search for programs that fit examples: what is written so far must begin every
output.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import count, islice
from typing import NamedTuple

from innerloop.programs.grammar import Expression, Grammar, Program

Places = tuple[int, ...]  # how many characters of every output are written
Proposals = list[tuple[float, Expression]]  # log probabilities and expressions
Evaluate = Callable[[Expression, str], str | None]


# a further expression makes a program that many nats less likely, where nothing is
# known
FURTHER = math.log(2)


class Found(NamedTuple):
    """A program that fits the examples, and its log probability."""

    program: Program
    log_p: float


class Budget:
    """How long a search may take: seconds of the processor, and how many places it may
    ask a guide about; infinite where it is not limited.
    """

    def __init__(self, seconds: float = math.inf, places: float = math.inf):
        self.end, self.places = time.process_time() + seconds, places

    @property
    def late(self) -> bool:
        return time.process_time() >= self.end

    @property
    def spent(self) -> bool:
        return self.places <= 0 or self.late


class Written:
    """What expressions write on the inputs, computed once, and whether that goes on
    with the outputs.
    """

    def __init__(
        self, evaluate: Evaluate, inputs: Sequence[str], outputs: Sequence[str]
    ):
        self.evaluate, self.inputs, self.outputs = evaluate, inputs, tuple(outputs)
        self.end: Places = tuple(map(len, outputs))
        self.known: dict[Expression, tuple[str, ...] | None] = {}

    def by(self, expression: Expression) -> tuple[str, ...] | None:
        """What an expression writes on every input; None where it writes nothing on
        one.
        """
        if expression not in self.known:
            told: list[str] | None = []
            for text in self.inputs:
                found = self.evaluate(expression, text)
                if found is None:
                    told = None
                    break
                told.append(found)
            self.known[expression] = tuple(told) if told is not None else None
        return self.known[expression]

    def after(self, places: Places, expression: Expression) -> Places | None:
        """The places after an expression; None where what it writes is not what comes
        next in every output, or is the end of some outputs only.
        """
        told = self.by(expression)
        if told is None or not all(
            output.startswith(part, at)
            for output, part, at in zip(self.outputs, told, places, strict=True)
        ):
            return None
        after = tuple(at + len(part) for at, part in zip(places, told, strict=True))
        return (
            None
            if after != self.end
            and any(at == end for at, end in zip(after, self.end, strict=True))
            else after
        )


def best_first(
    propose: Callable[[list[Places]], list[Proposals]],
    written: Written,
    budget: Budget,
    *,
    wanted: int = 1,
    together: int = 8,
    longest: int = 64,
) -> list[Found]:
    """Programs that fit, likeliest first: `wanted` of them, or those found within the
    budget, or all that are proposed.

    The places where a guide has been asked are the nodes of a graph, and what it
    proposed and what fits are its edges; the likeliest unfinished path is followed, as
    by Dijkstra 1959. A guide sees places only, not how they were reached. together: how
    many places it is asked about at a time. longest: expressions in a program, of which
    a constant has one a character.
    """
    ties = count()
    if not all(written.outputs):
        return []
    start: Places = (0,) * len(written.outputs)
    heap: list[tuple[float, int, Places, Program]] = [(0.0, next(ties), start, ())]
    edges: dict[Places, list[tuple[float, Expression, Places]]] = {}
    visits: dict[Places, int] = {}
    found: list[Found] = []
    while heap and len(found) < wanted and not budget.late:
        cost, _, places, program = heapq.heappop(heap)
        if places == written.end:
            found.append(Found(program, -cost))
            continue
        if visits.get(places, 0) >= wanted or len(program) >= longest:
            continue
        if places not in edges:
            if budget.spent:
                continue
            asked = [places]
            for _, _, other, _ in heapq.nsmallest(2 * together, heap):
                if (
                    other not in edges
                    and other != written.end
                    and other not in asked
                    and len(asked) < min(together, budget.places)
                ):
                    asked.append(other)
            budget.places -= len(asked)
            for node, proposals in zip(asked, propose(asked), strict=True):
                fitting = [
                    (log_p, expression, written.after(node, expression))
                    for log_p, expression in proposals
                ]
                edges[node] = [
                    (log_p, expression, after)
                    for log_p, expression, after in fitting
                    if after is not None
                ]
        visits[places] = visits.get(places, 0) + 1
        for log_p, expression, after in edges[places]:
            heapq.heappush(
                heap, (cost - log_p, next(ties), after, (*program, expression))
            )
    return found


def readable(
    inputs: Sequence[str], outputs: Sequence[str], most: int = 8, cells: int = 250_000
) -> list[int]:
    """The places of the examples that a network reads: the shortest, at most so many,
    and so many pairs of their characters; at least one.
    """
    sizes = sorted(
        (len(text) * len(output), i)
        for i, (text, output) in enumerate(zip(inputs, outputs, strict=True))
    )
    return [
        i for n, (size, i) in enumerate(sizes, 1) if n <= most and n * size <= cells
    ] or [sizes[0][1]]


def by_size(grammar: Grammar) -> Iterator[tuple[float, Expression]]:
    """Every expression of a language, likeliest first, with its log probability where
    nothing is known: every symbol that may follow is as likely as any other, and a
    constant as any other head.
    """
    # by state: cost, number and next state of every symbol
    costs: list[list[tuple[float, int, int]]] = []
    for state, options in enumerate(grammar.following):
        heads = (
            sum(after != Grammar.DONE for after in options.values())
            if state == Grammar.START
            else len(options)
        )
        constants = len(options) - heads
        shares = {
            n: (heads + bool(constants))
            * (constants if constants and after == Grammar.DONE else 1)
            for n, after in options.items()
        }
        costs.append([(math.log(shares[n]), n, after) for n, after in options.items()])
    # to the end
    least, most = (
        [0.0 if state == Grammar.DONE else far for state in range(len(costs))]
        for far in (math.inf, 0.0)
    )
    for _ in costs:
        least = [
            min((cost + least[after] for cost, _, after in some), default=0.0)
            for some in costs
        ]
        most = [
            max((cost + most[after] for cost, _, after in some), default=0.0)
            for some in costs
        ]

    def between(
        state: int, expression: Expression, cost: float, low: float, high: float
    ) -> Iterator[tuple[float, Expression]]:
        for step, number, after in costs[state]:
            total = cost + step
            if total + least[after] <= high:
                longer = (
                    (*expression, grammar.symbols[number]) if number else expression
                )
                if after != Grammar.DONE:
                    yield from between(after, longer, total, low, high)
                elif total > low:
                    yield -total, longer

    low = -1.0
    while low <= most[Grammar.START]:
        high = low + math.log(2)
        yield from sorted(
            between(Grammar.START, (), 0.0, low, high), key=lambda found: -found[0]
        )
        low = high


class Enumerated:
    """The expressions of a language in the order of `by_size`, made when they are first
    asked for, once for all searches.
    """

    def __init__(self, grammar: Grammar):
        self.source = by_size(grammar)
        self.made: Proposals = []

    def first(self, n: int) -> Proposals:
        """The first n, or all."""
        if n > len(self.made):
            self.made += islice(self.source, n - len(self.made))
        return self.made[:n]

    def on_progress(self, i: int) -> tuple[float, Expression] | None:
        """The i-th, from 0; None after the last."""
        return (
            self.made[i]
            if i < len(self.made) or len(self.first(i + 1000)) > i
            else None
        )


@cache
def enumerated(grammar: Grammar) -> Enumerated:
    """The one list of the expressions of a language."""
    return Enumerated(grammar)


def pruned(
    known: Enumerated, written: Written, budget: Budget, *, wanted: int = 1
) -> list[Found]:
    """Enumeration that keeps what begins every output: the first 1,000 expressions of a
    language at every place, then twice as many, and so on.

    Programs that fit, likeliest first where nothing is known; every further expression
    makes one half as likely.
    """
    fitting: Proposals = []
    looked, n = 0, 1000
    while not budget.late:
        more = known.first(n)[looked:]
        if not more:
            break
        for log_p, expression in more:
            told = written.by(expression)
            if told is not None and all(
                part in output
                for part, output in zip(told, written.outputs, strict=True)
            ):
                fitting.append((log_p - FURTHER, expression))
            looked += 1
            if not looked % 100 and budget.late:
                break
        found = best_first(
            lambda places: [fitting] * len(places), written, budget, wanted=wanted
        )
        if found:
            return found
        n *= 2
    return []


def plain(known: Enumerated, written: Written, budget: Budget) -> list[Found]:
    """Enumeration of whole programs, likeliest first where nothing is known, each run
    on the examples: the first that fits, or none.

    Every further expression makes a program half as likely. What an expression writes
    is computed once.
    """
    ties = count()
    first = known.at(0)
    # cost, places of the expressions in the order, what all but the last write, and
    # cost of all but the last
    heap: list[tuple[float, int, tuple[int, ...], tuple[str, ...], float]] = []
    if first is not None:
        heap.append((-first[0], next(ties), (0,), ("",) * len(written.outputs), 0.0))
    while heap:
        cost, tie, numbers, begun, before = heapq.heappop(heap)
        if not tie % 64 and budget.late:
            break
        told, start = (
            written.by(known.made[numbers[-1]][1]),
            before + FURTHER * (len(numbers) > 1),
        )
        if told is not None:
            outputs = tuple(map(str.__add__, begun, told))
            if outputs == written.outputs:
                return [Found(tuple(known.made[i][1] for i in numbers), -cost)]
            heapq.heappush(
                heap,
                (
                    cost + FURTHER - known.made[0][0],
                    next(ties),
                    (*numbers, 0),
                    outputs,
                    cost,
                ),
            )
        following = known.at(numbers[-1] + 1)
        if following is not None:
            heapq.heappush(
                heap,
                (
                    start - following[0],
                    next(ties),
                    (*numbers[:-1], numbers[-1] + 1),
                    begun,
                    before,
                ),
            )
    return []
