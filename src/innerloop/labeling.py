"""Labeling of inputs by a classifier that learned the classes from a few examples."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePosixPath

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from innerloop.core.learner import Learner
from innerloop.engine.errors import InnerloopError, InnerloopFileError
from innerloop.engine.scores import roc_auc
from innerloop.estimators import FewShotClassifier
from innerloop.readers.base import Inputs, Reader
from innerloop.readers.files import csv_text
from innerloop.readers.sources import content

GUESSES = 3
UNKNOWN = "(none)"  # the label of an input that is rejected
NEIGHBORS = 3
MOST_SHOWN = 500  # inputs on a page
THUMBNAIL = 96  # pixels
_WORDS = ("", "second_", "third_")


@dataclass(frozen=True)
class Labeling:
    """The labels that a classifier gives to inputs.

    Args:
        reader: how the inputs were read.
        support: the labeled examples.
        query: what was labeled, m inputs.
        classes: the classes.
        probabilities: of every class (m, classes).
        rejected: which inputs are like none of the classes (m,).
        sets: which classes an input may have (m, classes), or None.
        transductive: whether a label also depends on the other inputs.
    """

    reader: Reader
    support: Inputs
    query: Inputs
    classes: list[str]
    probabilities: NDArray[np.float64]
    rejected: NDArray[np.bool_]
    sets: NDArray[np.bool_] | None = None
    transductive: bool = False

    @property
    def order(self) -> NDArray[np.int64]:
        """The classes of every input, the most probable first (m, classes)."""
        return (-self.probabilities).argsort(1, kind="stable")

    @property
    def labels(self) -> list[str]:
        """The most probable class of every input, UNKNOWN where it is rejected."""
        return [
            UNKNOWN if rejected else self.classes[i]
            for i, rejected in zip(self.order[:, 0], self.rejected, strict=True)
        ]

    @property
    def correct(self) -> int | None:
        """How many inputs are labeled as their own labels say; None where they have no
        labels, or others than these classes.
        """
        own = self.query.labels
        if own is None or not set(own) <= {*self.classes, UNKNOWN}:
            return None
        return sum(a == b for a, b in zip(self.labels, own, strict=True))

    def table(self) -> str:
        """A CSV table: the inputs, each with its most probable classes, and for readers
        of what is ranked the probability of every class.
        """
        count = min(GUESSES, len(self.classes))
        header = [f"{word}{n}" for word in _WORDS for n in ("label", "probability")]
        ranked = self.classes if self.reader.ranked else []
        header = [*header[: 2 * count], *(f"probability_of_{c}" for c in ranked)]
        header += [] if self.sets is None else ["possible_labels"]
        rows = [[self.reader.called, *header]]
        columns = (self.query.names, self.labels, self.probabilities, self.order)
        for i, (name, label, row, places) in enumerate(zip(*columns, strict=True)):
            cells: list[str] = []
            for rank, c in enumerate(places[:count]):
                text = label if rank == 0 else self.classes[c]
                cells += [text, f"{row[c]:.4f}"]
            cells += [f"{p:.6f}" for p in row[: len(ranked)]]
            if self.sets is not None:
                possible = [self.classes[c] for c in np.flatnonzero(self.sets[i])]
                cells.append("; ".join(possible))
            rows.append([name, *cells])
        return csv_text(rows)

    def sort_into(self, folder: Path) -> int:
        """Copy the files of the inputs into `folder/LABEL/`; returns how many.

        Raises InnerloopError for inputs that are no files, and InnerloopFileError for a
        folder that holds something, or cannot be written.
        """
        if not self.query.files:
            raise InnerloopError(
                f"only inputs that are files can be sorted into folders, not "
                f"{self.reader.what}s of a table"
            )
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InnerloopFileError(
                f"{folder} is there already and not empty: name a new folder"
            )
        try:
            for file, name, label in zip(
                self.query.files, self.query.names, self.labels, strict=True
            ):
                parts = [p for p in PurePosixPath(name).parts if p not in ("/", "..")]
                target = _free(folder / folder_name(label) / Path(*parts))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content(file))
        except OSError as error:
            raise InnerloopFileError(
                f"cannot copy into {folder}: {error.strerror or error}"
            ) from error
        return len(self.query.files)

    def neighbors(self) -> NDArray[np.int64] | None:
        """The most similar examples of every input (m, k), by the cosine of their
        vectors; None where inputs are no vectors.
        """
        if self.query.x.dim() != 2 or self.reader.vocabulary:
            return None
        center = self.support.x.mean(0)
        support, query = (
            F.normalize(inputs.x - center, dim=-1)
            for inputs in (self.support, self.query)
        )
        count = min(NEIGHBORS, len(support))
        return (query @ support.T).topk(count).indices.numpy()

    def page(self) -> str:
        """A page in HTML, complete in itself: every input with its most probable
        classes and the examples that are most like it.
        """
        near = self.neighbors()
        rows = []
        for i in range(min(len(self.query.names), MOST_SHOWN)):
            guesses = "".join(
                f"<li>{escape(self.classes[c])} "
                f"<span>{self.probabilities[i, c]:.0%}</span>"
                f'<i style="width:{self.probabilities[i, c]:.0%}"></i></li>'
                for c in self.order[i, :GUESSES]
            )
            own = self.query.labels[i] if self.query.labels else ""
            wrong = self.correct is not None and own != self.labels[i]
            mark = f'<p class="wrong">its label is {escape(own)}</p>' if wrong else ""
            examples = "".join(
                self._shown(self.support, int(j))
                for j in (near[i] if near is not None else ())
            )
            rows.append(
                f"<tr><td>{self._shown(self.query, i)}</td><td><b>"
                f"{escape(self.labels[i])}</b><ol>{guesses}</ol>{mark}</td>"
                f'<td class="near">{examples}</td></tr>'
            )
        more = len(self.query.names) - len(rows)
        note = f"<p>{more} more are in the table of labels only.</p>" if more else ""
        return _PAGE.format(
            summary=escape(self.summary()), rows="".join(rows), note=note
        )

    def summary(self) -> str:
        """What was done, in one or two sentences."""
        text = (
            f"{len(self.query.names)} {self.reader.what}s labeled with "
            f"{len(self.classes)} classes, from {len(self.support.names)} examples."
        )
        if self.correct is not None:
            share = 100 * self.correct / len(self.query.names)
            text += (
                f" Accuracy {share:.1f} %: {self.correct} of {len(self.query.names)} "
                "have the label that they came with."
            )
            if self.reader.ranked and len(self.classes) == 2:
                second = torch.tensor(
                    [label == self.classes[1] for label in self.query.labels or []]
                )
                area = roc_auc(torch.from_numpy(self.probabilities[:, 1]), second)
                text += f" ROC-AUC {float(area):.3f}."
        if self.transductive:
            text += " Transductive: each label also depends on the other inputs."
        if self.rejected.any():
            text += f" {int(self.rejected.sum())} are like none of the classes."
        return text

    def _shown(self, inputs: Inputs, i: int) -> str:
        """An input as HTML: a picture or its text."""
        label = inputs.labels[i] if inputs is self.support and inputs.labels else ""
        name = escape(inputs.names[i])
        caption = f"<figcaption>{escape(label) or name}</figcaption>"
        file = inputs.files[i] if inputs.files else None
        if file and (picture := self.reader.thumbnail(file, THUMBNAIL)) is not None:
            source = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
            return (
                f'<figure><img alt="{name}" title="{name}" src="{source}">'
                f"{caption}</figure>"
            )
        caption = caption if label else ""
        return f"<figure><blockquote>{name}</blockquote>{caption}</figure>"


def label(
    learner: Learner,
    support: Inputs,
    query: Inputs,
    reject: float | None = None,
    error: float | None = None,
) -> Labeling:
    """Learn the classes of labeled examples, and label other inputs.

    Args:
        learner: a learner with a reader.
        support, query: what its reader read; the examples have labels.
        reject: the share of inputs of the classes that may be rejected wrongly; None
            rejects nothing.
        error: the share of inputs whose set of possible labels may lack the true one;
            None makes no sets.

    Raises InnerloopError where there are fewer than two classes.
    """
    classifier = FewShotClassifier(learner, reject=reject)
    classifier.fit(support, support.labels or [])
    probabilities = classifier.predict_proba(query)
    rejected = np.zeros(len(probabilities), bool)
    if reject is not None:
        rejected = classifier.novelty(query) > classifier.threshold_
    sets = None if error is None else classifier.predict_sets(query, error)
    return Labeling(
        learner.reader,
        support,
        query,
        [str(name) for name in classifier.classes_],
        probabilities,
        rejected,
        sets,
        learner.transductive,
    )


def folder_name(label: str) -> str:
    """A label as the name of a folder."""
    name = "".join(
        "_" if c in '/\\:*?"<>|' or not c.isprintable() else c for c in label
    )
    return name.strip(". ")[:100] or "_"


def _free(target: Path) -> Path:
    """The path, or one like it that no file has yet."""
    count = 1
    free = target
    while free.exists():
        count += 1
        free = target.with_name(f"{target.stem}-{count}{target.suffix}")
    return free


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Labels</title>
<meta name="viewport" content="width=device-width">
<style>
:root {{ color-scheme: light dark; --line: #8884; --bar: #4a7dcf }}
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
  padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ border-top: 1px solid var(--line); padding: .6rem; vertical-align: top;
  text-align: left }}
figure {{ display: inline-block; margin: 0 .5rem 0 0; max-width: 16rem;
  vertical-align: top }}
figcaption {{ font-size: 12px; opacity: .75; overflow-wrap: anywhere }}
img {{ width: 96px; height: 96px; object-fit: cover; border-radius: 6px }}
blockquote {{ margin: 0 }}
ol {{ list-style: none; padding: 0; margin: .3rem 0; min-width: 12rem }}
li {{ position: relative; padding: 1px 6px }}
li span {{ float: right; opacity: .75 }}
li i {{ position: absolute; left: 0; top: 0; bottom: 0; background: var(--bar);
  opacity: .25; border-radius: 3px }}
.wrong {{ color: #c33; margin: 0 }}
</style>
<h1>Labels</h1><p>{summary}</p>
<table><tr><th>Input</th><th>Most probable classes</th>
<th>Most similar examples</th></tr>
{rows}</table>{note}
</html>
"""
