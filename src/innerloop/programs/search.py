"""The search for programs that fit examples.

What a program has written so far must be a prefix of every output. A position is how
many characters of every output are written; expressions lead from one position to
another.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import count, islice
from typing import NamedTuple

from innerloop.programs.grammar import Expression, Grammar, Program

Position = tuple[int, ...]  # the number of characters written, of every output
Proposals = list[tuple[float, Expression]]  # log probabilities and expressions
Evaluate = Callable[[Expression, str], str | None]


# under the uniform prior, every expression of a program costs that many nats more
PER_EXPRESSION = math.log(2)


class Found(NamedTuple):
    """A program that fits the examples, and its log probability."""

    program: Program
    log_p: float


class Budget:
    """What a search may use: seconds of processor time, and positions for which a
    network may be evaluated. Infinite by default.
    """

    def __init__(self, seconds: float = math.inf, positions: float = math.inf):
        self.end, self.positions = time.process_time() + seconds, positions

    @property
    def out_of_time(self) -> bool:
        return time.process_time() >= self.end

    @property
    def exhausted(self) -> bool:
        return self.positions <= 0 or self.out_of_time


class InputOutput:
    """Examples as inputs and outputs, and how expressions continue the outputs."""

    def __init__(
        self, evaluate: Evaluate, inputs: Sequence[str], outputs: Sequence[str]
    ):
        self.evaluate, self.inputs, self.outputs = evaluate, inputs, tuple(outputs)
        self.start: Position = (0,) * len(outputs)
        self.end: Position = tuple(map(len, outputs))
        self.cache: dict[Expression, tuple[str, ...] | None] = {}

    def texts(self, expression: Expression) -> tuple[str, ...] | None:
        """What an expression writes for every input, computed once; None where it
        writes nothing for one of them.
        """
        if expression not in self.cache:
            self.cache[expression] = self._texts(expression, lambda text, output: True)
        return self.cache[expression]

    def parts(self, expression: Expression) -> tuple[str, ...] | None:
        """What an expression writes for every input, where that is part of every
        output; else None.
        """
        return self._texts(expression, lambda text, output: text in output)

    def _texts(
        self, expression: Expression, fits: Callable[[str, str], bool]
    ) -> tuple[str, ...] | None:
        texts: list[str] = []
        for source, output in zip(self.inputs, self.outputs, strict=True):
            text = self.evaluate(expression, source)
            if text is None or not fits(text, output):
                return None
            texts.append(text)
        return tuple(texts)

    def advance(
        self, position: Position, texts: tuple[str, ...] | None
    ) -> Position | None:
        """The position after `texts` are written; None where they do not continue
        every output, or complete some outputs only.
        """
        if texts is None:
            return None
        after: list[int] = []
        for output, text, at in zip(self.outputs, texts, position, strict=True):
            if not output.startswith(text, at):
                return None
            after.append(at + len(text))
        complete = [at == end for at, end in zip(after, self.end, strict=True)]
        return tuple(after) if all(complete) or not any(complete) else None


class Edge(NamedTuple):
    """From one position to another: expressions that write the same for all examples,
    with their log probabilities. `constant`: they do not read the input.
    """

    after: Position
    constant: bool
    choices: Proposals


Edges = dict[Position, list[Edge]]


def best_first(
    propose: Callable[[list[Position]], list[Proposals]],
    examples: InputOutput,
    budget: Budget,
    *,
    wanted: int = 1,
    at_once: int = 8,
    longest: int = 64,
    edges: Edges | None = None,
) -> list[Found]:
    """Programs that fit, likeliest first: `wanted` of them, or those found within the
    budget, or all that are proposed.

    The positions form a graph, whose edges are the proposals that fit; the likeliest
    unfinished path is extended first (Dijkstra 1959). `propose` sees positions, not the
    paths to them, at most `at_once` in a call. longest: expressions in a program, where
    a constant counts one for each character. edges: where to store the graph.
    """
    ties = count()
    if not all(examples.outputs):
        return []
    heap: list[tuple[float, int, Position, Program]] = []
    heap.append((0.0, next(ties), examples.start, ()))
    edges = {} if edges is None else edges
    visits: dict[Position, int] = {}
    found: list[Found] = []
    while heap and len(found) < wanted and not budget.out_of_time:
        cost, _, position, program = heapq.heappop(heap)
        if position == examples.end:
            found.append(Found(program, -cost))
            continue
        if visits.get(position, 0) >= wanted or len(program) >= longest:
            continue
        if position not in edges:
            if budget.exhausted:
                continue
            batch = [position]
            for _, _, other, _ in heapq.nsmallest(2 * at_once, heap):
                new = other not in edges and other not in batch
                if new and other != examples.end:
                    if len(batch) >= min(at_once, budget.positions):
                        break
                    batch.append(other)
            budget.positions -= len(batch)
            for node, proposals in zip(batch, propose(batch), strict=True):
                edges[node] = [
                    Edge(
                        after, len(set(texts)) == 1 and expression == (texts[0],), [one]
                    )
                    for one in proposals
                    for expression in [one[1]]
                    if (texts := examples.texts(expression)) is not None
                    and (after := examples.advance(node, texts)) is not None
                ]
        visits[position] = visits.get(position, 0) + 1
        for after, _, choices in edges[position]:
            for log_p, expression in choices:
                longer = (*program, expression)
                heapq.heappush(heap, (cost - log_p, next(ties), after, longer))
    return found


def readable(
    inputs: Sequence[str], outputs: Sequence[str], most: int = 8, cells: int = 250_000
) -> list[int]:
    """The indices of the examples that a network reads: at least one, the shortest
    first, at most `most`, and at most `cells` pairs of characters.
    """
    sizes = sorted(
        (len(text) * len(output), i)
        for i, (text, output) in enumerate(zip(inputs, outputs, strict=True))
    )
    return [
        i for n, (size, i) in enumerate(sizes, 1) if n <= most and n * size <= cells
    ] or [sizes[0][1]]


def by_size(
    grammar: Grammar, weights: Mapping[str, float] | None = None
) -> Iterator[tuple[float, Expression]]:
    """Every expression of a language, likeliest first, with its log probability under
    a uniform prior: all symbols that may follow are equally likely, and a constant
    counts as one head, whichever character it is.

    weights: of heads by name, 1 where nothing is given.
    """
    # by state: cost, number and next state of every symbol
    costs: list[list[tuple[float, int, int]]] = []
    for state, options in enumerate(grammar.following):
        shares = dict.fromkeys(options, 1.0)
        if state == Grammar.START:
            constants = sum(after == Grammar.DONE for after in options.values())
            for number, after in options.items():
                if after == Grammar.DONE:
                    shares[number] = 1 / constants
                elif weights:
                    shares[number] = weights.get(str(grammar.symbols[number]), 1.0)
        total = sum(shares.values())
        costs.append(
            [
                (math.log(total / shares[number]), number, after)
                for number, after in options.items()
            ]
        )
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
    """The expressions of a language in the order of `by_size`, computed on demand and
    once.
    """

    def __init__(self, grammar: Grammar, weights: Mapping[str, float] | None = None):
        self.source = by_size(grammar, weights)
        self.made: Proposals = []

    def first(self, n: int) -> Proposals:
        """The first n, or all."""
        if n > len(self.made):
            self.made += islice(self.source, n - len(self.made))
        return self.made[:n]

    def at(self, i: int) -> tuple[float, Expression] | None:
        """The i-th, from 0; None after the last."""
        if i >= len(self.made):
            self.made += islice(self.source, i + 1000 - len(self.made))
        return self.made[i] if i < len(self.made) else None


@cache
def enumerated(grammar: Grammar) -> Enumerated:
    """The one list of the expressions of a language."""
    return Enumerated(grammar)


# expressions with their log probability in a program, and what they write
Fitting = list[tuple[float, Expression, tuple[str, ...]]]


def rounds(
    known: Enumerated, examples: InputOutput, budget: Budget
) -> Iterator[tuple[Fitting, int]]:
    """Enumeration of expressions: those that write a part of every output, and how many
    were tried, after the first 1,000, after twice as many, and so on, and at the end.
    """
    fitting: Fitting = []
    tried, target = 0, 1000
    while (item := known.at(tried)) is not None:
        tried += 1
        texts = examples.parts(item[1])
        if texts is not None:
            fitting.append((item[0] - PER_EXPRESSION, item[1], texts))
        if not tried % 100 and budget.out_of_time:
            break
        if tried == target:
            yield fitting, tried
            target *= 2
    yield fitting, tried


def pruned(
    known: Enumerated, examples: InputOutput, budget: Budget, *, wanted: int = 1
) -> list[Found]:
    """Enumeration that keeps what continues every output: programs of the first 1,000
    expressions of a language, or of twice as many, and so on; up to `wanted`, likeliest
    first under the uniform prior.
    """
    for fitting, _ in rounds(known, examples, budget):
        proposals = [(log_p, expression) for log_p, expression, _ in fitting]
        found = best_first(
            lambda positions: [proposals] * len(positions),  # noqa: B023
            examples,
            budget,
            wanted=wanted,
        )
        if found:
            return found
    return []


def plain(known: Enumerated, examples: InputOutput, budget: Budget) -> list[Found]:
    """Enumeration of whole programs, likeliest first under the uniform prior, each run
    on the examples: the first that fits, or none.

    What an expression writes is computed once.
    """
    ties = count()
    first = known.at(0)
    # cost, indices of the expressions in the enumeration, what all but the last write,
    # and cost of all but the last
    heap: list[tuple[float, int, tuple[int, ...], tuple[str, ...], float]] = []
    if first is not None:
        heap.append((-first[0], next(ties), (0,), ("",) * len(examples.outputs), 0.0))
    while heap:
        cost, tie, indices, before, cost_before = heapq.heappop(heap)
        if not tie % 64 and budget.out_of_time:
            break
        texts = examples.texts(known.made[indices[-1]][1])
        start = cost_before + PER_EXPRESSION * (len(indices) > 1)
        if texts is not None:
            outputs = tuple(map(str.__add__, before, texts))
            if outputs == examples.outputs:
                return [Found(tuple(known.made[i][1] for i in indices), -cost)]
            longer = cost + PER_EXPRESSION - known.made[0][0]
            heapq.heappush(heap, (longer, next(ties), (*indices, 0), outputs, cost))
        following = known.at(indices[-1] + 1)
        if following is not None:
            other = (*indices[:-1], indices[-1] + 1)
            heapq.heappush(
                heap, (start - following[0], next(ties), other, before, cost_before)
            )
    return []
