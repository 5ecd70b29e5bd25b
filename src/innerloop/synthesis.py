"""Programs from examples, for columns of a table: with a trained network or without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from innerloop.engine.errors import InnerloopError
from innerloop.experiment import load
from innerloop.learners.synthesis.robustfill import RobustFill
from innerloop.programs import strings
from innerloop.programs.search import Budget, Enumerated, InputOutput
from innerloop.programs.version_space import VersionSpace, explore

SEPARATOR = "|"  # between the texts of several columns, which are read as one text
# Prior weights of expressions. Characters at constant positions seldom generalize to
# other rows, so other expressions are preferred, as in Gulwani 2011, section 5.
WEIGHTS = {"sub": 0.05}
Row = str | Sequence[str]


@dataclass(frozen=True)
class Synthesis:
    """The likeliest program that fits the examples, and how far all other programs that
    were found agree with it. The instance is callable: it applies the program.

    Args:
        program: the likeliest program, as text.
        programs: the likeliest programs, each with its share of the probability of all
            programs that were found.
        fits: how many programs were found.
        space: all of them.
    """

    program: str
    programs: tuple[tuple[str, float], ...]
    fits: int
    space: VersionSpace = field(repr=False, compare=False)

    def __call__(self, row: Row) -> str | None:
        """The output of the program for an input; None where it has none."""
        return strings.run(strings.parse(self.program), joined(row))

    def agreement(self, row: Row) -> float:
        """The share of the probability of all programs that were found which lies on
        those with the same output for this input.
        """
        text = joined(row)
        if len(text) > strings.LONGEST:
            return 1.0  # no program has an output
        return self.space.agreement(partial(strings.evaluate, text=text), self(row))


def joined(row: Row) -> str:
    """An input as one text: several columns with a | between them."""
    return row if isinstance(row, str) else SEPARATOR.join(row)


def synthesize(
    examples: Sequence[tuple[Row, str]],
    *,
    run: Path | str | None = None,
    seconds: float = 10.0,
    wanted: int = 20,
) -> Synthesis:
    """A program that computes the output of every example (input, output) from its
    input; an input is a text or a sequence of texts, its columns.

    Raises InnerloopError where there are no examples, where two contradict each other,
    where an output is empty or a text is too long, and where no program fits.

    Args:
        run: the folder of a RobustFill that was trained on string-programs, whose
            network guides the search. Without it, and where the guided search finds
            nothing, programs are enumerated.
        seconds: limit of the processor time; a guided search uses half of it at most.
            Enumeration ends earlier where further programs change little.
        wanted: how many of the programs to list; all of them count in `agreement`.
    """
    inputs, outputs = _checked(examples)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InnerloopError(f"seconds must be at least 0; got {seconds}")
    if wanted < 1:
        raise InnerloopError(f"wanted must be at least 1; got {wanted}")
    budget = Budget(seconds)
    space = None
    if run is not None:
        space = guide(run).version_space(inputs, outputs, seconds / 2, wanted)
    if space is None or space.only_constants:
        pairs = InputOutput(strings.evaluate, inputs, outputs)
        grammar = strings.grammar_for([*inputs, *outputs])
        space = explore(Enumerated(grammar, WEIGHTS), pairs, budget)
    found = list(islice(space.programs(), wanted))
    if not found:
        raise InnerloopError(
            f"no program was found that fits the {len(inputs)} examples: check them "
            "for typos; a longer search rarely helps"
        )
    programs = tuple(
        (strings.show(program), math.exp(log_p - space.log_p))
        for program, log_p in found
    )
    return Synthesis(programs[0][0], programs, space.size, space)


def _checked(examples: Sequence[tuple[Row, str]]) -> tuple[list[str], list[str]]:
    """The inputs, each once, and their outputs."""
    known: dict[str, str] = {}
    for row, output in examples:
        text = joined(row)
        if not output:
            raise InnerloopError(f"the example {text!r} has no output")
        if known.setdefault(text, output) != output:
            raise InnerloopError(
                f"two examples contradict each other: {text!r} has the outputs "
                f"{known[text]!r} and {output!r}"
            )
        if max(len(text), len(output)) > strings.LONGEST:
            raise InnerloopError(
                f"texts may have at most {strings.LONGEST} characters; got "
                f"{text[:20]!r}... with {len(text)} and its output with {len(output)}"
            )
    if not known:
        raise InnerloopError("there is no example: at least one input with its output")
    return list(known), list(known.values())


def guide(run: Path | str) -> RobustFill:
    """The learner of a run. Raises InnerloopError where it is no RobustFill."""
    learner = load(run)
    if not isinstance(learner, RobustFill):
        raise InnerloopError(
            f"{run} is a run of {type(learner).__name__}, and only RobustFill can "
            "guide the search for programs"
        )
    return learner
