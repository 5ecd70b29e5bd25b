"""Translation from a few pairs of a made-up or real language, by rules that a search
finds in them, or by a trained network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.experiment import Experiment, load
from innerloop.learners.synthesis.rule_synthesis import RuleSynthesis
from innerloop.readers.files import decoding, label_text, read_sheet, some
from innerloop.tasks.translation import (
    Lexicon,
    Pair,
    Translations,
    Words,
    row,
    words_of,
)

SOURCE, TARGET = 64, 128  # words of the longest texts without a run


class _Form(NamedTuple):
    """How texts become rows: see `Translations`."""

    lexicon: Lexicon
    source: int
    target: int


@dataclass(frozen=True)
class Translation:
    """What is written for a source; nothing, where no rule applies.

    Args:
        source, target: both texts.
        unseen: the words of the source, or its letters, that are in no pair.
    """

    source: str
    target: str
    unseen: Words = ()


@torch.no_grad()
def translate(
    examples: Sequence[tuple[str, str]],
    sources: Sequence[str],
    *,
    run: Path | str | None = None,
) -> list[Translation]:
    """Translate `sources` into the language of the examples (source, target).

    Words are whatever is between spaces. They may be any, with a run as many as its
    tasks have words; those that mean the same in all tasks of the run keep this
    meaning.

    Args:
        examples: pairs of a text and its translation.
        sources: the texts to translate.
        run: the folder of a run that was trained on instructions, scan or names.
            Without it, `RuleSynthesis` searches for rules, which takes no training.

    Raises InnerloopError where there are no examples, where a text is empty or too
    long, where there are too many different words, and for a run of another kind.
    """
    if not examples:
        raise InnerloopError("there is no example: at least one source with its target")
    learner, tasks = _of_run(run) if run else _without_run(examples, sources)
    lexicon = tasks.lexicon
    pairs: list[Pair] = [
        (
            _checked(tasks, source, "source", tasks.source),
            _checked(tasks, target, "target", tasks.target - 1),
        )
        for source, target in examples
    ]
    asked = [_checked(tasks, text, "source", tasks.source) for text in sources]
    numbers = lexicon.numbers(pairs, asked, range(lexicon.free))
    shown = {word for pair in pairs for words in pair for word in words}
    lost = sorted({*shown, *(word for words in asked for word in words)} - {*numbers})
    if lost:
        raise InnerloopError(
            f"there are more different words than the {lexicon.free} for which this "
            f"run has numbers; without one: {', '.join(map(repr, lost[:5]))}: use "
            "fewer or shorter examples, or train with more (--symbols, --extra)"
        )
    state = learner.adapt(
        Examples(
            _rows([x for x, _ in pairs], numbers, tasks.source),
            _rows([y for _, y in pairs], numbers, tasks.target),
        )
    )
    words = {number: word for word, number in numbers.items()}
    known = shown | {*lexicon.fixed}
    return [
        Translation(
            text,
            lexicon.join(words.get(number, "") for number in words_of(output)),
            tuple(word for word in source if word not in known),
        )
        for text, source, output in zip(
            sources,
            asked,
            learner.predict(state, _rows(asked, numbers, tasks.source))
            if asked
            else (),
            strict=True,
        )
    ]


def _of_run(run: Path | str) -> tuple[Learner, _Form]:
    """The learner of a run, and its rows."""
    learner, tasks = load(run), Experiment.load(run).tasks_of("test")
    if not isinstance(tasks, Translations):
        raise InnerloopError(
            f"{run} is a run of {type(learner).__name__} that does not translate: "
            "train one by innerloop train mlc instructions"
        )
    return learner, _Form(tasks.lexicon, tasks.source, tasks.target)


def _without_run(
    examples: Sequence[tuple[str, str]], sources: Sequence[str]
) -> tuple[Learner, _Form]:
    """A learner that needs no training, and rows in which all these texts fit."""
    texts = [text for pair in examples for text in pair] + [*sources]
    words = {word for text in texts for word in text.split()}
    form = _Form(Lexicon(free=len(words)), SOURCE, TARGET + 1)
    spec = TaskSpec("tokens", (SOURCE,), form.target, vocabulary=form.lexicon.size)
    return RuleSynthesis.build(spec), form


def read_pairs(
    file: Path | str, columns: tuple[str, str] = ("source", "target")
) -> tuple[list[tuple[str, str]], list[str]]:
    """The pairs of a table, from two columns by name, or its first two; and the first
    cells of the rows whose second one is empty.

    Raises InnerloopFileError for a missing file and InnerloopError for another table.
    """
    sheet = read_sheet(file)
    sheet.check()
    if len(sheet.columns) < 2:
        raise InnerloopError(
            f"{file} needs a header and two columns, {columns[0]} and {columns[1]}; it "
            f"has {some(sheet.columns)}"
        )
    named = sheet.find(columns[0]), sheet.find(columns[1])
    source, target = (0, 1) if None in named else named
    rows = [
        (label_text(cells[source]).strip(), label_text(cells[target]).strip())  # pyright: ignore[reportCallIssue, reportArgumentType]
        for cells in sheet.rows
    ]
    return [pair for pair in rows if pair[1]], [x for x, y in rows if x and not y]


def read_texts(what: str) -> list[str]:
    """The lines of a file, or a text itself where there is no file of this name."""
    path = Path(what)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # a text that no file can be called
        is_file = False
    if not is_file:
        return [what]
    with decoding(path, "texts"):
        lines = path.read_text("utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _checked(tasks: _Form, text: str, side: str, longest: int) -> Words:
    """A text as words. Raises InnerloopError for one that is empty or too long."""
    words = tasks.lexicon.split(text)
    unit = "letters" if tasks.lexicon.letters else "words"
    if not 0 < len(words) <= longest:
        raise InnerloopError(
            f"a {side} must have from 1 to {longest} {unit}; got {text[:40]!r} with "
            f"{len(words)}"
        )
    return words


def _rows(texts: Sequence[Words], numbers: dict[str, int], length: int) -> Tensor:
    return torch.tensor([row(words, numbers, length) for words in texts]).float()
