"""All programs that fit examples, as the paths of a graph, with their probabilities.

A version space in the sense of Gulwani 2011, "Automating string processing in
spreadsheets using input-output examples", POPL, section 4: nodes are positions in the
outputs, and every path from the start to the end is a program that fits. Sums over all
paths cost no more than a pass over the edges.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import count

from innerloop.programs.grammar import Expression, Program
from innerloop.programs.search import (
    Budget,
    Edge,
    Edges,
    Enumerated,
    Found,
    InputOutput,
    Position,
    Proposals,
    rounds,
)

KEPT = 100  # expressions of an edge: the likeliest ones
WORK = 3_000_000  # pairs of a position and a group of expressions in a graph
ENOUGH = 128_000  # expressions to try before a search may stop
SMALL = 0.01  # relative growth of the probability that counts as none
NEVER = -math.inf


def log_sum(values: Iterable[float]) -> float:
    """log sum exp."""
    some = [value for value in values if value > NEVER]
    if not some:
        return NEVER
    most = max(some)
    return most + math.log(sum(math.exp(value - most) for value in some))


class VersionSpace:
    """Programs that fit, by edges of positions. Programs that do not read the input are
    left out, unless there are no others.

    log_p: log of the sum of the probabilities of these programs, -inf where there are
    none. size: how many there are.
    """

    def __init__(self, edges: Edges, start: Position, end: Position):
        self.start, self.end = start, end
        # of all paths to the end: log probability of those with a part of the input,
        # and of those without; likewise the best log probability, and the number
        self.mass = {end: (NEVER, 0.0)}
        self.best = {end: (NEVER, 0.0)}
        self.paths = {end: (0, 1)}
        self.edges: Edges = {end: []}
        # every expression writes something, so this visits what comes after first
        for node in sorted(edges, key=sum, reverse=True):
            useful = [edge for edge in edges[node] if edge.after in self.mass]
            if useful and node != end:
                self.edges[node] = useful
                self._add(node)
        self.order = sorted(self.edges, key=sum)
        reads, constant = self.mass.get(start, (NEVER, NEVER))
        self.only_constants = reads == NEVER
        self.log_p = constant if self.only_constants else reads
        self.size = self.paths.get(start, (0, 0))[self.only_constants]

    def _add(self, node: Position) -> None:
        masses: tuple[list[float], list[float]] = ([], [])
        bests: tuple[list[float], list[float]] = ([], [])
        paths = [0, 0]
        for after, constant, choices in self.edges[node]:
            log_p = log_sum(p for p, _ in choices)
            top = max(p for p, _ in choices)
            for without in (False, True):  # whether the rest reads no input
                kind = without and constant
                masses[kind].append(log_p + self.mass[after][without])
                bests[kind].append(top + self.best[after][without])
                paths[kind] += len(choices) * self.paths[after][without]
        self.mass[node] = (log_sum(masses[0]), log_sum(masses[1]))
        self.best[node] = (max(bests[0], default=NEVER), max(bests[1], default=NEVER))
        self.paths[node] = (paths[0], paths[1])

    def programs(self) -> Iterator[Found]:
        """The programs, likeliest first."""
        if self.log_p == NEVER:
            return
        ties = count()

        def to_go(node: Position, reads: bool) -> float:
            if self.only_constants or not reads:
                return self.best[node][self.only_constants]
            return max(self.best[node])

        # cost with what is to come, which is known exactly; number of symbols, so that
        # the shortest of equals comes first; cost; position; program; whether it reads
        heap: list[tuple[float, int, int, float, Position, Program, bool]] = []
        heapq.heappush(heap, (0.0, 0, next(ties), 0.0, self.start, (), False))
        while heap:
            _, symbols, _, cost, node, program, reads = heapq.heappop(heap)
            if node == self.end:
                yield Found(program, -cost)
                continue
            for after, constant, choices in self.edges[node]:
                now = reads or not constant
                rest = to_go(after, now)
                if rest == NEVER:
                    continue
                for log_p, expression in choices:
                    far = cost - log_p
                    longer = symbols + len(expression)
                    item = (far, after, (*program, expression), now)
                    key = (round(far - rest, 9), longer, next(ties))
                    heapq.heappush(heap, (*key, *item))

    def agreement(
        self, evaluate: Callable[[Expression], str | None], answer: str | None
    ) -> float:
        """The share of the probability of all programs that is with those which answer
        `answer` for another input, where expressions write what `evaluate` says.
        """
        cache: dict[Expression, str | None] = {}

        def written(expression: Expression) -> str | None:
            if expression not in cache:
                cache[expression] = evaluate(expression)
            return cache[expression]

        # probability by characters written and whether the input was read, 0 where
        # nothing is written any more (the program then has no answer)
        waiting: dict[Position, dict[tuple[int, bool], float]] = defaultdict(dict)
        waiting[self.start][0, self.only_constants] = 1.0
        for node in self.order:
            for after, constant, choices in self.edges[node]:
                shares: dict[str | None, float] = defaultdict(float)
                for log_p, expression in choices:
                    shares[written(expression)] += math.exp(log_p)
                for (at, reads), p in waiting[node].items():
                    now = reads or not constant
                    scale = self._mass(after, now) - self._mass(node, reads)
                    if scale == NEVER:
                        continue
                    for text, share in shares.items():
                        if text is None or at < 0:
                            to = -1  # this program has no output
                        elif answer is not None and answer.startswith(text, at):
                            to = at + len(text)
                        elif answer is None:
                            to = 0
                        else:
                            continue
                        state = waiting[after]
                        more = p * share * math.exp(scale)
                        state[to, now] = state.get((to, now), 0.0) + more
        right = -1 if answer is None else len(answer)
        return min(1.0, waiting[self.end].get((right, True), 0.0))

    def _mass(self, node: Position, reads: bool) -> float:
        return log_sum(self.mass[node]) if reads else self.mass[node][0]


def explore(known: Enumerated, examples: InputOutput, budget: Budget) -> VersionSpace:
    """The programs that fit, of more and more expressions, likeliest first.

    The search stops where the budget is used up or no expression is left; or where at
    least ENOUGH expressions were tried and the second half of them added less than 1 %
    to the probability of all programs found.
    """
    space = VersionSpace({}, examples.start, examples.end)
    if not all(examples.outputs):
        return space
    for fitting, tried in rounds(known, examples, budget):
        groups: dict[tuple[tuple[str, ...], bool], Proposals] = defaultdict(list)
        for log_p, expression, texts in fitting:
            choices = groups[texts, expression == (texts[0],)]
            if len(choices) < KEPT:
                choices.append((log_p, expression))
        last = space
        found = VersionSpace(_edges(groups, examples), examples.start, examples.end)
        space = found if found.log_p > NEVER else last
        if space.log_p == NEVER or space.only_constants:
            continue
        comparable = not last.only_constants
        grown = space.log_p - last.log_p if comparable else math.inf
        if tried >= ENOUGH and grown < math.log1p(SMALL):
            break
    return space


def _edges(
    groups: dict[tuple[tuple[str, ...], bool], Proposals], examples: InputOutput
) -> Edges:
    """All edges between positions that can be reached, of the first of these where they
    are too many.
    """
    edges: Edges = {}
    waiting = [examples.start]
    seen = {examples.start}
    for node in waiting:
        if len(edges) * len(groups) > WORK:
            break
        edges[node] = []
        for (texts, constant), choices in groups.items():
            after = examples.advance(node, texts)
            if after is not None:
                edges[node].append(Edge(after, constant, choices))
                if after not in seen and after != examples.end:
                    seen.add(after)
                    waiting.append(after)
    return edges
