"""What is wrong with labeled data: confused classes, wrong labels, copies; and what
more examples would bring.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.advice.data import LabeledData
from innerloop.learners.closed_form import HEADS, Design
from innerloop.learners.transfer.probe import STRENGTHS, calibrated, unit
from innerloop.measurements import Estimate

MOST = 20_000  # items that are compared with all others
AT_ONCE = 2_000
DOUBT, SURE = 0.2, 0.5  # probabilities of the own label, and of another


class Doubt(NamedTuple):
    """An item whose label looks wrong: the probability of its label, and of another
    class.
    """

    item: int
    own: float
    other: int
    probability: float


class Confusion(NamedTuple):
    """Two classes, how many items of one are predicted to be of the other, of how many,
    and these items.
    """

    first: int
    second: int
    times: int
    of: int
    items: tuple[int, ...]


class Copies(NamedTuple):
    """Two items of different classes that are nearly the same, and the cosine of their
    vectors.
    """

    first: int
    second: int
    cosine: float


@dataclass(frozen=True)
class Diagnosis:
    """What leave-one-out predictions say about the data.

    Args:
        accuracy: of predicting each item from all others, among all classes; None where
            no class has two items.
        items: how many items were predicted.
        confusions: the pairs of classes that are confused, most often first.
        doubts: items whose label looks wrong, the most certain first.
        copies: items of different classes that are nearly the same.
    """

    accuracy: float | None
    items: int
    confusions: tuple[Confusion, ...]
    doubts: tuple[Doubt, ...]
    copies: tuple[Copies, ...]


def diagnose(data: LabeledData, seed: int = 0) -> Diagnosis:
    """Leave-one-out predictions of every item by ridge regression on all others, in
    closed form; of a random part where there are very many.

    A label looks wrong where the item is predicted to be of another class with much
    confidence: Northcutt, Jiang and Chuang 2021, "Confident learning: estimating
    uncertainty in dataset labels", arXiv:1911.00068.
    """
    labels, counts = data.labels, data.bank.counts
    chosen = torch.arange(len(labels))
    if len(chosen) > MOST:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(labels), generator=generator)[:MOST].sort().values
    values, labels = data.bank.values[chosen].flatten(1).double(), labels[chosen]
    copies = _copies(unit(values), labels, chosen)
    alone = torch.bincount(labels, minlength=len(counts))[labels] < 2
    if bool(alone.all()):
        return Diagnosis(None, 0, (), (), copies)
    p = probabilities(values, labels, len(counts))
    own = p.gather(1, labels[:, None])[:, 0]
    guess = p.argmax(1)
    wrong = (guess != labels) & ~alone
    pairs: dict[tuple[int, int], list[int]] = {}
    for i in wrong.nonzero()[:, 0].tolist():
        a, b = sorted((int(labels[i]), int(guess[i])))
        pairs.setdefault((a, b), []).append(int(chosen[i]))
    sizes = torch.bincount(labels, minlength=len(counts)).tolist()
    confusions = [
        Confusion(a, b, len(items), sizes[a] + sizes[b], tuple(items))
        for (a, b), items in pairs.items()
    ]
    best = p.amax(1)
    suspects = (wrong & (own < DOUBT) & (best > SURE)).nonzero()[:, 0]
    ranked = suspects[(best - own)[suspects].argsort(descending=True, stable=True)]
    doubts = [
        Doubt(int(chosen[i]), float(own[i]), int(guess[i]), float(best[i]))
        for i in ranked
    ]
    return Diagnosis(
        1 - float(wrong.sum()) / float((~alone).sum()),
        int((~alone).sum()),
        tuple(sorted(confusions, key=lambda c: -c.times)),
        tuple(doubts),
        copies,
    )


def probabilities(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Leave-one-out probabilities (n, classes) of items with vectors (n, d)."""
    y = F.one_hot(labels, classes).double()
    present = y.sum(0) > 0
    means = y.T @ values / y.sum(0).clamp_min(1)[:, None]
    design = Design(unit(values - means[present].mean(0)), y)
    fit = HEADS["ridge"](design, STRENGTHS["ridge"])
    scale, _ = calibrated(fit, design)
    scores = (scale * fit.loo).masked_fill(~present, -math.inf)
    return scores.softmax(-1)


def _copies(z: Tensor, labels: Tensor, chosen: Tensor) -> tuple[Copies, ...]:
    """Pairs of unit vectors in different classes that are more than ten times nearer
    than neighbors usually are.
    """
    z = z.float()
    nearest, other, place = [], [], []
    for rows in torch.arange(len(z)).split(AT_ONCE):
        cosines = z[rows] @ z.T
        cosines[torch.arange(len(rows)), rows] = -1
        nearest.append(cosines.amax(1))
        cosines[labels[rows][:, None] == labels] = -1
        best = cosines.max(1)
        other.append(best.values)
        place.append(best.indices)
    usual = 1 - torch.cat(nearest).clamp_max(1).median()
    cosine, partner = torch.cat(other), torch.cat(place)
    found = {}
    for i in (1 - cosine <= 0.01 * usual + 1e-6).nonzero()[:, 0].tolist():
        a, b = sorted((i, int(partner[i])))
        found[a, b] = Copies(int(chosen[a]), int(chosen[b]), float(cosine[i]))
    return tuple(sorted(found.values(), key=lambda c: -c.cosine))


class Forecast(NamedTuple):
    """The error at a number of examples per class, and with twice as many, by a power
    law; `slope` is the exponent.
    """

    shots: int
    error: float
    doubled: float
    slope: float
    gain: bool  # whether the last step of the curve is outside its interval


def forecast(
    curve: dict[int, Estimate], last_gain: Estimate | None, known: int
) -> Forecast | None:
    """What more examples would bring: a power law of the error through the last three
    points of a learning curve, error = a shots^-b; None for fewer than two points.

    Reference: Hestness, Narang, Ardalani, Diamos, Jun, Kianinejad, Patwary, Yang and
    Zhou 2017, "Deep learning scaling is predictable, empirically", arXiv:1712.00409.

    Args:
        curve: the accuracy by examples per class.
        last_gain: the gain from the last but one point to the last.
        known: how many examples a class has.
    """
    points = sorted(curve)[-3:]
    if len(points) < 2:
        return None
    x = torch.tensor([math.log(shots) for shots in points], dtype=torch.float64)
    errors = [max(1 - curve[shots].mean, 1e-4) for shots in points]
    y = torch.tensor([math.log(error) for error in errors], dtype=torch.float64)
    x_gap, y_gap = x - x.mean(), y - y.mean()
    slope = min(0.0, float((x_gap @ y_gap) / (x_gap @ x_gap)))
    level = float(y.mean()) - slope * float(x.mean())

    def error(shots: int) -> float:
        return math.exp(level + slope * math.log(shots))

    known = max(known, points[-1])
    outside = last_gain is not None and last_gain.mean > (last_gain.interval or 0.0)
    return Forecast(known, error(known), error(2 * known), -slope, outside)
