"""Summaries of texts by one of their sentences, learned from a few examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopError
from innerloop.experiment import load
from innerloop.readers.files import decoding, some
from innerloop.readers.text import read_texts
from innerloop.tasks.descriptions import SENTENCES, scored, standardized
from innerloop.tasks.sentences import FEATURES, features, sentences_of
from innerloop.translation import read_pairs


@dataclass(frozen=True)
class Summary:
    """The sentence that a network chooses.

    Args:
        sentence: the sentence.
        place: its place in the text, from 0 on.
        of: how many sentences the text has.
    """

    sentence: str
    place: int
    of: int


@torch.no_grad()
def summarize(
    examples: Sequence[tuple[str, str]], texts: Sequence[str], *, run: Path | str
) -> list[Summary]:
    """Choose the sentence of each text that says most of what its summary would say.

    Args:
        examples: pairs of a text and its summary; from them, the network learns what a
            summary is here. Those whose text is a single sentence are left out.
        texts: texts to summarize, of which the first 6 sentences count.
        run: the folder of a run that was trained on descriptions.

    Raises InnerloopError where no example has two sentences, for a text without words,
    and for a run of another kind.
    """
    learner = load(run)
    spec = learner.spec
    if spec is None or (spec.kind, spec.x_shape) != ("reals", (FEATURES,)):
        raise InnerloopError(
            f"{run} is a run of {type(learner).__name__} on other tasks: train one by "
            "innerloop train alpaca descriptions"
        )
    pairs = [pair for text, summary in examples if (pair := scored(text, summary))]
    if not pairs:
        raise InnerloopError(
            f"none of {len(examples)} examples has a text of two or more sentences "
            "with its summary: at least one is needed"
        )
    x, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    state = learner.adapt(Examples(x, standardized(y)))
    found = []
    for text in texts:
        sentences = sentences_of(text)
        if not sentences:
            raise InnerloopError(f"a text has no words: {text[:60]!r}")
        outputs = learner.predict(state, features(sentences)[:SENTENCES])
        place = int(learner.likelihood.mean(outputs).sum(-1).argmax())
        found.append(Summary(sentences[place], place, len(sentences)))
    return found


def read_examples(file: Path | str) -> tuple[list[tuple[str, str]], list[str]]:
    """The pairs of a table, from the columns text and summary, or its first two; and
    the texts of the rows without a summary.
    """
    return read_pairs(file, ("text", "summary"))


def read_inputs(path: Path | str) -> tuple[list[str], list[str]]:
    """Texts and what they are called: of a text file one, of a folder or an archive one
    in each .txt file, of a table the column text.
    """
    path = Path(path)
    if path.suffix.lower() == ".txt" and path.is_file():
        with decoding(path, "a text"):
            return [path.read_text("utf-8-sig")], [path.name]
    found = read_texts(path, "text", "label", labels=False)
    if found.unreadable:
        raise InnerloopError(f"cannot be read: {some(found.unreadable)}")
    return found.texts, found.names
