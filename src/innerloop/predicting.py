"""Predictions of a run that was trained on numbers, or on classes that are the same in
every task, such as the ratings of persons: for the rows of a table, from a few others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopError
from innerloop.evaluation.questions import Order, next_questions
from innerloop.readers.base import Inputs, Reader
from innerloop.readers.files import csv_text, some


@dataclass(frozen=True)
class Predictions:
    """What is predicted for inputs.

    Args:
        reader: how they were read.
        support, query: the labeled examples, and what was predicted.
        mean: the predicted numbers (m, 1), or the probability of each class.
        deviation: their standard deviations (m, 1), or None.
    """

    reader: Reader
    support: Inputs
    query: Inputs
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64] | None = None

    def table(self) -> str:
        """A CSV table with a row for each input."""
        classes = [f"probability_of_{name}" for name in self.reader.classes]
        columns = [self.mean] if self.deviation is None else [self.mean, self.deviation]
        numbers = ["prediction", "standard_deviation"][: len(columns)]
        rows = np.concatenate(columns, 1)
        return csv_text(
            [
                [self.reader.called, *(classes or numbers)],
                *(
                    [name, *(f"{value:.4f}" for value in row)]
                    for name, row in zip(self.query.names, rows, strict=True)
                ),
            ]
        )

    def summary(self) -> str:
        """What was done, and how well where the true labels are known."""
        text = (
            f"{len(self.query.names)} {self.reader.called}s predicted from "
            f"{len(self.support.names)} labeled ones."
        )
        if self.query.labels is None:
            return text
        try:
            truth = targets(self.reader, self.query).double().numpy()
        except InnerloopError:
            return text
        if self.reader.classes:
            right = (self.mean.argmax(1) == truth.argmax(1)).mean()
            return f"{text} Accuracy {100 * right:.1f} %."
        truth = truth * self.reader.deviation + self.reader.center
        root = np.sqrt(np.square(truth - self.mean).mean())
        return f"{text} Root mean squared error {root:.4g}."


def has_fixed_targets(learner: Learner) -> bool:
    """Whether a learner from a run predicts numbers, or classes that are the same in
    every task.
    """
    reader, spec = learner.reader, learner.spec
    numbers = spec is not None and spec.kind == "reals"
    return reader is not None and (numbers or bool(reader.classes))


@torch.no_grad()
def predict(learner: Learner, support: Inputs, query: Inputs) -> Predictions:
    """What a learner with a reader predicts for inputs, from labeled examples; inputs
    of the same name once.

    Raises InnerloopError for labels that are no numbers, or none of the classes.
    """
    learner.eval()
    query = distinct(query)
    known = examples(learner, support)
    outputs = learner.predict(learner.adapt(known), query.x.to(known.x))
    mean = learner.likelihood.mean(outputs).double().cpu().numpy()
    std, reader = learner.likelihood.std(outputs), learner.reader
    if reader.classes:
        return Predictions(reader, support, query, mean)
    deviation = None
    if std is not None:
        deviation = std.double().cpu().numpy() * reader.deviation
    mean = mean * reader.deviation + reader.center
    return Predictions(reader, support, query, mean, deviation)


def questions(
    learner: Learner, support: Inputs, pool: Inputs, count: int, order: Order
) -> list[str]:
    """The names of the inputs of a pool that are worth most to ask about next, the best
    first, of those that are not in the labeled examples.
    """
    learner.eval()
    pool = distinct(pool)
    left = [i for i, name in enumerate(pool.names) if name not in set(support.names)]
    if not left:
        raise InnerloopError("everything in the pool has a label already")
    known = examples(learner, support)
    x = pool.x[left].to(known.x)
    return [
        pool.names[left[i]] for i in next_questions(learner, known, x, count, order)
    ]


def examples(learner: Learner, inputs: Inputs) -> Examples:
    """Labeled inputs as a learner reads them."""
    like = next(learner.parameters(), torch.empty(0))
    return Examples(inputs.x.to(like), targets(learner.reader, inputs).to(like))


def targets(reader: Reader, inputs: Inputs) -> Tensor:
    """The labels of inputs as targets (n, y_dim).

    Raises InnerloopError for labels that are no numbers, or none of the classes.
    """
    labels = inputs.labels or []
    if reader.classes:
        if unknown := sorted(set(labels) - set(reader.classes)):
            raise InnerloopError(
                f"labels must be {' or '.join(reader.classes)}; got {some(unknown)}"
            )
        places = torch.tensor([reader.classes.index(label) for label in labels])
        return torch.eye(len(reader.classes))[places]
    try:
        values = torch.tensor([float(label) for label in labels])
        if not values.isfinite().all():
            raise ValueError("a number is not finite")
    except ValueError as error:
        raise InnerloopError(f"labels must be finite numbers: {error}") from error
    return ((values - reader.center) / reader.deviation)[:, None]


def distinct(inputs: Inputs) -> Inputs:
    """The first of the inputs of each name."""
    first: dict[str, int] = {}
    for i, name in enumerate(inputs.names):
        first.setdefault(name, i)
    kept = list(first.values())
    labels = inputs.labels and [inputs.labels[i] for i in kept]
    names = [inputs.names[i] for i in kept]
    return replace(inputs, x=inputs.x[kept], names=names, labels=labels, files=())
