"""Programs from examples, for columns of a table: with a trained guide or without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from innerloop.engine.errors import InnerloopError
from innerloop.learners.synthesis.robustfill import RobustFill
from innerloop.programs import strings
from innerloop.programs.grammar import Program
from innerloop.programs.search import Budget, Found, Written, enumerated, pruned
from innerloop.runs import RunError, load

BETWEEN = "|"  # the texts of several columns, where they are read as one
Row = str | Sequence[str]


@dataclass(frozen=True)
class Synthesis:
    """The likeliest program that fits the examples, and how far the others that fit
    agree with it.

    program: it, as text. programs: all that were found, with their shares of the
    probability. The instance is the program: call it with an input.
    """

    program: str
    programs: tuple[tuple[str, float], ...]

    def __call__(self, row: Row) -> str | None:
        """What the program makes of an input; None where it finds nothing in it."""
        return strings.run(strings.parse(self.program), joined(row))

    def agreement(self, row: Row) -> float:
        """The share of the probability of all programs found that is with those which
        make the same of an input as the first.
        """
        answer, text = self(row), joined(row)
        return min(
            1.0,
            sum(
                share
                for program, share in self.programs
                if strings.run(strings.parse(program), text) == answer
            ),
        )


def joined(row: Row) -> str:
    """The text that an input is read as: several columns with a | between them."""
    return row if isinstance(row, str) else BETWEEN.join(row)


def synthesize(
    examples: Sequence[tuple[Row, str]],
    *,
    run: Path | str | None = None,
    seconds: float = 10.0,
    wanted: int = 20,
) -> Synthesis:
    """A program that makes the output of every example (input, output) from its input;
    an input is a text, or a sequence of texts, its columns.

    run: the folder of a RobustFill that was trained on string-programs, to guide the
    search; without one, and where it finds nothing, programs are enumerated, simple
    ones first. seconds: of the processor that the search may take, of which a guide has
    half at most. wanted: programs that fit, at most, which is more than one to see how
    far they agree.
    Raises ValueError where there are no examples, where they contradict each other,
    have no output or are too long, and where nothing fits.
    """
    known: dict[str, str] = {}
    for row, output in examples:
        text = joined(row)
        if not output:
            raise InnerloopError(f"the example {text!r} has no output")
        if known.setdefault(text, output) != output:
            raise InnerloopError(
                f"two examples contradict each other: {text!r} gives both {known[text]!r} and {output!r}"
            )
        if max(len(text), len(output)) > strings.LONGEST:
            raise InnerloopError(
                f"texts may have {strings.LONGEST} characters, and {text[:20]!r}... has {len(text)}, its output {len(output)}"
            )
    if not known:
        raise InnerloopError(
            "there is no example: give at least one input with its output"
        )
    inputs, outputs = list(known), list(known.values())
    guided = guide(run) if run is not None else None
    budget = Budget(seconds)
    found: list[Found] = (
        guided.search(inputs, outputs, seconds / 2, wanted) if guided else []
    )
    if not found:
        found = pruned(
            enumerated(strings.GRAMMAR),
            Written(strings.evaluate, inputs, outputs),
            budget,
            wanted=wanted,
        )
    # a constant only where nothing else fits
    found = [one for one in found if not strings.ignores_input(one.program)] or found
    if not found:
        raise InnerloopError(
            f"no program was found that fits the {len(known)} examples: is one of them mistyped? More seconds may help, but seldom do"
        )
    return Synthesis(strings.show(found[0].program), shares(found))


def shares(found: Sequence[Found]) -> tuple[tuple[str, float], ...]:
    """Programs as text, and their shares of the probability of all."""
    programs: dict[Program, float] = {
        one.program: math.exp(one.log_p - found[0].log_p) for one in found
    }
    return tuple(
        (strings.show(program), p / sum(programs.values()))
        for program, p in programs.items()
    )


def guide(run: Path | str) -> RobustFill:
    """The learner of a run. Raises RunError where it is another."""
    learner = load(run)
    if not isinstance(learner, RobustFill):
        raise RunError(
            f"{run} is a run of {type(learner).__name__}, and only RobustFill guides to programs"
        )
    return learner
