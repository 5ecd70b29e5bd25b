"""Answers to questions about a few facts, by a trained network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from innerloop.engine.errors import InnerloopError
from innerloop.experiment import Experiment, load
from innerloop.readers.files import some
from innerloop.tasks.stories import (
    ASKS,
    FILLERS,
    FIXED,
    GIVE,
    LENGTH,
    VERBS,
    Stories,
)
from innerloop.tasks.translation import Words

FORMS = (
    '"where is X", "where was X before Y", "is X in Y", "how many objects is X '
    'carrying" or "what is X carrying"'
)


@dataclass(frozen=True)
class Answer:
    """What a network answers.

    Args:
        question: the question.
        words: the words of the answer; several for a list.
        facts: the facts that carry it, by their place, from 0 on.
        unseen: words of the question that are in no fact.
    """

    question: str
    words: Words
    facts: tuple[int, ...]
    unseen: Words = ()

    @property
    def text(self) -> str:
        return ", ".join(self.words)


@torch.no_grad()
def answer(
    facts: Sequence[str], questions: Sequence[str], *, run: Path | str
) -> list[Answer]:
    """Answer questions about facts, in the order in which they happened.

    Persons, things and places may have any names of one word. Articles, and words such
    as "up" in "picked up", do not count.

    Args:
        facts: what happened: somebody went to a place, took or dropped a thing, or gave
            it to somebody, with one of the verbs of the tasks.
        questions: what to answer.
        run: the folder of a run that was trained on stories.

    Raises InnerloopError for a fact or a question of another form, for too many facts
    or names, and for a run of another kind.
    """
    learner, tasks = load(run), Experiment.load(run).tasks_of("test")
    if not isinstance(tasks, Stories):
        raise InnerloopError(
            f"{run} is a run of {type(learner).__name__} on other tasks: train one by "
            "innerloop train incontext stories"
        )
    if not 0 < len(facts) <= tasks.facts:
        raise InnerloopError(
            f"there must be from 1 to {tasks.facts} facts for this run; got "
            f"{len(facts)}: leave out what does not matter, or train with more "
            "(--facts)"
        )
    known, asked = [*map(_fact, facts)], [*map(_question, questions)]
    lexicon = tasks.lexicon
    numbers = tasks.numbers(known, asked, range(lexicon.free))
    words = {word for text in (*known, *asked) for word in text}
    if lost := sorted(words - {*numbers}):
        raise InnerloopError(
            f"there are more names than the {lexicon.free} for which this run has "
            f"numbers; without one: {some(lost)}: use fewer facts, or train with more "
            "(--symbols)"
        )
    if not asked:
        return []
    support = tasks.support(known, numbers)
    x = tasks.rows(asked, numbers)
    outputs = learner.predict(learner.adapt(support), x)
    answers = {number - tasks.first: word for word, number in numbers.items()}
    # what is no word of these texts is no answer
    for column in range(tasks.answers + tasks.facts):
        is_fact = tasks.answers <= column < tasks.answers + len(facts)
        if not is_fact and answers.get(column, "") not in {*words, *FIXED}:
            outputs[:, column] = -1e9
    found = []
    for question, asks, line in zip(
        questions, asked, tasks.chosen(outputs, x), strict=True
    ):
        places = line.nonzero()[:, 0].tolist()
        unseen = [
            word
            for word in asks
            if word not in lexicon.fixed and not any(word in fact for fact in known)
        ]
        found.append(
            Answer(
                question,
                tuple(answers[i] for i in places if i < tasks.answers),
                tuple(i - tasks.answers for i in places if i >= tasks.answers),
                tuple(unseen),
            )
        )
    return found


def read_facts(file: Path | str) -> list[str]:
    """The sentences of a text file."""
    from innerloop.translation import read_texts

    if not Path(file).is_file():
        raise InnerloopError(f"there is no file {file}: give a text file of facts")
    lines = (part for line in read_texts(str(file)) for part in re.split(r"\.\s", line))
    return [line for line in map(str.strip, lines) if line]


def _words(text: str) -> Words:
    """The words of a text, in lower case."""
    return tuple(re.findall(r"[^\W_][\w'-]*", text.lower()))


def _counting(words: Words) -> Words:
    return tuple(word for word in words if word not in FILLERS)


def _fact(text: str) -> Words:
    spoken = _words(text)
    words = _counting(spoken)
    verb = words[1] if len(words) > 1 else ""
    if verb not in VERBS or len(words) != (4 if verb in GIVE else 3):
        raise InnerloopError(
            "a fact says who did what, as in 'Mary gave the ball to John', in names of "
            f"one word, and by one of {', '.join(VERBS)}; got {text[:40]!r}"
        )
    if verb in GIVE and "to" not in spoken:  # as in "gave John the ball"
        *who, receiver, thing = [*words]
        words = (*who, thing, receiver)
    return words


def _question(text: str) -> Words:
    words = _counting(_words(text))
    if not 2 < len(words) <= LENGTH or words[0] not in ASKS or words[-1] in VERBS:
        raise InnerloopError(f"a question must be {FORMS}; got {text[:40]!r}")
    return words
